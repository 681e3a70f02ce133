"""Beside `planting`, for rules that choose their residuals: a forward rule of one's own, other arguments, precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

REAL = ("float32", "float64")
Maker = Callable[[np.random.Generator], tuple[Any, ...]]


def ruled(
    primal: Callable[..., Any],
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., Any],
    nondiff: Sequence[int] = (),
    symbolic_zeros: bool = False,
) -> Callable[[], Callable[..., Any]]:
    """What makes `primal` with this rule; `nondiff` are the positions of static arguments."""

    def make() -> Callable[..., Any]:
        rule = jax.custom_vjp(primal, nondiff_argnums=tuple(nondiff))
        rule.defvjp(forward, backward, symbolic_zeros=symbolic_zeros)
        return rule

    return make


def then(first: Maker, *rest: Any) -> Maker:
    """Arguments at random, followed by some that are given."""
    return lambda rng: (*first(rng), *rest)


def positive(*shapes: tuple[int, ...]) -> Maker:
    """Arrays with entries between 1/2 and 2."""
    return lambda rng: tuple(rng.uniform(0.5, 2.0, shape) for shape in shapes)


def complexes(*shapes: tuple[int, ...]) -> Maker:
    """Complex arrays, both parts standard normal."""
    return lambda rng: tuple(rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in shapes)


def integers(high: int, *shape: int) -> np.ndarray:
    """Integers below `high`, some of them repeated: 0, 2, 4, … wrapped round."""
    return (2 * np.arange(np.prod(shape, dtype=int)) % high).astype(np.int32).reshape(shape)


def wide(x: Array) -> Array:
    """At least float32."""
    return x.astype(np.promote_types(x.dtype, np.float32))
