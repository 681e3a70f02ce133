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

from .window import Pairs, positions, spans


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
