"""Windows of a pooling layer: which element of the input each of them holds.

Axes: n any leading axes, s spatial sizes in, t windows along each axis, k positions in a window, c channels. Along one
axis, position k of window t is the element

    s = stride · t + k - low

so that the element s lies at position k of window t for every t with 0 ≤ s + low - stride · t = k < window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array, lax

from .checks import check_array
from .window import Pairs, pairs, per_axis, positions, same


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
        """For each position k, in row-major order, the elements there of all windows: `[n *t c]`.

        A strided slice each; of a padded copy of x where windows reach beyond it.
        """
        first = self.first(x.ndim)
        t = self.out(x.shape[first:-1])
        reach = [(m - 1) * step + 1 for m, step in zip(t, self.stride, strict=True)]
        x = _padded(x, first, self._margins(x.shape[first:-1], t), padded_with)
        strides = (1,) * first + self.stride + (1,)
        for k in np.ndindex(*self.window):
            start = (0,) * first + k + (0,)
            stop = (*x.shape[:first], *(i + r for i, r in zip(k, reach, strict=True)), x.shape[-1])
            yield lax.slice(x, start, stop, strides)

    def _margins(self, s: tuple[int, ...], t: tuple[int, ...]) -> list[tuple[int, int]]:
        """How much of the padding the windows reach: low, and what lies beyond the end."""
        axes = zip(s, t, self.window, self.stride, self.padding, strict=True)
        return [(low, max(0, (m - 1) * step + k - low - size)) for size, m, k, step, (low, _) in axes]

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
        ndim, offsets = arrays[0][0].ndim, self.offsets()
        first, t = self.first(ndim), arrays[0][0].shape[self.first(ndim) : -1]
        q = [-(-size // step) for size, step in zip(s, self.stride, strict=True)]
        margins = [(max(0, -m[0]), max(0, m[-1] + many - some)) for m, many, some in zip(offsets, q, t, strict=True)]
        padded = [_padded(x, first, margins, value) for x, value in arrays]
        for m in itertools.product(*offsets):
            starts = [low + offset for (low, _), offset in zip(margins, m, strict=True)]
            yield self._position(m, first), [_shifted(x, first, starts, q) for x in padded]

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


def _shifted(x: Array, first: int, starts: list[int], q: list[int]) -> Array:
    """x[n (starts + q, 1)* c]."""
    stops = [start + many for start, many in zip(starts, q, strict=True)]
    x = lax.slice(x, (0,) * first + (*starts, 0), (*x.shape[:first], *stops, x.shape[-1]))
    return lax.expand_dims(x, [first + 2 * a + 1 for a in range(len(q))])


def _padded(x: Array, first: int, margins: list[tuple[int, int]], value: Any) -> Array:
    """A copy with margins, made once: every view would look for the border again."""
    if not any(map(any, margins)):
        return x
    config = [(0, 0, 0)] * first + [(low, high, 0) for low, high in margins] + [(0, 0, 0)]
    return lax.optimization_barrier(lax.pad(x, np.array(value, x.dtype), config))


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
