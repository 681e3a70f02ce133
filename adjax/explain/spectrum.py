"""The largest and the smallest singular value of a matrix: exact where it is small, by products with it elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]
EXACT, STEPS = 1024, 64


def singular_values(W: np.ndarray) -> tuple[float, float]:
    """σ_max and σ_min; nan where an entry is no number, zeros where there is none.

    >>> singular_values(np.diag([3.0, 0.5]))
    (3.0, 0.5)
    """
    if not np.isfinite(W).all():
        return float("nan"), float("nan")
    if min(W.shape) == 0:
        return 0.0, 0.0
    if min(W.shape) <= EXACT:
        sigma = np.linalg.svd(W, compute_uv=False)
    else:
        sigma = bidiagonalized(lambda v: W @ v, lambda u: W.T @ u, W.shape, STEPS)
    return float(sigma[0]), float(sigma[-1])


def bidiagonalized(there: Map, back: Map, shape: tuple[int, int], steps: int) -> Any:
    """Singular values of a map, by itself and its adjoint, on a Krylov space (Golub and Kahan, 1965).

    Every vector is made orthogonal to all before it. The largest value converges first, the smallest is an upper bound.
    """
    rng = np.random.default_rng(0)
    v = rng.standard_normal(shape[1])
    B = np.zeros((steps, steps + 1))
    V: list[np.ndarray] = [v / np.linalg.norm(v)]
    U: list[np.ndarray] = []
    for k in range(steps):
        u = there(V[k]) - (B[k - 1, k] * U[k - 1] if k else 0)
        u = _orthogonal(u, U)
        B[k, k] = np.linalg.norm(u)
        if B[k, k] == 0:
            return np.linalg.svd(B[:k, : k + 1], compute_uv=False) if k else np.zeros(1)
        U.append(u / B[k, k])
        v = _orthogonal(back(U[k]) - B[k, k] * V[k], V)
        B[k, k + 1] = np.linalg.norm(v)
        if B[k, k + 1] == 0:
            return np.linalg.svd(B[: k + 1, : k + 1], compute_uv=False)
        V.append(v / B[k, k + 1])
    return np.linalg.svd(B, compute_uv=False)


def _orthogonal(x: np.ndarray, to: list[np.ndarray]) -> np.ndarray:
    """Twice is enough (Parlett, 1980)."""
    for _ in range(2 if to else 0):
        x = x - np.stack(to).T @ (np.stack(to) @ x)
    return x
