"""dx of a strided convolution as one dense convolution for each phase, instead of one over a dY full of zeros.

Axes as in `convolution_geometry`. Along one axis, with padding `low`, tap k at position i reads x at

    p = stride · i + dilation · k - low.

Write p = ρ + stride · q with phase 0 ≤ ρ < stride. The taps that reach phase ρ are those with dilation · k - low - ρ
a multiple v · stride, an arithmetic progression of k on which v is one as well; then i = q - v, and

    dx[ρ + stride · q] = Σ_v dY[q - v] W[k(v)]ᵀ

is a convolution of dY of stride 1 with a mirrored part of the kernel. The phases are then interleaved. Phases of few
channels are computed together, as channels of one convolution over the union of their v, some of whose taps are zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .convolution_cpu_native import mirrored
from .convolution_geometry import Geometry

Forward = Callable[[Array, Array, Geometry], Array]
TOGETHER = 32     # channels of all phases up to which one convolution computes them: products are that wide anyway


class Taps(NamedTuple):
    """Along one axis, the taps k = first, first + step, ... that reach a phase, and their v = v, v + spread, ..."""

    first: int
    step: int
    count: int
    v: int
    spread: int


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int], forward: Forward) -> Array:
    """dx[n *s c], by `forward`, a map of stride 1."""
    *k, c, _ = W.shape
    if math.prod(g.stride) == 1:
        return _phase(dY, W, g, s, (0,) * g.rank, forward)
    if g.groups == 1 and math.prod(g.stride) * c <= TOGETHER and set(g.dilation) == {1} and min(k) > 1:
        return _interleaved(_phases_together(dY, W, g, s, forward), g.stride, s)
    q = [-(-s // step) for s, step in zip(s, g.stride, strict=True)]
    phases = [_phase(dY, W, g, q, rho, forward) for rho in itertools.product(*map(range, g.stride))]
    return _interleaved(jnp.concatenate(phases, -1), g.stride, s)


def _phase(
    dY: Array, W: Array, g: Geometry, q: Sequence[int], rho: Sequence[int], forward: Forward
) -> Array:
    """dx[n *q c] at the positions ρ + stride · q."""
    axes = zip(W.shape[:-2], g.stride, g.dilation, g.padding, rho, strict=True)
    taps = [_taps(k, stride, dilation, low, rho) for k, stride, dilation, (low, _), rho in axes]
    if not all(tap.count for tap in taps):
        return jnp.zeros((dY.shape[0], *q, W.shape[-2] * g.groups), dY.dtype)
    part = W[tuple(slice(tap.first, None, tap.step) for tap in taps)]
    low = [tap.v + (tap.count - 1) * tap.spread for tap in taps]
    high = [q - t - tap.v for q, t, tap in zip(q, dY.shape[1:-1], taps, strict=True)]
    return _dense(dY, mirrored(part, g.groups), low, high, tuple(tap.spread for tap in taps), g.groups, forward)


def _phases_together(dY: Array, W: Array, g: Geometry, s: Sequence[int], forward: Forward) -> Array:
    """dx[n *q (*stride c)], all phases as channels. Taps are at k = low + ρ + stride · v."""
    *k, c, o = W.shape
    front = [-low % stride for stride, (low, _) in zip(g.stride, g.padding, strict=True)]
    back = [-(k + f) % stride for k, f, stride in zip(k, front, g.stride, strict=True)]
    W = jnp.pad(W, [*zip(front, back, strict=True), (0, 0), (0, 0)])
    v = [size // stride for size, stride in zip(W.shape, g.stride, strict=False)]
    split = [size for pair in zip(v, g.stride, strict=True) for size in pair]
    order = [*range(0, 2 * g.rank, 2), *range(1, 2 * g.rank, 2), 2 * g.rank, 2 * g.rank + 1]
    W = W.reshape(*split, c, o).transpose(order).reshape(*v, math.prod(g.stride) * c, o)
    first = [-(low + f) // stride for (low, _), f, stride in zip(g.padding, front, g.stride, strict=True)]
    low = [first + v - 1 for first, v in zip(first, v, strict=True)]
    axes = zip(s, g.stride, dY.shape[1:-1], first, strict=True)
    high = [-(-s // stride) - t - first for s, stride, t, first in axes]
    return _dense(dY, mirrored(W, 1), low, high, (1,) * g.rank, 1, forward)


def _dense(
    dY: Array, W: Array, low: Sequence[int], high: Sequence[int], dilation: tuple[int, ...], groups: int,
    forward: Forward,
) -> Array:
    """A convolution of stride 1 whose padding may be negative, which takes away."""
    padding = tuple(zip(low, high, strict=True))
    if min(*low, *high) < 0:
        dY = lax.pad(dY, jnp.zeros((), dY.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
        padding = ((0, 0),) * len(low)
    return forward(dY, W, Geometry((1,) * len(low), padding, dilation, groups))


def _taps(k: int, stride: int, dilation: int, low: int, rho: int) -> Taps:
    """Which of k taps reach phase ρ."""
    common = math.gcd(stride, dilation)
    step = stride // common
    first = next((tap for tap in range(min(step, k)) if (dilation * tap - low - rho) % stride == 0), k)
    return Taps(first, step, -(-(k - first) // step), (dilation * first - low - rho) // stride, dilation // common)


def _interleaved(phases: Array, stride: Sequence[int], s: Sequence[int]) -> Array:
    """dx[n *s c] from its phases [n *q (*stride c)]."""
    n, *q, channels = phases.shape
    rank, c = len(q), channels // math.prod(stride)
    order = [0, *(axis for a in range(rank) for axis in (1 + a, 1 + rank + a)), 1 + 2 * rank]
    whole = phases.reshape(n, *q, *stride, c).transpose(order)                # (n, q, stride, q, stride, ..., c)
    whole = whole.reshape(n, *(q * step for q, step in zip(q, stride, strict=True)), c)
    return whole[(slice(None), *map(slice, s))]
