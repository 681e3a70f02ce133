"""Windows of a pooling layer: which element of the input each of them holds.

Axes: n any leading axes, s spatial sizes in, t windows along each axis, k positions in a window, c channels. Along one
axis, position k of window t is the element

    s = stride · t + k - low

so that the element s lies at position k of window t for every t with 0 ≤ s + low - stride · t = k < window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array, lax

from .checks import check_array
from .window import Pairs, pairs, per_axis, positions, same

FEW = 4         # views, of the size of the array they look at, that each look for its border; more share a padded copy


@dataclass(frozen=True)
class Windows:
    """Resolved options of a pooling layer, one entry a spatial axis."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.window)

    @property
    def size(self) -> int:
        """The number of positions in a window."""
        return math.prod(self.window)

    def first(self, ndim: int) -> int:
        """The first spatial axis of an array: the spatial axes are followed by the channels."""
        return ndim - 1 - self.rank

    def out(self, s: tuple[int, ...]) -> tuple[int, ...]:
        """t, the number of windows along each axis."""
        return positions(s, self.window, self.stride, self.padding)

    def over(self, ndim: int) -> dict[str, Any]:
        """The options of `lax.reduce_window` for an array of so many axes."""
        around = lambda entries, other: (other,) * self.first(ndim) + entries + (other,)
        return {
            "window_dimensions": around(self.window, 1),
            "window_strides": around(self.stride, 1),
            "padding": around(self.padding, (0, 0)),
        }

    def inside(self, s: tuple[int, ...]) -> np.ndarray:
        """How many elements of the input each window holds: `[*t]`."""
        counts = np.ones((), int)
        for a, t in enumerate(self.out(s)):
            begin = self.stride[a] * np.arange(t) - self.padding[a][0]
            held = np.minimum(begin + self.window[a], s[a]) - np.maximum(begin, 0)
            counts = np.multiply.outer(counts, np.maximum(held, 0))
        return counts

    def views(self, x: Array, padded_with: Any) -> Iterator[Array]:
        """For each position k, in row-major order, the elements there of all windows: `[n *t c]`."""
        first = self.first(x.ndim)
        t = self.out(x.shape[first:-1])
        for k in np.ndindex(*self.window):
            starts = [i - low for i, (low, _) in zip(k, self.padding, strict=True)]
            yield _strided(x, first, starts, t, self.stride, padded_with)

    def within(self, x: Array, padded_with: Any) -> tuple[Windows, Array]:
        """The same windows without padding, over a padded copy of x: for views that are used more than once each.

        A view that looks for the border is compiled once for every use.
        """
        first = self.first(x.ndim)
        s, t = x.shape[first:-1], self.out(x.shape[first:-1])
        axes = zip(s, t, self.window, self.stride, self.padding, strict=True)
        margins = [(low, max(0, (m - 1) * step + k - low - size)) for size, m, k, step, (low, _) in axes]
        x, = _bordered([(x, padded_with)], first, margins)
        return Windows(self.window, self.stride, ((0, 0),) * self.rank), x

    def offsets(self) -> list[range]:
        """Along each axis, by how much the number t of a window that holds element s may differ from ⌊s / stride⌋."""
        axes = zip(self.window, self.stride, self.padding, strict=True)
        return [range(-((k - 1 - low) // step), (step - 1 + low) // step + 1) for k, step, (low, _) in axes]

    def around(self, s: tuple[int, ...], *arrays: tuple[Array, Any]) -> Iterator[tuple[np.ndarray, list[Array]]]:
        """For every element the windows that hold it, one offset at a time.

        An element is s = stride · q + r, and its windows are t = q + m, one for each offset m.

        Args:
            s: the spatial sizes.
            arrays: pairs of an array `[n *t c]` and what it holds where there is no window.

        Yields:
            the position k of the element in that window, counted in row-major order, for each r, `[(1 r)* 1]` behind
            leading axes of 1, negative where it is in none; and the arrays at the window's number, `[n (q 1)* c]`.
        """
        first, offsets = self.first(arrays[0][0].ndim), self.offsets()
        q = [-(-size // step) for size, step in zip(s, self.stride, strict=True)]
        lows = [0] * self.rank
        if _many(math.prod(map(len, offsets)), q, t := self.out(s)):
            margins = [(-m[0], max(0, m[-1] + n - size)) for m, n, size in zip(offsets, q, t, strict=True)]
            lows = [low for low, _ in margins]
            arrays = tuple(zip(_bordered(arrays, first, margins), (value for _, value in arrays), strict=True))
        behind = [first + 2 * a + 1 for a in range(self.rank)]
        for m in itertools.product(*offsets):
            starts = [low + offset for low, offset in zip(lows, m, strict=True)]
            shifted = [_strided(x, first, starts, q, (1,) * self.rank, value) for x, value in arrays]
            yield self._position(m, first), [lax.expand_dims(x, behind) for x in shifted]

    def _position(self, m: tuple[int, ...], first: int) -> np.ndarray:
        total = np.zeros((1,) * (first + 2 * self.rank + 1), np.int32)
        for a, offset in enumerate(m):
            k = np.arange(self.stride[a]) + self.padding[a][0] - self.stride[a] * offset
            weighted = np.where((k >= 0) & (k < self.window[a]), k * math.prod(self.window[a + 1 :]), -self.size)
            axis = first + 2 * a + 1
            total = total + weighted.astype(np.int32).reshape([-1 if i == axis else 1 for i in range(total.ndim)])
        return total

    def elements(self, x: Array, s: tuple[int, ...]) -> Array:
        """x[n (q r)* c] as an array of all elements, `[n *s c]`."""
        first = x.ndim - 1 - 2 * self.rank
        whole = [x.shape[first + 2 * a] * x.shape[first + 2 * a + 1] for a in range(self.rank)]
        x = x.reshape((*x.shape[:first], *whole, x.shape[-1]))
        return lax.slice(x, (0,) * x.ndim, (*x.shape[:first], *s, x.shape[-1]))


def _bordered(arrays: Sequence[tuple[Array, Any]], first: int, margins: Sequence[tuple[int, int]]) -> list[Array]:
    """Copies of arrays with margins of a value around the spatial axes."""
    if not any(map(any, margins)):
        return [x for x, _ in arrays]
    config = [(0, 0, 0)] * first + [(low, high, 0) for low, high in margins] + [(0, 0, 0)]
    return list(lax.optimization_barrier([lax.pad(x, np.array(value, x.dtype), config) for x, value in arrays]))


def _many(views: int, sizes: Sequence[int], array: Sequence[int]) -> bool:
    """Whether so many views of those sizes are worth a copy of the array."""
    return views * math.prod(sizes) > FEW * math.prod(array)


def _strided(
    x: Array, first: int, starts: Sequence[int], sizes: Sequence[int], strides: Sequence[int], outside: Any
) -> Array:
    """x[n, starts + strides · i, c] for i < sizes, and a value where that is outside of x: a slice, then padded."""
    begin, end, steps, margins = [0] * x.ndim, list(x.shape), [1] * x.ndim, [(0, 0, 0)] * x.ndim
    for axis, (start, size, step) in enumerate(zip(starts, sizes, strides, strict=True), start=first):
        i = min(size, max(0, -(start // step)))                             # the first that is inside
        j = max(i, min(size, (x.shape[axis] - 1 - start) // step + 1))      # the first after it that is not
        begin[axis] = start + step * i if j > i else 0
        end[axis] = start + step * (j - 1) + 1 if j > i else 0
        steps[axis], margins[axis] = step, (i, size - j, 0)
    view = lax.slice(x, begin, end, steps)
    return lax.pad(view, np.array(outside, x.dtype), margins) if any(map(any, margins)) else view


def resolved(layer: str, x: Any, window: Any, stride: Any, padding: Any) -> Windows:
    """The options checked against x, everything that depends on its shape worked out."""
    check_array(layer, "x", "(n, *s, c)", x)
    rank = _rank(layer, x, window)
    window = per_axis(layer, "window", window, rank)
    stride = window if stride is None else per_axis(layer, "stride", stride, rank)
    s = x.shape[x.ndim - 1 - rank : -1]
    windows = Windows(window, stride, _padding(layer, padding, s, window, stride))
    _check_fit(layer, x, s, windows)
    return windows


def _rank(layer: str, x: Any, window: Any) -> int:
    """How many spatial axes there are: as many as entries of the window; for a number, all between n and c."""
    if isinstance(window, (int, np.integer)) and not isinstance(window, bool):
        if not 3 <= x.ndim <= 5:
            raise ValueError(
                f"{layer}: x must have the axes (n, *s, c) with 1 to 3 spatial axes s, got shape {x.shape}; "
                "where there are other leading axes, give a window size for each spatial axis"
            )
        return int(x.ndim) - 2
    rank = len(window) if isinstance(window, (tuple, list)) else 0
    if not 1 <= rank <= 3:
        raise ValueError(f"{layer}: window must be a positive integer, or one for each of 1 to 3 axes, got {window!r}")
    if x.ndim <= rank:
        raise ValueError(f"{layer}: x must have {rank} spatial axes and channels after them, got shape {x.shape}")
    return rank


def _padding(layer: str, padding: Any, s: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]) -> Pairs:
    if isinstance(padding, str):
        if padding == "SAME":
            return same(s, window, stride)
        if padding == "VALID":
            return ((0, 0),) * len(s)
    return pairs(layer, padding, len(s), ("SAME", "VALID"))


def _check_fit(layer: str, x: Any, s: tuple[int, ...], windows: Windows) -> None:
    padding = windows.padding
    padded = tuple(size + low + high for size, (low, high) in zip(s, padding, strict=True))
    if any(k > size for k, size in zip(windows.window, padded, strict=True)):
        raise ValueError(
            f"{layer}: the window {windows.window} is larger than the padded input, {padded} "
            f"(x has shape {x.shape}, padding {padding})"
        )
    if windows.inside(s).min(initial=1) < 1:
        raise ValueError(
            f"{layer}: with window {windows.window}, stride {windows.stride} and padding {padding}, some windows lie "
            f"wholly in the padding of x (shape {x.shape})"
        )
