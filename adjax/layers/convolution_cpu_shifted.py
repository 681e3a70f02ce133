"""Convolutions of few channels a group, depthwise ones above all: sums of shifted copies, multiplied entry by entry.

Axes as in `convolution_geometry`; a group has i = c/g channels in and u = o/g out. No matrix product is wide enough to
pay here, so that every tap k and every channel i gives one term of a sum that XLA fuses into a single loop,

    y[n t g u] = Σ_k Σ_i xp[n (stride · t + dilation · k) g i] W[k i g u]

vectorized over channels. dW, a sum over examples and positions, is accumulated over blocks of rows, entry by entry as
well, and only the block of sums is reduced in the end:

    A_k[n r g i u] += xp[n (stride · t + dilation · k) g i] dY[n t g u] for the rows r of each block,  dW[k] = Σ_nr A_k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from .convolution_cpu_native import mirrored
from .convolution_cpu_rows import padded, sum_over_rows, windows
from .convolution_cpu_strided import by_phase, merged, resized
from .convolution_geometry import Geometry

BLOCK = 2**14     # entries of dY a block of rows has at least: a step of a loop costs as much as a few thousand


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    n, k, (i, o), G = x.shape[0], W.shape[:-2], W.shape[-2:], g.groups
    t, W = g.out(x.shape[1:-1], k), W.reshape(*k, i, G, o // G)
    terms = [
        part.reshape(n, *t, G, i)[..., channel, None] * W[(*tap, channel)]    # (n, t, g, 1)(g, u) -> (n, t, g, u)
        for tap, part in windows(padded(x, g.padding), t, k, g)
        for channel in range(i)
    ]
    return sum(terms[1:], terms[0]).reshape(n, *t, o)


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c], for dilation one unless the stride is one: the sums of all phases in one loop, in dx's own order."""
    n, (i, o), G = dY.shape[0], W.shape[-2:], g.groups
    if max(g.stride) == 1:
        t, span = dY.shape[1:-1], g.span(W.shape[:-2])
        axes = zip(s, t, span, g.padding, strict=True)
        padding = [(span - 1 - low, s - t + low) for s, t, span, (low, _) in axes]
        return forward(resized(dY, padding), mirrored(W, G), replace(g, padding=((0, 0),) * g.rank))
    W, padding = by_phase(W, g, s, dY.shape[1:-1])
    v, q = W.shape[: g.rank], [-(-s // stride) for s, stride in zip(s, g.stride, strict=True)]
    apart = [size for stride in g.stride for size in (stride, 1)][:-1]        # the axes of W between those of dx
    W = lax.rev(W, range(g.rank)).reshape(*v, *apart, i, G, o // G).swapaxes(-3, -2)
    across = [size for q in q for size in (q, 1)]
    terms = [
        part.reshape(n, *across, G, 1, o // G)[..., channel] * W[(*tap, ..., channel)]
        for tap, part in windows(resized(dY, padding), q, v, Geometry((1,) * g.rank, (), (1,) * g.rank, G))
        for channel in range(o // G)
    ]                                                           # (n, q, 1, ..., g, 1)(stride, 1, ..., g, i)
    total = sum(terms[1:], terms[0])
    return merged(total.reshape(*total.shape[:-2], G * i), s)


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c/g o]."""
    (n, *t, o), G = dY.shape, g.groups
    i, u = x.shape[-1] // G, o // G

    def block(X: Array, D: Array) -> list[Array]:
        """For each tap the products of some rows: (n, r, g, i, 1)(n, r, g, 1, u) -> (n, r, g, i, u)."""
        here = D.shape[1:-1]
        D = D.reshape(n, *here, G, 1, u)
        return [part.reshape(n, *here, G, i, 1) * D for _, part in windows(X, here, k, g)]

    def reduced(products: list[Array]) -> Array:
        return jnp.stack([product.sum(range(1 + g.rank)) for product in products])

    rows = -(-BLOCK * t[0] // dY.size)
    sums = sum_over_rows(block, reduced, x, dY, g, g.span(k)[0], rows)        # (k, g, i, u)
    return sums.transpose(0, 2, 1, 3).reshape(*k, i, o)
