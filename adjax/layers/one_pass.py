"""Several results of one pass over an array.

XLA:CPU compiles elementwise code to loops with one result each: a maximum and its index, wanted from the same array,
read the array twice. A reduction alone may have several results. So each value is laid down twice along a new axis,
and the pairs are reduced to either of their members: the compiler sees that both are one, and what remains is a single
loop that writes all results.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


@jax.custom_jvp
def in_one_pass(*values: Array) -> tuple[Array, ...]:
    """The values themselves, real arrays of one shape, computed by one loop where they are computed elementwise.

    To differentiate it is the identity.

    >>> x = jnp.arange(3.0)
    >>> [y.tolist() for y in in_one_pass(x + 1, x > 1)]
    [[1.0, 2.0, 3.0], [False, False, True]]
    """
    either = lambda a, b: tuple(map(lax.max, a, b))
    least = tuple(np.array(_least(v.dtype), v.dtype) for v in values)
    return tuple(lax.reduce(tuple(lax.broadcast(v, (2,)) for v in values), least, either, (0,)))


@in_one_pass.defjvp
def _identity(values: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    return in_one_pass(*values), tangents


def _least(dtype: Any) -> Any:
    """What a maximum begins with."""
    if jnp.issubdtype(dtype, np.floating):
        return -np.inf
    return False if dtype == np.bool_ else np.iinfo(dtype).min
