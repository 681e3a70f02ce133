"""Convolutions of few channels a group, depthwise ones above all: sums of shifted copies, multiplied entry by entry.

Axes as in `convolution_geometry`; a group has i = c/g channels in and u = o/g out. No matrix product is wide enough to
pay here, so that every tap k and every channel i gives one term of a sum that XLA fuses into a single loop,

    y[n t g u] = Σ_k Σ_i xp[n (stride · t + dilation · k) g i] W[k i g u]

vectorized over channels. dW is a sum over examples and positions. A sixteenth or so of it is written out in the same
way, over rows r that are `rows` apart, entry by entry; the rest is a product with a row of ones,

    A_k[n r g i u] = Σ_q xp[n (stride · (rows · r + q) + dilation · k) g i] dY[n (rows · r + q) g u],  dW[k] = 1ᵀ A_k
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from .convolution_cpu_strided import by_phase, merged
from .convolution_cpu_windows import adjoint_padding, padded, windows
from .convolution_geometry import Geometry
from .convolution_native import mirrored

TERMS = 128       # terms written out in the sums for dW: more make the program longer, and no quicker
MANY_TAPS = 16    # taps from which A_k, of all of them, would be many times dY


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    t = g.out(x.shape[1:-1], W.shape[:-2])
    return _swept(windows(padded(x, g.padding), t, W.shape[:-2], g), W, g.groups)


def _swept(parts: Iterable[tuple[tuple[int, ...], Array]], W: Array, G: int) -> Array:
    """Σ part[n *t c] W[tap c/g o] over the taps and their parts."""
    *k, i, o = W.shape
    W = W.reshape(*k, i, G, o // G)
    terms = [
        part.reshape(*part.shape[:-1], G, i)[..., channel, None] * W[(*tap, channel)]
        for tap, part in parts
        for channel in range(i)
    ]                                                                         # (n, t, g, 1)(g, u) -> (n, t, g, u)
    total = sum(terms[1:], terms[0])
    return total.reshape(*total.shape[:-2], o)


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c], for dilation one unless the stride is one: the sums of all phases in one loop, in dx's own order."""
    n, k, (i, o), G = dY.shape[0], W.shape[:-2], W.shape[-2:], g.groups
    if max(g.stride) == 1:
        back = lax.optimization_barrier(mirrored(W, G))                       # else mirrored again for every entry
        return _swept(windows(padded(dY, adjoint_padding(s, dY.shape[1:-1], k, g)), s, k, g), back, G)
    W, padding = by_phase(W, g, s, dY.shape[1:-1])
    v, q = W.shape[: g.rank], [-(-s // stride) for s, stride in zip(s, g.stride, strict=True)]
    apart = [size for stride in g.stride for size in (stride, 1)][:-1]        # the axes of W between those of dx
    W = lax.rev(W, range(g.rank)).reshape(*v, *apart, i, G, o // G).swapaxes(-3, -2)
    W, across = lax.optimization_barrier(W), [size for q in q for size in (q, 1)]
    terms = [
        part.reshape(n, *across, G, 1, o // G)[..., channel] * W[(*tap, ..., channel)]
        for tap, part in windows(padded(dY, padding), q, v, replace(g, stride=(1,) * g.rank))
        for channel in range(o // G)
    ]                                                           # (n, q, 1, ..., g, 1)(stride, 1, ..., g, i)
    total = sum(terms[1:], terms[0])
    return merged(total.reshape(*total.shape[:-2], G * i), s)


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c/g o]. With stride one it is dY that is padded, as it is for dx, and the taps come last first."""
    G, s, t = g.groups, x.shape[1:-1], dY.shape[1:-1]
    i, u = x.shape[-1] // G, dY.shape[-1] // G
    if max(g.stride) == 1:
        sums = _sums(padded(dY, adjoint_padding(s, t, k, g)), (1, u), x, (i, 1), g, k)[::-1]
    else:
        sums = _sums(padded(x, g.padding), (i, 1), dY, (1, u), g, k)
    stacked = jnp.stack(sums).reshape(-1, G, i, u)
    return stacked.transpose(0, 2, 1, 3).reshape(*k, i, G * u)                # (k, g, i, u) -> (*k, i, o)


def _sums(
    A: Array, a: tuple[int, int], B: Array, b: tuple[int, int], g: Geometry, k: Sequence[int]
) -> list[Array]:
    """For each tap Σ A[n (stride · t + dilation · k) g *a] B[n t g *b], of g · i · u entries."""
    n, t, G = B.shape[0], B.shape[1:-1], g.groups
    if k[0] > 1 and math.prod(k) > MANY_TAPS:                                 # one row of taps after the other
        reach = g.reach(t)[0]
        row = lambda tap: _sums(
            lax.dynamic_slice_in_dim(A, tap * g.dilation[0], reach, 1), a, B, b, g, (1, *k[1:])
        )
        return [sums[tap] for tap, sums in itertools.product(range(k[0]), lax.map(row, jnp.arange(k[0])))]
    rows = min(t[0], max(1, TERMS // math.prod(k)))
    left = t[0] % rows
    blocks = [(0, t[0] - left, rows), (t[0] - left, t[0], left)][: 2 if left else 1]

    def some(part: Array, start: int, end: int, rows: int) -> Array:
        """Those of a tap, over the rows from start to end."""
        terms = [
            part[:, row:end:rows].reshape(n, -1, *t[1:], G, *a) * B[:, row:end:rows].reshape(n, -1, *t[1:], G, *b)
            for row in range(start, start + rows)
        ]
        total = sum(terms[1:], terms[0])
        total = total.reshape(-1, math.prod(total.shape[-3:]))
        return (jnp.ones((1, total.shape[0]), total.dtype) @ total)[0]        # (1, n r)(n r, g i u)

    def of(part: Array) -> Array:
        parts = [some(part, *block) for block in blocks]
        return sum(parts[1:], parts[0])

    return [of(part) for _, part in windows(A, t, k, g)]
