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

from .convolution_cpu_rows import sum_over_rows, windows
from .convolution_geometry import Geometry

BLOCK = 2**20     # bytes of patches in a block: half a megabyte to two serve alike


def product(x: Array, W: Array) -> Array:
    """y[n *t o] where the kernel is a point: x[n *t c] W[*1 c o]."""
    return lax.dot_general(x, W.reshape(W.shape[-2:]), (((x.ndim - 1,), (0,)), ((), ())))


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c o], for one group."""
    c, t, o = x.shape[-1], dY.shape[1:-1], dY.shape[-1]
    K = math.prod(k) * c
    if math.prod(k) == 1:
        return _summed(x, dY).reshape(*k, c, o)

    def block(X: Array, D: Array) -> Array:
        return _summed(jnp.concatenate([part for _, part in windows(X, D.shape[1:-1], k, g)], -1), D)

    row = dY.size // (t[0] * o) * K * dY.dtype.itemsize                       # bytes of the patches of a row
    return sum_over_rows(block, lambda sums: sums, x, dY, g, g.span(k)[0], max(1, BLOCK // row)).reshape(*k, c, o)


def _summed(P: Array, dY: Array) -> Array:
    """dW[K o] = P[n *t K]ᵀ dY[n *t o]; the product is quickest if the last axis of its result is the long one."""
    sums = tuple(range(dY.ndim - 1))
    if P.shape[-1] > 4 * dY.shape[-1]:
        return lax.dot_general(dY, P, ((sums, sums), ((), ()))).T
    return lax.dot_general(P, dY, ((sums, sums), ((), ())))
