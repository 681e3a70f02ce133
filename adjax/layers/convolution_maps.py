"""The three maps of a convolution, each by the formulation that suits the platform; laid out over meshes.

Axes as in `convolution_geometry`. On CPU `convolution_cpu` brings them into forms that XLA does well there; elsewhere
they are the platform's own convolution, `convolution_native`. `convolution_definition` says what all of them compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ..adjoint import layout_of, partitioned, wide
from . import convolution_cpu as cpu
from . import convolution_native as native
from .convolution_geometry import Geometry


def forward(x: Array, W: Array, g: Geometry, like: Any = None) -> Array:
    """y[n *t o] = Σ_k S_k x W_k; with `like`, laid out as that primal."""
    shape = (x.shape[0], *g.out(x.shape[1:-1], W.shape[:-2]), W.shape[-1])
    axes = (layout_of(x)[0], *[None] * g.rank, layout_of(W)[-1]) if like is None else layout_of(like)
    return _chosen(partial(cpu.forward, g=g), partial(native.forward, g=g), shape, axes, x, W)


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int], like: Any = None) -> Array:
    """dx[n *s c] = Σ_k S_kᵀ dY W_kᵀ; with `like`, laid out as that primal."""
    shape = (dY.shape[0], *s, W.shape[-2] * g.groups)
    channels = layout_of(W)[-2] if g.groups == 1 else None
    axes = (layout_of(dY)[0], *[None] * g.rank, channels) if like is None else layout_of(like)
    return _chosen(partial(cpu.adjoint_x, g=g, s=s), partial(native.adjoint_x, g=g, s=s), shape, axes, dY, W)


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int], like: Any) -> Array:
    """dW[*k c/g o], dW_k = (S_k x)ᵀ dY; laid out as the primal `like`."""
    shape = (*k, x.shape[-1] // g.groups, dY.shape[-1])
    on_cpu, own = partial(cpu.adjoint_W, g=g, k=k), partial(native.adjoint_W, g=g, k=k)
    return _chosen(on_cpu, own, shape, layout_of(like), x, dY)


def _chosen(
    on_cpu: Callable[..., Array], own: Callable[..., Array], shape: Sequence[int], axes: Any, *operands: Array
) -> Array:
    """The map in the formulation of the platform, in the accumulator's dtype; zeros where an array is empty."""
    dtype = jnp.result_type(*operands)
    operands = tuple(x.astype(dtype) for x in operands)
    if 0 in shape or any(0 in x.shape for x in operands):
        return partitioned(lambda *_: jnp.zeros(shape, wide(dtype)), *operands, axes=axes)
    return partitioned(lambda *v: lax.platform_dependent(*v, cpu=on_cpu, default=own), *operands, axes=axes)
