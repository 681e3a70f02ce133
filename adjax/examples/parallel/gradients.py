"""A gradient in parts, and a loss scale that finds itself.

The mean over a batch is the mean over its micro-batches of their means, and so is the gradient. Micro-batch k takes
the examples k, k + K, k + 2K and so on, so that each takes an equal share from every device that holds examples.

The smallest number of float16 is 6e-8, and cotangents of a mean over many examples are smaller. So the loss is
multiplied before it is differentiated, and the gradient divided, by a power of two that doubles after many steps
without an overflow; a step with one changes nothing and halves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from adjax import cotangent_like

FIRST_SCALE, MOST_SCALE = 2.0**10, 2.0**24
STEPS_TO_DOUBLE = 100

Tree = TypeVar("Tree")


class LossScale(NamedTuple):
    """By what the loss is multiplied, and for how many steps nothing overflowed since that changed."""

    factor: Array                           # ()
    steps: Array                            # (), integer


def first_factor(dtype: str) -> float:
    """Where the factor starts: 1 where none is needed, in every dtype but float16."""
    return FIRST_SCALE if dtype == "float16" else 1.0


def first_scale(dtype: str) -> LossScale | None:
    """The scale before the first step, None where none is needed."""
    return LossScale(jnp.float32(FIRST_SCALE), jnp.int32(0)) if dtype == "float16" else None


def accumulated(
    loss: Callable[..., Array], params: Tree, batch: Any, count: int, weight: ArrayLike = 1.0
) -> tuple[Array, Tree]:
    """weight · loss and its gradient, of `count` micro-batches one after the other, added up in the parameters' dtype.

    >>> loss = lambda w, x: jnp.mean(jnp.square(w * x))
    >>> [round(float(v), 3) for v in accumulated(loss, jnp.float32(2), jnp.arange(6, dtype="float32"), 3)]
    [36.667, 36.667]
    """
    if count == 1 and isinstance(weight, float) and weight == 1:
        return jax.value_and_grad(loss)(params, batch)
    both = jax.value_and_grad(lambda params, part: loss(params, part) * (weight / count))

    def add(total: Tree, part: Any) -> tuple[Tree, Array]:
        value, gradient = both(params, part)
        return jax.tree.map(jnp.add, total, gradient), value

    if count == 1:
        return both(params, batch)
    zeros = jax.tree.map(lambda p: cotangent_like(p, None), params)
    gradient, values = jax.lax.scan(add, zeros, jax.tree.map(lambda x: _parts(x, count), batch))
    return jnp.sum(values), gradient


def _parts(x: Array, count: int) -> Array:
    """(n, ...) -> (count, n / count, ...)."""
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)


def unless_overflown(scale: LossScale, gradient: Any, new: Tree, old: Tree) -> tuple[Tree, LossScale]:
    """The new state where the whole gradient is finite, else the old one; and the next scale.

    >>> scale = LossScale(jnp.float32(8), jnp.int32(STEPS_TO_DOUBLE - 1))
    >>> [float(v) for v in jax.tree.leaves(unless_overflown(scale, jnp.ones(2), 1.0, 0.0))]
    [1.0, 16.0, 0.0]
    >>> [float(v) for v in jax.tree.leaves(unless_overflown(scale, jnp.array([1, jnp.inf]), 1.0, 0.0))]
    [0.0, 4.0, 0.0]
    """
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient)]))
    state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    steps = jnp.where(finite, scale.steps + 1, 0)
    grow = steps == STEPS_TO_DOUBLE
    factor = jnp.where(finite, jnp.where(grow, 2 * scale.factor, scale.factor), scale.factor / 2)
    return state, LossScale(jnp.clip(factor, 1, MOST_SCALE), jnp.where(grow, 0, steps))
