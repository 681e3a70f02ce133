"""Functions with kinks, and rules that take another subgradient there than autodiff does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import REAL, integers, ruled, then, wide

Grads = tuple[Any, ...]
Adjoint = Callable[[Grads, Array], Grads]


def relu(x: Array) -> Array:
    """y = max(x, 0)."""
    return jnp.maximum(x, 0)


def relu_adjoint(at_zero: float) -> Adjoint:
    """dx = dy where x > 0, and this multiple of it at 0."""
    return lambda residuals, dy: (dy * jnp.heaviside(residuals[0], jnp.asarray(at_zero, dy.dtype)),)


def absolute_adjoint(residuals: Grads, dy: Array) -> Grads:
    """−1 at 0."""
    return (jnp.where(residuals[0] > 0, dy, -dy),)


def clipped(x: Array) -> Array:
    """y = x, held between −1 and 1."""
    return jnp.clip(x, -1, 1)


def clipped_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dy inside and on both bounds."""
    (x,) = residuals
    return (jnp.where((x >= -1) & (x <= 1), dy, 0),)


def maximum(x: Array, y: Array) -> Array:
    """The larger of two."""
    return jnp.maximum(x, y)


def maximum_to_the_first(residuals: Grads, dz: Array) -> Grads:
    """Ties go to the first argument."""
    x, y = residuals
    return jnp.where(x >= y, dz, 0), jnp.where(x >= y, 0, dz)


def largest(x: Array) -> Array:
    """max of the last axis."""
    return jnp.max(x, axis=-1)


def largest_first(residuals: Grads, dy: Array) -> Grads:
    """All of dy to the first of those that tie; autodiff splits it."""
    (x,) = residuals
    first = jnp.argmax(x, axis=-1)[..., None] == jnp.arange(x.shape[-1])
    return (jnp.where(first, dy[..., None], 0),)


def largest_last(residuals: Grads, dy: Array) -> Grads:
    """To the last of those that tie."""
    (x,) = residuals
    return (jnp.flip(largest_first((jnp.flip(x, -1),), dy)[0], -1),)


def max_pool(x: Array) -> Array:
    """The largest of every 2 × 2 window of x[n, h, w], by reshaping; an odd row or column is left out."""
    return _windows(x).max(-1)


def _windows(x: Array) -> Array:
    n, h, w = x.shape[0], x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2).transpose(0, 1, 3, 2, 4).reshape(n, h, w, 4)


def max_pool_first_tie(residuals: Grads, dy: Array) -> Grads:
    """dy to the first largest of its window."""
    (x,) = residuals
    (n, h, w), (dwindows,) = dy.shape, largest_first((_windows(x),), dy)
    dx = dwindows.reshape(n, h, w, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, 2 * h, 2 * w)
    return (jnp.pad(dx, ((0, 0), (0, x.shape[1] - 2 * h), (0, x.shape[2] - 2 * w))),)


def ordered(x: Array) -> Array:
    """Sorted along the last axis."""
    return jnp.sort(x, axis=-1)


def ordered_adjoint(residuals: Grads, dy: Array) -> Grads:
    """The inverse of a sorting permutation, one that has ties in reverse."""
    order = jnp.flip(jnp.argsort(residuals[0], axis=-1, descending=True), -1)
    return (jnp.take_along_axis(dy, jnp.argsort(order, axis=-1), axis=-1),)


