"""Errors: how far arrays are from what they should be, beside what rounding explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .probes import widened
from .stage import distance, largest
from .subject import Leaf


@dataclass(frozen=True)
class Error:
    """One leaf of one comparison.

    Attributes:
        leaf: which.
        error, tolerance, scale: the largest deviation, what rounding explains, the largest entry expected.
        index: of the worst element.
        got, want: the arrays.
        u: the cotangent with which they were made; None where there is none.
        dtype: the precision in which `got` was computed.
    """

    leaf: Leaf
    error: float
    tolerance: float
    scale: float
    index: tuple[int, ...]
    got: np.ndarray
    want: np.ndarray
    u: Any = None
    dtype: str = "float64"

    @property
    def ratio(self) -> float:
        """The error in units of its tolerance."""
        if self.error == 0.0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else np.inf

    @property
    def wrong(self) -> bool:
        return self.ratio > 1.0

    def message(self) -> str:
        """The worst element, both numbers."""
        if self.got.shape != self.want.shape:
            return f"shape {self.got.shape} where {self.want.shape} is expected"
        at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        off = np.sum(~(np.abs(self.got - self.want) <= self.tolerance) & np.isfinite(self.want))
        count = f"{off} of {self.want.size} elements differ; the worst is {self.leaf.name}{at}: "
        number = f"{_number(self.got[self.index])}, expected {_number(self.want[self.index])}"
        return f"{count if self.want.size > 1 else self.leaf.name + ': '}{number} ({self.dtype})"


def _number(x: Any) -> str:
    return f"{complex(x):.6g}" if np.iscomplexobj(x) else f"{float(x):.6g}"


def compare(
    leaves: Sequence[Leaf], got: Sequence[Any], want: Sequence[Any], tolerances: Sequence[Any], **more: Any
) -> list[Error]:
    """Leaf by leaf. Entries that are not finite in `want` are not judged; in `got` alone they are infinitely wrong.

    A tolerance is a number, or an array that broadcasts to its leaf.
    """
    found = []
    for leaf, a, b, tolerance in zip(leaves, got, want, tolerances, strict=True):
        a, b = widened(a), widened(b)
        if a.shape != b.shape:
            found.append(Error(leaf, np.inf, float(np.max(tolerance)), 1.0, (), a, b, **more))
            continue
        judged = np.isfinite(b)
        off = np.where(judged & ~np.isfinite(a), np.inf, distance(a, b))
        allowed = np.broadcast_to(np.asarray(tolerance, float), b.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(off > 0.0, off / allowed, 0.0)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), b.shape)) if b.size else ()
        error, limit = (float(off[index]), float(allowed[index])) if b.size else (0.0, float(np.max(tolerance)))
        found.append(Error(leaf, error, limit, largest(b), index, a, b, **more))
    return found
