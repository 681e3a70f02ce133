"""Windows that slide over spatial axes: how far, how many, and over which padding.

Along one axis, an input of size s padded by (low, high) and a window that spans e of it, moved by a stride, give

    t = ⌊(s + low + high - e) / stride⌋ + 1        positions, position i reading from i · stride - low on.

A kernel of k taps that are `dilation` apart spans e = (k - 1) · dilation + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Pairs = tuple[tuple[int, int], ...]


def spans(window: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """e = (k - 1) · dilation + 1 for each axis.

    >>> spans((3, 2), (1, 4))
    (3, 5)
    """
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def positions(s: Sequence[int], span: Sequence[int], stride: Sequence[int], padding: Pairs) -> tuple[int, ...]:
    """t for each axis; 0 where the window does not fit.

    >>> positions((7, 2), (3, 3), (2, 1), ((1, 1), (0, 0)))
    (4, 0)
    """
    axes = zip(s, span, stride, padding, strict=True)
    return tuple(max(0, (s + low + high - e) // step + 1) for s, e, step, (low, high) in axes)


def same(s: Sequence[int], span: Sequence[int], stride: Sequence[int]) -> Pairs:
    """The padding with which t = ⌈s / stride⌉: what is needed, half of it on each side, the odd one at the end.

    >>> same((7, 8), (3, 2), (2, 1))
    ((1, 1), (0, 1))
    """
    needed = [max((-(-s // step) - 1) * step + e - s, 0) for s, e, step in zip(s, span, stride, strict=True)]
    return tuple((n // 2, n - n // 2) for n in needed)


def per_axis(layer: str, name: str, value: Any, rank: int) -> tuple[int, ...]:
    """A positive integer for each spatial axis, from one for all or one for each. Raises ValueError otherwise."""
    values = (value,) * rank if _is_int(value) else value
    if isinstance(values, Sequence) and len(values) == rank and all(_is_int(v) and v > 0 for v in values):
        return tuple(map(int, values))
    raise ValueError(
        f"{layer}: {name} must be a positive integer, or one for each of the {rank} spatial axes, got {value!r}"
    )


def pairs(layer: str, padding: Any, rank: int, names: Sequence[str]) -> Pairs:
    """A pair (low, high) for each spatial axis, from one integer for all or the pairs themselves.

    `names` are those that the caller has tried. Raises ValueError for anything else.
    """
    values = ((padding, padding),) * rank if _is_int(padding) else padding
    if not (isinstance(values, Sequence) and not isinstance(values, str) and len(values) == rank
            and all(isinstance(p, Sequence) and len(p) == 2 and all(map(_is_int, p)) for p in values)):
        listed = ", ".join(f'"{name}"' for name in names)
        raise ValueError(
            f"{layer}: padding must be {listed}, an integer, or a pair (low, high) for each of the {rank} spatial "
            f"axes, got {padding!r}"
        )
    if any(v < 0 for p in values for v in p):
        raise ValueError(f"{layer}: padding must not be negative, got {padding!r}")
    return tuple((int(low), int(high)) for low, high in values)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
