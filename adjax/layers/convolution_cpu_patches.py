"""Convolutions as matrix products: of the input itself where the kernel is a point, else of patches, block by block.

Axes as in `convolution_geometry`. The patch of a position lists what the kernel sees there,

    P[n t (*k c)] = xp[n (stride · t + dilation · k) c],        y = P W,        dW = Pᵀ dY

and is K = Π k · c long. P is Π k times as large as x: dW is summed over blocks of rows, whose patches stay in cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from .convolution_cpu_shifted import padded, windows
from .convolution_geometry import Geometry

BLOCK = 2**20     # bytes of patches in a block: half a megabyte to two serve alike


def product(x: Array, W: Array) -> Array:
    """y[n *t o] where the kernel is a point: x[n *t c] W[*1 c o]."""
    return lax.dot_general(x, W.reshape(W.shape[-2:]), (((x.ndim - 1,), (0,)), ((), ())))


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c o], for one group."""
    c, t, o = x.shape[-1], dY.shape[1:-1], dY.shape[-1]
    xp, K = padded(x, g), math.prod(k) * c

    def block(row: Array | int, rows: int) -> Array:
        span, here = g.span(k)[0] + (rows - 1) * g.stride[0], (rows, *t[1:])
        X = lax.dynamic_slice_in_dim(xp, row * g.stride[0], span, 1) if rows < t[0] else xp
        D = lax.dynamic_slice_in_dim(dY, row, rows, 1) if rows < t[0] else dY
        taps = [shifted for _, shifted in windows(X, here, k, g)]
        return _summed(jnp.concatenate(taps, -1) if len(taps) > 1 else taps[0], D)

    width = dY.dtype.itemsize
    size = max(BLOCK, 2 * K * o * width)                  # a block is worth reading and writing its sums
    rows = max(1, min(t[0], size * o // (dY.size // t[0] * K * width)))
    left = t[0] % rows
    total = block(0, left or rows)
    starts = left or rows
    if t[0] > starts:
        blocks = starts + rows * jnp.arange((t[0] - starts) // rows)
        total, _ = lax.scan(lambda total, row: (total + block(row, rows), None), total, blocks)
    return (total if total.shape == (K, o) else total.T).reshape(*k, c, o)


def _summed(P: Array, dY: Array) -> Array:
    """PᵀdY[K o] or its transpose, whichever is quicker: the last axis should be the long one."""
    sums = tuple(range(dY.ndim - 1))
    a, b = (dY, P) if P.shape[-1] > 4 * dY.shape[-1] else (P, dY)
    return lax.dot_general(a, b, ((sums, sums), ((), ())))
