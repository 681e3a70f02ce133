"""Known mistakes as transforms of the right array: which of them turns what was expected into what was found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

Candidate = tuple[str, np.ndarray]


def fits(got: np.ndarray, candidate: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays are the same to rounding, and finite."""
    if got.shape != candidate.shape or not (np.isfinite(got).all() and np.isfinite(candidate).all()):
        return False
    return bool(np.abs(got - candidate).max(initial=0.0) <= tolerance)


def first_fit(got: np.ndarray, candidates: Iterator[Candidate], tolerance: float) -> str:
    """The words of the first candidate that fits, with the evidence; '' where none does."""
    for words, array in candidates:
        if fits(got, array, max(tolerance, 1e-9 * np.abs(array).max(initial=0.0))):
            off = np.abs(got - array).max(initial=0.0) / (np.abs(array).max(initial=0.0) or 1.0)
            return f"{words} ({_to(off)})"
    return ""


def scale(got: np.ndarray, want: np.ndarray, sizes: Sequence[int], meshes: Mapping[str, int], tol: float) -> str:
    """A factor, named where it is the size of an axis of an array or of a mesh."""
    square = float(np.sum(np.abs(want) ** 2))
    if not square:
        return ""
    c = complex(np.sum(got * np.conj(want)) / square)
    close = fits(got, c * want, max(tol, 1e-9 * np.abs(got).max(initial=0.0)))
    if not close or abs(c - 1) < 1e-3 or abs(c.imag) > 1e-9 * abs(c):
        return ""
    return f"{_factor(c.real, sizes, meshes)} ({_to(np.abs(got - c * want).max() / np.abs(want).max())})"


def _to(off: float) -> str:
    return f"to {off:.0e}" if off else "exactly"


def _factor(c: float, sizes: Sequence[int], meshes: Mapping[str, int]) -> str:
    names: list[tuple[float, str]] = [(-1.0, "is -1 times the adjoint: the sign is wrong")]
    for name, n in meshes.items():
        names.append((n, f"is {n} times the adjoint, the size of mesh axis {name!r}: a psum too many"))
        names.append((1 / n, f"is 1/{n} of the adjoint, the size of mesh axis {name!r}: a psum is missing, or a mean"))
    larger = list(dict.fromkeys(n for n in sizes if n > 1))
    for n in larger:
        names.append((1 / n, f"is 1/{n} of the adjoint: the rule averages over an axis (n={n}) where the adjoint sums"))
        names.append((n, f"is {n} times the adjoint, n={n} times too large: a mean's 1/n is missing, or a sum is taken "
                         "twice"))
    for n in larger:
        words = f"is {c:.6g} times the adjoint: n and n-1 are confused (n={n})"
        names += [(x, words) for x in (n / (n - 1), 1 - 1 / n) if n > 2]
    return next((words for x, words in names if abs(c - x) <= 1e-6 * abs(x)), f"is {c:.6g} times the adjoint")


def rearranged(want: np.ndarray) -> Iterator[Candidate]:
    """The same entries in another order."""
    for order in itertools.permutations(range(want.ndim)) if 2 <= want.ndim <= 5 else ():
        if order == tuple(range(want.ndim)):
            continue
        turned = want.transpose(order)
        if turned.shape == want.shape:
            yield f"is the adjoint transposed (axes {order})", turned
        yield f"is the adjoint transposed (axes {order}), read in the wrong order", turned.reshape(want.shape)
    for k in range(1, min(want.ndim, 4) + 1):
        for axes in itertools.combinations(range(want.ndim), k):
            if all(want.shape[a] > 1 for a in axes):
                yield f"is the adjoint reversed along axis {', '.join(map(str, axes))}", np.flip(want, axes)
    for axis in range(want.ndim):
        yield from shifted("the adjoint", want, axis)