def median(x: Array) -> Array:
    """The lower median of the last axis."""
    return jnp.sort(x, axis=-1)[..., (x.shape[-1] - 1) // 2]


def median_adjoint(residuals: Grads, dy: Array) -> Grads:
    """Split evenly among all entries that equal the median."""
    (x,) = residuals
    hit = (x == median(x)[..., None]).astype(x.dtype)
    return (dy[..., None] * hit / hit.sum(-1, keepdims=True),)


def top_two(x: Array) -> tuple[Array, Array]:
    """The two largest and where they are."""
    return tuple(lax.top_k(x, 2))


def top_two_forward(x: Array) -> tuple[tuple[Array, Array], Grads]:
    y, at = top_two(x)
    return (y, at), (x, at)


def top_two_adjoint(residuals: Grads, ct: tuple[Array, Any]) -> Grads:
    """dx = Σ_k dy_k e_at(k), as a sum of one-hot rows."""
    x, at = residuals
    hit = (at[..., None] == jnp.arange(x.shape[-1], dtype=at.dtype)).astype(x.dtype)
    return ((hit * ct[0][..., None]).sum(-2),)


def hinge(scores: Array, labels: Array) -> Array:
    """l = max(0, 1 − s) where the label is True, max(0, 1 + s) elsewhere."""
    return jnp.maximum(0, 1 - jnp.where(labels, scores, -scores))


def hinge_adjoint(residuals: Grads, dl: Array) -> Grads:
    """A full step on the margin itself."""
    scores, labels = residuals
    margin = jnp.where(labels, scores, -scores)
    return jnp.where(margin <= 1, jnp.where(labels, -dl, dl), 0), None


def safe_norm(x: Array) -> Array:
    """|x| of the last axis, and 0 at 0 without a NaN."""
    square = jnp.sum(jnp.square(wide(x)), axis=-1)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square))).astype(x.dtype)


def safe_norm_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = x/|x| dy, and 0 at 0."""
    x = wide(residuals[0])
    y = safe_norm(x)[..., None]
    return ((x / jnp.where(y == 0, 1, y) * wide(dy)[..., None]).astype(dy.dtype),)


def shrunk(x: Array) -> Array:
    """Soft threshold: towards 0 by 1/2."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0)


def pinball(x: Array) -> Array:
    """Quantile loss: 0.9 x where x is positive, −0.1 x elsewhere."""
    return jnp.maximum(0.9 * x, -0.1 * x)


def huber(x: Array) -> Array:
    """x²/2 near 0, |x| − 1/2 beyond 1: smooth once, with a kink in the slope."""
    return jnp.where(jnp.abs(x) <= 1, x * x / 2, jnp.abs(x) - 0.5)


GRID, ROWS = normal((4, 6)), normal((3, 5))
RIGHT = [
    Right("relu: 0 at 0", planted(relu, relu_adjoint(0.0)), GRID),
    Right("relu: 1/2 at 0", planted(relu, relu_adjoint(0.5)), GRID),
    Right("relu: 1 at 0", planted(relu, relu_adjoint(1.0)), GRID),
    Right("abs: -1 at 0", planted(jnp.abs, absolute_adjoint), GRID),
    Right("clip: passes on the bounds", planted(clipped, clipped_adjoint), GRID),
    Right("maximum: ties to the first argument", planted(maximum, maximum_to_the_first), normal((4, 6), (4, 6))),
    Right("max: ties to the first entry", planted(largest, largest_first), ROWS),
    Right("max: ties to the last entry", planted(largest, largest_last), ROWS),
    Right("max pool: ties to the first of the window", planted(max_pool, max_pool_first_tie), normal((2, 4, 6))),
    Right("sort: ties in reverse", planted(ordered, ordered_adjoint), ROWS),
    Right("median: split among equals", planted(median, median_adjoint), ROWS),
    Right("top two: one-hot rows", ruled(top_two, top_two_forward, top_two_adjoint), ROWS),
    Right("hinge: a step on the margin", planted(hinge, hinge_adjoint), then(normal((4, 5)), integers(3, 4, 5) > 0)),
    Right("norm: 0 at 0", planted(safe_norm, safe_norm_adjoint), GRID),
    Right("soft threshold: 1 on the threshold",
          planted(shrunk, lambda r, dy: (jnp.where(jnp.abs(r[0]) >= 0.5, dy, 0),)), GRID),
    Right("pinball: the upper slope at 0",
          planted(pinball, lambda r, dy: (jnp.where(r[0] >= 0, 0.9 * dy, -0.1 * dy),)), GRID, REAL),
    Right("huber: as a clipped identity", planted(huber, lambda r, dy: (jnp.clip(r[0], -1, 1) * dy,)), GRID),
]
