"""CIRCULAR padding: x[n *s c] continued around its spatial axes, and the adjoint of that.

Along one axis, entry i of the result is x[(i - low) mod s]: the end of x, x, and its beginning, as often as they are
needed. Each copy is a slice of x put next to the others, so that the adjoint cuts them apart again and adds them up,

    x ↦ (x[a₁:b₁], x[a₂:b₂], …)        (dz₁, dz₂, …) ↦ Σ_j dz_j, put at a_j in zeros
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from ..adjoint import layout_of, partitioned
from .convolution_geometry import Lay


def wrapped(x: Array, lay: Lay) -> Array:
    """(n, s, c) -> (n, low + s + high, c)."""
    for axis, (s, pair) in enumerate(zip(lay.s, lay.wrap, strict=True), start=1):
        if any(pair):
            x = partitioned(partial(_around, axis=axis, s=s, pair=pair), x, axes=layout_of(x))
    return x


def folded(z: Array, lay: Lay) -> Array:
    """The adjoint of `wrapped`: (n, low + s + high, c) -> (n, s, c)."""
    for axis, (s, pair) in enumerate(zip(lay.s, lay.wrap, strict=True), start=1):
        if any(pair):
            z = partitioned(partial(_back, axis=axis, s=s, pair=pair), z, axes=layout_of(z))
    return z


def _around(x: Array, axis: int, s: int, pair: tuple[int, int]) -> Array:
    return jnp.concatenate([lax.slice_in_dim(x, a, b, axis=axis) for a, b in _copies(s, *pair)], axis)


def _back(z: Array, axis: int, s: int, pair: tuple[int, int]) -> Array:
    start, terms = 0, []
    for a, b in _copies(s, *pair):
        part = lax.slice_in_dim(z, start, start + b - a, axis=axis)
        start += b - a
        put = [(a, s - b, 0) if each == axis else (0, 0, 0) for each in range(z.ndim)]
        terms.append(lax.pad(part, jnp.zeros((), z.dtype), put))
    return sum(terms[1:], terms[0])


def _copies(s: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """The slices of x, from and up to, that are -low … s + high - 1 modulo s."""
    at, end = -low, s + high
    while at < end:
        first = at % s
        last = min(s, first + end - at)
        yield first, last
        at += last - first
