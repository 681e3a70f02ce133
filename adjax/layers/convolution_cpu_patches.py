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

from .convolution_cpu_windows import padded, windows
from .convolution_geometry import Geometry

BLOCK = 2**20     # bytes of patches in a block: half a megabyte to two serve alike


def product(x: Array, W: Array) -> Array:
    """y[n *t o] where the kernel is a point: x[n *t c] W[*1 c o]."""
    return lax.dot_general(x, W.reshape(W.shape[-2:]), (((x.ndim - 1,), (0,)), ((), ())))


def product_W(x: Array, dY: Array, k: Sequence[int]) -> Array:
    """dW[*1 c o] where the kernel is a point."""
    return _summed(x, dY).reshape(*k, x.shape[-1], dY.shape[-1])


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c o], for one group. Blocks are taken along rows and not examples: those may be spread over devices."""
    c, (t, *_, o), K = x.shape[-1], dY.shape[1:], math.prod(k) * x.shape[-1]
    row = dY.size // (t * o) * K * dY.dtype.itemsize                          # bytes of the patches of a row
    rows = min(t, max(1, BLOCK // row))
    xp, first = padded(x, g.padding), t % rows or rows

    def block(start: Array | int, rows: int) -> Array:
        X = lax.dynamic_slice_in_dim(xp, start * g.stride[0], g.span(k)[0] + (rows - 1) * g.stride[0], 1)
        D = lax.dynamic_slice_in_dim(dY, start, rows, 1)
        return _summed(jnp.concatenate([part for _, part in windows(X, D.shape[1:-1], k, g)], -1), D)

    total = block(0, first)
    if t > first:
        starts = jnp.arange(first, t, rows)
        total, _ = lax.scan(lambda total, start: (total + block(start, rows), None), total, starts)
    return total.reshape(*k, c, o)


def _summed(P: Array, dY: Array) -> Array:
    """dW[K o] = P[n *t K]ᵀ dY[n *t o]; the product is quickest if the last axis of its result is the long one."""
    sums = tuple(range(dY.ndim - 1))
    if P.shape[-1] > 4 * dY.shape[-1]:
        return lax.dot_general(dY, P, ((sums, sums), ((), ()))).T
    return lax.dot_general(P, dY, ((sums, sums), ((), ())))
