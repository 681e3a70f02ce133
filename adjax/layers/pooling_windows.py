"""Windows of a pooling layer: which element of the input each of them holds.

Axes: n any leading axes, s spatial sizes in, t windows along each axis, k positions in a window, c channels. Along one
axis, position k of window t is the element

    s = stride · t + k - low

so that the element s lies at position k of window t for every t with 0 ≤ s + low - stride · t = k < window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .checks import check_array
from .window import Pairs, pairs, per_axis, positions, same


class Choice(NamedTuple):
    """For every place of a grid one of another grid: an element for every window, or a window for every element.

    Attributes:
        numbers: where along each axis; anywhere where there is none to choose.
        position: of the element in the window, counted in row-major order, as a sum over the axes; negative where there
            is none to choose.
    """

    numbers: tuple[np.ndarray, ...]
    position: tuple[np.ndarray, ...]

    def of(self, x: Array, first: int) -> Array:
        """x[n, numbers, c], the spatial axes of x beginning with `first`."""
        for a, numbers in enumerate(self.numbers):
            x = jnp.take(x, numbers, axis=first + a, mode="clip")
        return x

    def positions(self, ndim: int, first: int) -> Array:
        """The positions as an array that broadcasts against `of(x)`."""
        total = jnp.zeros((1,) * ndim, np.int32)
        for a, position in enumerate(self.position):
            total = total + position.reshape([-1 if axis == first + a else 1 for axis in range(ndim)])
        return total

    def or_zero(self, x: Array, first: int) -> Array:
        """`of(x)`, and 0 where there is none to choose."""
        values = self.of(x, first)
        if all((position >= 0).all() for position in self.position):
            return values
        return jnp.where(self.positions(x.ndim, first) >= 0, values, lax.full_like(values, 0))


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
        return int(np.prod(self.window))

    @property
    def overlaps(self) -> tuple[int, ...]:
        """In how many windows an element can be, along each axis."""
        return tuple(-(-k // step) for k, step in zip(self.window, self.stride, strict=True))

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

    def held(self, s: tuple[int, ...]) -> Iterator[Choice]:
        """For each position k, in row-major order: the element there of every window."""
        t = [np.arange(m) for m in self.out(s)]
        low = [low for low, _ in self.padding]
        for k in np.ndindex(*self.window):
            index = [step * m + i - lo for step, m, i, lo in zip(self.stride, t, k, low, strict=True)]
            yield self._choice(index, s, [np.full_like(m, i) for m, i in zip(t, k, strict=True)])

    def holding(self, s: tuple[int, ...]) -> Iterator[Choice]:
        """For every element one of the windows that hold it, until each of them has been named."""
        t = self.out(s)
        place = [np.arange(size) + low for size, (low, _) in zip(s, self.padding, strict=True)]
        for earlier in np.ndindex(*self.overlaps):
            index = [p // step - m for p, step, m in zip(place, self.stride, earlier, strict=True)]
            k = [p - step * m for p, step, m in zip(place, self.stride, index, strict=True)]
            yield self._choice(index, t, k)

    def _choice(self, index: list[np.ndarray], sizes: tuple[int, ...], k: list[np.ndarray]) -> Choice:
        weights = [int(np.prod(self.window[a + 1 :])) for a in range(self.rank)]
        axes = list(zip(index, sizes, k, self.window, weights, strict=True))
        return Choice(
            tuple(np.clip(i, 0, size - 1) for i, size, *_ in axes),
            tuple(
                np.where((i >= 0) & (i < size) & (k < window), k * weight, -self.size).astype(np.int32)
                for i, size, k, window, weight in axes
            ),
        )


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
