"""Convolution by its definition, a sum of shifted affine maps, and its adjoints: what every other formulation computes.

Axes and contracts as in `convolution_geometry`. S_k reads, at each position, what tap k of the kernel sees:

    (S_k x)[n t c] = x[n, stride · t + dilation · k - low, c]        0 outside of x

and its adjoint S_kᵀ puts each entry back there. With W_k the matrix of tap k, block-diagonal in the groups,

    Y    = Σ_k S_k X W_k
    dW_k = (S_k X)ᵀ dY
    dX   = Σ_k S_kᵀ dY W_kᵀ
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax import Array, lax

from ..adjoint import contract, wide
from .convolution_geometry import Geometry

Tap = tuple[int, ...]


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """Y = Σ_k S_k X W_k."""
    x, W = _widened(x, W)
    k = W.shape[:-2]
    t = g.out(x.shape[1:-1], k)
    terms = [
        _merged(contract("...gc,cgo->...go", _split(read(x, tap, g, t), g), _split(W[tap], g)))
        for tap in taps(k)
    ]                                                                          # (n t, g, c)(c, g, o) -> (n t, g, o)
    return sum(terms[1:], terms[0])


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dX = Σ_k S_kᵀ dY W_kᵀ."""
    dY, W = _widened(dY, W)
    terms = [
        put_back(_merged(contract("...go,cgo->...gc", _split(dY, g), _split(W[tap], g))), tap, g, s)
        for tap in taps(W.shape[:-2])
    ]                                                                          # (n t, g, o)(c, g, o) -> (n t, g, c)
    return sum(terms[1:], terms[0])


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW_k = (S_k X)ᵀ dY."""
    x, dY = _widened(x, dY)
    t = dY.shape[1:-1]
    terms = [
        _merged(contract("...gc,...go->cgo", _split(read(x, tap, g, t), g), _split(dY, g)))
        for tap in taps(k)
    ]                                                                          # (n t, g, c)(n t, g, o) -> (c, g, o)
    return jnp.stack(terms).reshape(*k, *terms[0].shape)


def taps(k: Sequence[int]) -> Iterator[Tap]:
    """The positions in a kernel, in row-major order."""
    return itertools.product(*map(range, k))


def read(x: Array, tap: Tap, g: Geometry, t: Sequence[int]) -> Array:
    """S_k: (n, s, c) -> (n, t, c)."""
    ends = g.reach(t)
    axes = zip(x.shape[1:-1], tap, g.dilation, g.padding, ends, strict=True)
    shifts = [(low - k * d, k * d - low + end - s, 0) for s, k, d, (low, _), end in axes]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *shifts, (0, 0, 0)])    # from its first position to its last
    return x[(slice(None), *(slice(None, None, step) for step in g.stride))]


def put_back(dy: Array, tap: Tap, g: Geometry, s: Sequence[int]) -> Array:
    """S_kᵀ: (n, t, c) -> (n, s, c)."""
    ends = g.reach(dy.shape[1:-1])
    axes = zip(s, tap, g.dilation, g.padding, ends, g.stride, strict=True)
    shifts = [(k * d - low, s - end - (k * d - low), step - 1) for s, k, d, (low, _), end, step in axes]
    return lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *shifts, (0, 0, 0)])


def _split(a: Array, g: Geometry) -> Array:
    """The last axis by group."""
    return a.reshape(*a.shape[:-1], g.groups, -1)


def _merged(a: Array) -> Array:
    return a.reshape(*a.shape[:-2], -1)


def _widened(*operands: Array) -> tuple[Array, ...]:
    return tuple(x.astype(wide(x.dtype)) for x in operands)
