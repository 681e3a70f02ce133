"""The three maps of a convolution where XLA runs on a CPU: the same numbers, each by whichever formulation is quick.

Axes and contracts as in `convolution_geometry`. XLA:CPU multiplies dense images well and does little else well: a
gradient of weights, groups, a third spatial axis, a stride in the adjoint run ten to a thousand times below its speed.
The maps are therefore brought into a form that it does well, by what the shapes say:

    a kernel of size one along an axis         the axis is subsampled, and its stride and padding are gone
    many groups of few channels                sums of shifted copies                     convolution_cpu_shifted
    other groups                               a dense convolution each, in a loop
    three spatial axes                         one over two for each plane of the result  convolution_cpu_planes
    a point as a kernel, gradients of weights  matrix products                            convolution_cpu_patches
    a stride, in dx                            a dense convolution for each phase         convolution_cpu_strided
    the rest                                   XLA's convolution                          convolution_cpu_native

Half precision is widened first: every sum is one of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from ..adjoint import wide
from . import convolution_cpu_native as native
from . import convolution_cpu_patches as patches
from . import convolution_cpu_planes as planes
from . import convolution_cpu_shifted as shifted
from . import convolution_cpu_strided as strided
from .convolution_geometry import Geometry

FEW = 8           # channels a group up to which shifted copies beat a convolution for each group
MANY_TERMS = 256  # terms of one sum up to which it is written out
MANY_TAPS = 64    # taps up to which patches are listed
LONG = 128        # entries of a patch from which products of patches beat a convolution
NARROW = 32       # channels up to which a product takes as long as if it had one


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o] = Σ_k xp[n (stride · t + dilation · k) c] W[*k c/g o]."""
    x, W = _widened(x, W)
    *k, c, _ = W.shape
    x, g = _subsampled(x, g, k), _without(g, k)
    if g.groups == 1:
        return _forward(x, W, g)
    if c <= FEW and math.prod(k) * c <= MANY_TERMS:
        return shifted.forward(x, W, g)
    return _each_group(lambda x, W: _forward(x, W, replace(g, groups=1)), g, x, W)


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c] = Σ over stride · i + dilation · k = low + s of dY[n i o] W[k]ᵀ."""
    dY, W = _widened(dY, W)
    k, o = W.shape[:-2], W.shape[-1] // g.groups
    inner, kept = _without(g, k), _kept(g, k, s)
    if g.groups == 1:
        dx = _adjoint_x(dY, W, inner, kept)
    elif o <= FEW and math.prod(k) * o <= MANY_TERMS and not _both(inner):
        dx = shifted.adjoint_x(dY, W, inner, kept)
    else:
        dx = _each_group(lambda dY, W: _adjoint_x(dY, W, replace(inner, groups=1), kept), g, dY, W)
    return _put_back(dx, g, k, s)


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c/g o] = Σ_nt xp[n (stride · t + dilation · k) c]ᵀ dY[n t o]."""
    x, dY = _widened(x, dY)
    x, g = _subsampled(x, g, k), _without(g, k)
    if g.groups == 1:
        return _adjoint_W(x, dY, g, k)
    c, o = x.shape[-1] // g.groups, dY.shape[-1] // g.groups
    if c == 1 and o <= 2 and math.prod(k) <= MANY_TERMS:
        return shifted.adjoint_W(x, dY, g, k)
    return _each_group(lambda x, dY: _adjoint_W(x, dY, replace(g, groups=1), k), g, x, dY)


