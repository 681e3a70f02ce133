"""Convolutions of few channels a group, depthwise ones above all: sums of shifted copies, multiplied entry by entry.

Axes as in `convolution_geometry`; a group has i = c/g channels in and u = o/g out. No matrix product is wide enough to
pay here, so that every tap k and every channel i gives one term of a sum that XLA fuses into a single loop,

    y[n t g u] = Σ_k Σ_i xp[n (stride · t + dilation · k) g i] W[k i g u]

vectorized over channels. dW, a sum over examples and positions, is accumulated over blocks of rows, entry by entry as
well, and only the block of sums is reduced in the end:

    A_k[n r g i u] += xp[n (stride · t + dilation · k) g i] dY[n t g u] for the rows r of each block,  dW[k] = Σ_nr A_k
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax import Array, lax

from .convolution_geometry import Geometry

BLOCK = 2**14     # entries of dY a block of rows has at least: a step of a loop costs as much as a few thousand


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    n, k, (i, o) = x.shape[0], W.shape[:-2], W.shape[-2:]
    t, xp, G = g.out(x.shape[1:-1], k), padded(x, g), g.groups
    W = W.reshape(*k, i, G, o // G)
    total = None
    for tap, shifted in windows(xp, t, k, g):
        shifted = shifted.reshape(n, *t, G, i)
        for channel in range(i):
            term = shifted[..., channel, None] * W[(*tap, channel)]           # (n, t, g, 1)(g, u) -> (n, t, g, u)
            total = term if total is None else total + term
    assert total is not None
    return total.reshape(n, *t, o)


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c/g o]."""
    n, t, o, G = dY.shape[0], dY.shape[1:-1], dY.shape[-1], g.groups
    i, xp = x.shape[-1] // G, padded(x, g)

    def block(row: Array | int, rows: int) -> list[Array]:
        """The terms of some rows, for each tap: (n, r, g, i, 1)(n, r, g, 1, u) -> (n, r, g, i, u)."""
        span, here = g.span(k)[0] + (rows - 1) * g.stride[0], (rows, *t[1:])
        X = lax.dynamic_slice_in_dim(xp, row * g.stride[0], span, 1)
        D = lax.dynamic_slice_in_dim(dY, row, rows, 1).reshape(n, *here, G, 1, o // G)
        return [shifted.reshape(n, *here, G, i, 1) * D for _, shifted in windows(X, here, k, g)]

    rows = min(t[0], -(-BLOCK * t[0] // dY.size))
    total = block(0, rows)
    if t[0] >= 2 * rows:
        add = lambda total, row: ([a + b for a, b in zip(total, block(row, rows), strict=True)], None)
        total, _ = lax.scan(add, total, jnp.arange(1, t[0] // rows) * rows)
    summed = [a.sum(range(1 + g.rank)) for a in total]                        # (n, r, g, i, u) -> (g, i, u)
    if t[0] % rows:
        rest = block(t[0] - t[0] % rows, t[0] % rows)
        summed = [a + b.sum(range(1 + g.rank)) for a, b in zip(summed, rest, strict=True)]
    return jnp.stack(summed).transpose(0, 2, 1, 3).reshape(*k, i, o)          # (k, g, i, u) -> (*k, i, o)


def padded(x: Array, g: Geometry) -> Array:
    """x with its padding."""
    return jnp.pad(x, ((0, 0), *g.padding, (0, 0))) if any(map(any, g.padding)) else x


def windows(xp: Array, t: Sequence[int], k: Sequence[int], g: Geometry) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each tap what it reads at the positions t of a padded input: xp[n (stride · t + dilation · tap) c]."""
    ends = g.reach(t)
    for tap in itertools.product(*map(range, k)):
        starts = [k * d for k, d in zip(tap, g.dilation, strict=True)]
        limits = [start + end for start, end in zip(starts, ends, strict=True)]
        yield tap, lax.slice(
            xp, (0, *starts, 0), (xp.shape[0], *limits, xp.shape[-1]), (1, *g.stride, 1)
        )


def terms(k: Sequence[int], channels: int) -> int:
    """How many terms the sum of an output has."""
    return math.prod(k) * channels
