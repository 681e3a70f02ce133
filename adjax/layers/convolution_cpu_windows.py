"""What the formulations for CPU share: padding, and what a kernel sees. Axes as in `convolution_geometry`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax import Array, lax

from .convolution_geometry import Geometry
from .window import Pairs


def padded(x: Array, padding: Sequence[tuple[int, int]]) -> Array:
    """x[n *s c] with zeros around it along the spatial axes, or less of it where the padding is negative."""
    if not any(map(any, padding)):
        return x
    config = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def adjoint_padding(s: Sequence[int], t: Sequence[int], k: Sequence[int], g: Geometry) -> Pairs:
    """The padding of dY with which a kernel of stride one moved over it ends once on each entry of x."""
    axes = zip(s, t, g.span(k), g.padding, strict=True)
    return tuple((span - 1 - low, s - t + low) for s, t, span, (low, _) in axes)


def windows(xp: Array, t: Sequence[int], k: Sequence[int], g: Geometry) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each tap what it reads of a padded input at t positions: xp[n (stride · t + dilation · tap) c]."""
    ends = g.reach(t)
    for tap in itertools.product(*map(range, k)):
        starts = [index * dilation for index, dilation in zip(tap, g.dilation, strict=True)]
        limits = [start + end for start, end in zip(starts, ends, strict=True)]
        yield tap, lax.slice(xp, (0, *starts, 0), (xp.shape[0], *limits, xp.shape[-1]), (1, *g.stride, 1))
