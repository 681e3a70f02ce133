"""What the formulations for CPU share: the windows of a kernel, and sums over rows in blocks that stay in cache.

Axes as in `convolution_geometry`; rows are positions along the first spatial axis. Blocks are taken along it and not
along the examples, which may be spread over devices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .convolution_geometry import Geometry

Block = Callable[[Array, Array], Any]


def padded(x: Array, padding: Sequence[tuple[int, int]]) -> Array:
    """x[n *s c] with zeros around it along the spatial axes."""
    return jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x


def windows(xp: Array, t: Sequence[int], k: Sequence[int], g: Geometry) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each tap what it reads of a padded input at t positions: xp[n (stride · t + dilation · tap) c]."""
    ends = g.reach(t)
    for tap in itertools.product(*map(range, k)):
        starts = [index * dilation for index, dilation in zip(tap, g.dilation, strict=True)]
        limits = [start + end for start, end in zip(starts, ends, strict=True)]
        yield tap, lax.slice(xp, (0, *starts, 0), (xp.shape[0], *limits, xp.shape[-1]), (1, *g.stride, 1))


def sum_over_rows(
    block: Block, reduced: Callable[[Any], Array], x: Array, dY: Array, g: Geometry, span: int, rows: int
) -> Array:
    """Σ reduced(block(what some rows of dY read of x, these rows)), `rows` of them at a time.

    The rows that read padding along the first axis, those before `first` and from `last` on, are a block each, so that
    x need not be padded along it. Along the other axes a block is padded by itself.
    """
    (low, _), stride, s, t = g.padding[0], g.stride[0], x.shape[1], dY.shape[1]
    first = min(t, -(-low // stride))
    last = max(first, min(t, (s + low - span) // stride + 1))
    around = ((0, 0), *g.padding[1:])

    def edge(start: int, end: int) -> Any:
        begin, finish = start * stride - low, (end - 1) * stride - low + span
        part = padded(x[:, max(begin, 0) : max(finish, 0)], ((max(-begin, 0), max(finish - s, 0)), *g.padding[1:]))
        return block(part[:, : finish - begin], dY[:, start:end])

    def inside(start: Array | int, count: int) -> Any:
        part = lax.dynamic_slice_in_dim(x, start * stride - low, span + (count - 1) * stride, 1)
        return block(padded(part, around), lax.dynamic_slice_in_dim(dY, start, count, 1))

    parts = [reduced(edge(start, end)) for start, end in ((0, first), (last, t)) if start < end]
    rows = min(rows, last - first)
    left = (last - first) % rows if rows else 0
    if left:
        parts.append(reduced(inside(first, left)))
    if rows:
        total = inside(first + left, rows)
        more = jnp.arange(first + left + rows, last, rows)
        if more.size:
            total, _ = lax.scan(lambda sums, row: (jax.tree.map(jnp.add, sums, inside(row, rows)), None), total, more)
        parts.append(reduced(total))
    return sum(parts[1:], parts[0])