def _each_group(f: Callable[[Array, Array], Array], g: Geometry, a: Array, b: Array) -> Array:
    """f of each group of two operands, whose last axes hold the groups; one after the other, as one program."""

    def one(group: Array) -> Array:
        return f(*(
            lax.dynamic_slice_in_dim(x, group * (x.shape[-1] // g.groups), x.shape[-1] // g.groups, x.ndim - 1)
            for x in (a, b)
        ))

    results = jnp.moveaxis(lax.map(one, jnp.arange(g.groups)), 0, -2)         # (..., g, channels)
    return results.reshape(*results.shape[:-2], -1)


def _forward(x: Array, W: Array, g: Geometry) -> Array:
    """The forward map of one group."""
    if math.prod(W.shape[:-2]) == 1:
        return patches.product(x, W)
    if g.rank == 3:
        return planes.forward(_forward, x, W, g)
    return native.forward(x, W, g)


def _adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx of one group."""
    if math.prod(W.shape[:-2]) == 1:
        return patches.product(dY, W.swapaxes(-1, -2))
    if g.rank == 3:
        return planes.adjoint_x(_adjoint_x, dY, W, g, s)
    many = all(k > 2 * stride for k, stride in zip(W.shape, g.stride, strict=False))     # taps in each phase
    narrow = math.prod(g.stride) * W.shape[-2] <= NARROW
    if g.rank == 2 and max(g.stride) > 1 and many and narrow and not _both(g):
        return strided.adjoint_x(dY, W, g, s)
    return native.adjoint_x(dY, W, g, s)


def _adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW of one group."""
    if math.prod(k) == 1:
        return patches.product_W(x, dY, k)
    if g.rank == 3:
        return planes.adjoint_W(_adjoint_W, x, dY, g, k)
    if max(g.stride) > 1 and math.prod(k) <= MANY_TAPS and math.prod(k) * x.shape[-1] >= LONG:
        return patches.adjoint_W(x, dY, g, k)
    return native.adjoint_W(x, dY, g, k)


def _widened(*operands: Array) -> tuple[Array, ...]:
    return tuple(x.astype(wide(x.dtype)) for x in operands)


def _both(g: Geometry) -> bool:
    """Whether there are strides and dilations, for which nothing is written by phase."""
    return max(g.stride) > 1 and max(g.dilation) > 1


# A kernel of size one along an axis reads every stride-th entry of xp and nothing else.


def _without(g: Geometry, k: Sequence[int]) -> Geometry:
    """The geometry after the axes on which the kernel has size one are subsampled."""
    stride = tuple(stride if k > 1 else 1 for k, stride in zip(k, g.stride, strict=True))
    dilation = tuple(dilation if k > 1 else 1 for k, dilation in zip(k, g.dilation, strict=True))
    padding = tuple(pair if k > 1 else (0, 0) for k, pair in zip(k, g.padding, strict=True))
    return Geometry(stride, padding, dilation, g.groups)


def _kept(g: Geometry, k: Sequence[int], s: Sequence[int]) -> tuple[int, ...]:
    """s once subsampled."""
    return tuple(s if k > 1 else t for k, s, t in zip(k, s, g.out(s, k), strict=True))


def _pads(g: Geometry, k: Sequence[int], s: Sequence[int]) -> list[tuple[int, int, int]]:
    """`lax.pad`'s (low, high, interior) that put entry i of a subsampled axis at stride · i - low of s."""
    axes = zip(k, s, g.reach(g.out(s, k)), g.stride, g.padding, strict=True)
    inner = [
        (-low, s - reach + low, stride - 1) if k == 1 else (0, 0, 0) for k, s, reach, stride, (low, _) in axes
    ]
    return [(0, 0, 0), *inner, (0, 0, 0)]


def _put_back(dx: Array, g: Geometry, k: Sequence[int], s: Sequence[int]) -> Array:
    """dx[n *s c] from what was subsampled."""
    pads = _pads(g, k, s)
    return lax.pad(dx, jnp.zeros((), dx.dtype), pads) if any(map(any, pads)) else dx


def _subsampled(x: Array, g: Geometry, k: Sequence[int]) -> Array:
    """x at every stride-th entry along the axes on which the kernel has size one: the adjoint of `_put_back`."""
    s = x.shape[1:-1]
    padding = [pair if k == 1 else (0, 0) for k, pair in zip(k, g.padding, strict=True)]
    if any(map(any, padding)):
        x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    steps = [
        slice(None, reach, stride) if k == 1 else slice(None)
        for k, reach, stride in zip(k, g.reach(g.out(s, k)), g.stride, strict=True)
    ]
    return x[(slice(None), *steps)]
