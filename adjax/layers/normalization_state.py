"""What `batch_norm` is given beside x: running statistics and a mask, and what it says of wrong ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from .checks import check_array, check_pair
from .normalization import check_vector


class BatchState(NamedTuple):
    """Running statistics of `batch_norm`: `mean[c]` and `var[c]`, float32 or wider."""

    mean: Array
    var: Array

    @classmethod
    def init(cls, c: int, dtype: Any = jnp.float32) -> BatchState:
        """Those of a standard normal variable: mean zero, variance one.

        >>> mean, var = BatchState.init(2)
        >>> mean.tolist(), var.tolist()
        ([0.0, 0.0], [1.0, 1.0])
        """
        if c < 0:
            raise ValueError(f"BatchState.init: c must not be negative, got c={c}")
        return cls(jnp.zeros(c, dtype), jnp.ones(c, dtype))


def checked_state(state: Any, x: Array) -> BatchState:
    """The statistics, once they fit `x[..., c]` and are wide enough."""
    mean, var = check_pair("batch_norm", state, ("mean", "var"), "BatchState", "state")
    for name, value in (("state.mean", mean), ("state.var", var)):
        check_vector("batch_norm", name, value, x)
        if jnp.finfo(value.dtype).bits < 32:
            raise TypeError(f"batch_norm: {name} must be float32 or wider, got dtype {value.dtype}")
    return BatchState(mean, var)


def checked_mask(where: Any, x: Array) -> Array:
    """The mask with the rank of x."""
    check_array("batch_norm", "where", "(..., c) or (...)", where)
    if where.dtype != bool:
        raise TypeError(f"batch_norm: where must be boolean, got dtype {where.dtype} (shape {where.shape})")
    whole = where.ndim == x.ndim
    target = x.shape if whole else x.shape[:-1]
    fits = where.ndim <= len(target) and all(
        a in (1, b) for a, b in zip(where.shape[::-1], target[::-1], strict=False)
    )
    if not fits:
        axes = "x" if whole else "the axes of x before c"
        raise ValueError(
            f"batch_norm: where must broadcast to {axes}, {target} (x has shape {x.shape}), got shape {where.shape}"
        )
    where = jnp.asarray(where)
    return where if whole else where.reshape(*[1] * (len(target) - where.ndim), *where.shape, 1)
