"""How small a mistake a run would have caught."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .certificate import Power
from .judge import Prover
from .oracles import Opinion


def power(prover: Prover, i: int, opinions: Sequence[Opinion]) -> Power:
    """The smallest error of a single element, and of the whole, that some probe at the given point would have shown.

    An error of element k shows in a probe if it is larger than the probe's tolerance τ; relative to the element itself
    that is τ / |g_k|. The best probe counts for each element, and the worst element for the leaf.
    """
    leaf = prover.subject.active[i]
    size = int(np.prod(leaf.shape))
    agree = {o.oracle: o.agrees for o in opinions if o.agrees is not None}
    element, scale = np.full(leaf.shape, np.inf), np.inf
    for _, cotangents in prover.base_errors:
        e = cotangents[i]
        if e.dtype != prover.sharp_dtype or e.got.shape != leaf.shape:
            continue
        magnitude = np.where(np.isfinite(e.want), np.abs(e.want), 0.0)
        seen = magnitude > e.tolerance
        element = np.minimum(element, np.where(seen, e.tolerance / np.where(seen, magnitude, 1.0), np.inf))
        largest = float(magnitude.max(initial=0.0))
        scale = min(scale, e.tolerance / largest if largest > e.tolerance else np.inf)
    blind = int(np.isinf(element).sum())
    worst = float(np.max(element, where=np.isfinite(element), initial=0.0)) if blind < size else np.inf
    return Power(leaf.name, worst, float(scale), blind, size, agree)