def shifted(what: str, x: np.ndarray, axis: int) -> Iterator[Candidate]:
    """Rolled along an axis, or moved with zeros filled in."""
    n = x.shape[axis]
    for k in (-2, -1, 1, 2):
        if abs(k) < n:
            rolled = np.roll(x, k, axis)
            yield f"is {what} shifted by {k} along axis {axis}", rolled
            lost = rolled.copy()
            at = [slice(None)] * x.ndim
            at[axis] = slice(0, k) if k > 0 else slice(k, None)
            lost[tuple(at)] = 0.0
            yield f"is {what} shifted by {k} along axis {axis}, zeros filled in", lost


def pointwise(got: np.ndarray, want: np.ndarray) -> Iterator[Candidate]:
    """Functions of each entry."""
    if np.iscomplexobj(want):
        yield "is the conjugate of the adjoint", np.conj(want)
        yield "lacks its imaginary part", want.real + 0j
        yield "is -1 times the conjugate of the adjoint", -np.conj(want)
        return
    yield "is the absolute value of the adjoint", np.abs(want)
    yield "is the adjoint squared", want**2
    yield "is the sign of the adjoint", np.sign(want)
    limit = np.abs(got).max(initial=0.0)
    if (np.abs(want) > limit * (1 + 1e-9)).any():
        yield f"is the adjoint clipped to ±{limit:.4g}", np.clip(want, -limit, limit)
    yield "is the adjoint clipped from below at 0", np.maximum(want, 0.0)
    for name, dtype in (("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16), ("float32", np.float32)):
        with np.errstate(over="ignore"):
            yield f"is the adjoint rounded to {name}", want.astype(dtype).astype(np.float64)


def spread(want: np.ndarray) -> Iterator[Candidate]:
    """Summed or averaged along an axis, and spread over it again."""
    for axis in range(want.ndim):
        if want.shape[axis] > 1:
            total = np.broadcast_to(want.sum(axis, keepdims=True), want.shape)
            yield f"sums over axis {axis} once too often: the adjoint's sum, spread over the axis again", total
            yield f"is the adjoint averaged over axis {axis}", total / want.shape[axis]


def reductions(u: Sequence[np.ndarray], shape: tuple[int, ...]) -> Iterator[Candidate]:
    """Sums and means of an output's cotangent over axes that leave the shape of the argument."""
    for x in u:
        for k in range(1, x.ndim + 1):
            for axes in itertools.combinations(range(x.ndim), k):
                if tuple(n for a, n in enumerate(x.shape) if a not in axes) == shape:
                    where = ", ".join(map(str, axes))
                    yield f"sums over axis {where} of the output's cotangent, the wrong one", x.sum(axes)
                    if x.size:
                        yield f"averages over axis {where} of the output's cotangent, the wrong one", x.mean(axes)


def pattern(got: np.ndarray, want: np.ndarray, tolerance: float, small: int) -> str:
    """Where the errors lie."""
    judged = np.isfinite(want)
    wrong = judged & ~(np.abs(got - want) <= tolerance)
    count, size = int(wrong.sum()), want.size
    masked = np.abs(want) <= tolerance
    if count and masked.any() and not (~masked & wrong).any() and masked.sum() < size:
        return f"is not zero at {count} of {size} elements where the adjoint is: a mask is missing"
    if count < size and count and (np.abs(got[wrong]) <= tolerance).all():
        return f"is zero at {count} of {size} elements where it must not be; the others are right"
    if fits(np.sort_complex(got.ravel()), np.sort_complex(want.ravel()), tolerance):
        return "holds the right entries permuted"
    if 0 < count <= max(small, size // 10) and count < size:
        where = ", ".join(str(list(map(int, i))) for i in np.argwhere(wrong)[:3])
        return f"is wrong at {count} of {size} elements, {where}; the others are right"
    for axis in range(want.ndim):
        others = tuple(a for a in range(want.ndim) if a != axis)
        rows = wrong.any(axis=others) if others else wrong
        if 0 < rows.sum() <= max(1, rows.size // 3) and rows.size > 1:
            where = ", ".join(map(str, np.nonzero(rows)[0]))
            return f"is wrong at {where} along axis {axis} only ({count} of {size} elements)"
    return ""


Fit = Callable[[np.ndarray], str]
