"""How a kernel lies over its input: the numbers from which the maps of a convolution are made.

Axes of the maps: n examples (one axis), s spatial sizes in, t out, k kernel sizes, c channels in, o out, g groups.

    forward(x[n *s c], W[*k c/g o], g) -> y[n *t o]
    adjoint_x(dY[n *t o], W, g, s)     -> dx[n *s c]
    adjoint_W(x, dY, g, k)             -> dW[*k c/g o]

Each is linear in each of its two operands, takes both in one dtype, and returns the accumulator: `wide(dtype)`, float32
for half precision. None is called on an empty array. Output channels of group j are the j-th of g equal runs of o.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .window import Pairs, pairs, per_axis, positions, same, spans

NAMES = ("SAME", "VALID", "CIRCULAR")


@dataclass(frozen=True)
class Geometry:
    """Resolved options of a convolution: one entry a spatial axis, padding with zeros, none negative."""

    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    def span(self, k: Sequence[int]) -> tuple[int, ...]:
        """What a dilated kernel covers: (k - 1) · dilation + 1."""
        return spans(k, self.dilation)

    def out(self, s: Sequence[int], k: Sequence[int]) -> tuple[int, ...]:
        """t, the spatial sizes of the result."""
        return positions(s, self.span(k), self.stride, self.padding)

    def reach(self, t: Sequence[int]) -> tuple[int, ...]:
        """The distance from the first to the last position, both included: (t - 1) · stride + 1, 0 for none."""
        return tuple((t - 1) * step + 1 if t else 0 for t, step in zip(t, self.stride, strict=True))


@dataclass(frozen=True)
class Lay:
    """A kernel laid over an input: x[*s] is first wrapped around by `wrap`, then convolved with `geometry`."""

    geometry: Geometry
    wrap: Pairs
    s: tuple[int, ...]
    k: tuple[int, ...]
    t: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return self.geometry.rank

    @property
    def wrapped(self) -> tuple[int, ...]:
        """s after the wrapping."""
        return tuple(low + s + high for s, (low, high) in zip(self.s, self.wrap, strict=True))


@dataclass(frozen=True)
class Options:
    """The options of `conv` for a kernel, checked; a padding that depends on the input is still a name."""

    stride: tuple[int, ...]
    padding: str | Pairs
    dilation: tuple[int, ...]
    groups: int
    k: tuple[int, ...]

    @classmethod
    def of(cls, layer: str, k: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: Any) -> Options:
        """From what the user gave. Raises ValueError where that makes no sense."""
        rank = len(k)
        if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
            raise ValueError(f"{layer}: groups must be a positive integer, got {groups!r}")
        named = isinstance(padding, str) and padding in NAMES
        return cls(
            per_axis(layer, "stride", stride, rank),
            padding if named else pairs(layer, padding, rank, NAMES),
            per_axis(layer, "dilation", dilation, rank),
            groups,
            k,
        )

    def over(self, s: tuple[int, ...]) -> Lay:
        """The kernel over an input of spatial sizes s."""
        none = ((0, 0),) * len(self.k)
        span = spans(self.k, self.dilation)
        around = self.padding if isinstance(self.padding, tuple) else none
        if self.padding in ("SAME", "CIRCULAR"):
            around = same(s, span, self.stride)
        t = positions(s, span, self.stride, around)
        zeros, wrap = around, none
        if self.padding == "CIRCULAR":                              # of nothing there is nothing to go around
            zeros, wrap = none, tuple(pair if size else (0, 0) for pair, size in zip(around, s, strict=True))
        return Lay(Geometry(self.stride, zeros, self.dilation, self.groups), wrap, s, self.k, t)

    def natural(self, t: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial sizes of an input whose result has the sizes t: t · stride, or all that its windows cover."""
        if self.padding in ("SAME", "CIRCULAR"):
            return tuple(t * stride for t, stride in zip(t, self.stride, strict=True))
        around = self.padding if isinstance(self.padding, tuple) else ((0, 0),) * len(t)
        axes = zip(t, self.stride, spans(self.k, self.dilation), around, strict=True)
        return tuple(max(0, (t - 1) * stride + e - low - high) if t else 0 for t, stride, e, (low, high) in axes)
