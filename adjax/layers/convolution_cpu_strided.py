"""dx of a strided convolution, all phases at once, instead of a convolution of a dY full of zeros.

Axes as in `convolution_geometry`, dilation one. Along one axis, with padding `low`, tap k at position i reads x at

    p = stride · i + k - low.

Write p = ρ + stride · q with phase 0 ≤ ρ < stride, and likewise k - low = ρ + stride · v. Then i = q - v, and

    dx[ρ + stride · q] = Σ_v dY[q - v] W[low + ρ + stride · v]ᵀ

is a convolution of stride one of dY, whose results are the phases of dx. Taps beyond the kernel are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from . import convolution_cpu_native as native
from .convolution_cpu_windows import padded
from .convolution_geometry import Geometry
from .convolution_native import mirrored
from .window import Pairs


class Phases(NamedTuple):
    """A kernel W[*v *stride c o] by phase, and what dY is padded by (low, high), negative to take away."""

    W: Array
    padding: Pairs


def by_phase(W: Array, g: Geometry, s: Sequence[int], t: Sequence[int]) -> Phases:
    """The taps of each phase, and the padding with which q = ⌈s / stride⌉ positions of dx have all their dY."""
    *k, c, o = W.shape
    axes = list(zip(k, g.stride, g.padding, s, t, strict=True))
    around = [(-low % stride, (low - k) % stride) for k, stride, (low, _), _, _ in axes]
    W = jnp.pad(W, [*around, (0, 0), (0, 0)])
    v = [size // stride for size, stride in zip(W.shape, g.stride, strict=False)]
    split = [size for pair in zip(v, g.stride, strict=True) for size in pair]
    order = [*range(0, 2 * g.rank, 2), *range(1, 2 * g.rank, 2), 2 * g.rank, 2 * g.rank + 1]
    least = [-((low + front) // stride) for (_, stride, (low, _), _, _), (front, _) in zip(axes, around, strict=True)]
    padding = tuple(
        (first + v - 1, -(-s // stride) - t - first)
        for (_, stride, _, s, t), first, v in zip(axes, least, v, strict=True)
    )
    return Phases(W.reshape(*split, c, o).transpose(order), padding)


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c], for one group: the phases are the channels of one dense convolution, and interleaved at last."""
    n, rank, (c, o) = dY.shape[0], g.rank, W.shape[-2:]
    W, padding = by_phase(W, g, s, dY.shape[1:-1])
    W = W.reshape(*W.shape[:rank], math.prod(g.stride) * c, o)
    dense = Geometry((1,) * rank, ((0, 0),) * rank, (1,) * rank, 1)
    phases = native.forward(padded(dY, padding), mirrored(W, 1), dense)        # (n, *q, *stride c)
    q = phases.shape[1:-1]
    order = [0, *(axis for a in range(rank) for axis in (1 + a, 1 + rank + a)), 1 + 2 * rank]
    return merged(phases.reshape(n, *q, *g.stride, c).transpose(order), s)


def merged(phases: Array, s: Sequence[int]) -> Array:
    """dx[n *s c] from its phases [n q stride q stride ... c]."""
    n, *split, c = phases.shape
    whole = [q * stride for q, stride in zip(split[::2], split[1::2], strict=True)]
    return phases.reshape(n, *whole, c)[(slice(None), *map(slice, s))]
