"""What a wrong rule may have looked at instead: other cotangents, other masks, other options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..adjoint.undecorated import undecorated

if TYPE_CHECKING:
    from .judge import Prover
    from .probes import Numbers


def altered(prover: Prover, u: Numbers) -> Iterator[tuple[str, Numbers]]:
    """Cotangents as wrong rules see them."""
    names = [leaf.name for leaf in prover.subject.outputs]
    every = tuple[np.ndarray, ...]
    if len(u) > 1:
        for j, name in enumerate(names):
            yield f"the cotangent of {name} is dropped", every(0 * x if k == j else x for k, x in enumerate(u))
            yield f"the cotangent of {name} is taken twice", every(2 * x if k == j else x for k, x in enumerate(u))
            yield f"the cotangent of {name} has the wrong sign", every(-x if k == j else x for k, x in enumerate(u))
        if len({x.shape for x in u}) == 1:
            yield "the cotangents of the outputs are swapped", every(u[::-1])
            for j, name in enumerate(names):
                yield f"the cotangent of {name} is used for every output", every(u[j] for _ in u)
    yield "the cotangent is ignored: ones are used", every(map(np.ones_like, u))
    if all(x.size for x in u):
        yield "the first element of the cotangent is used for all", every(np.full_like(x, x.ravel()[0]) for x in u)
        yield "the mean of the cotangent is used for all", every(np.full_like(x, x.mean()) for x in u)
        yield "the sum of the cotangent is used for all", every(np.full_like(x, x.sum()) for x in u)
    yield "the conjugate of the cotangent is used", every(map(np.conj, u))
    for axis in range(max((x.ndim for x in u), default=0)):
        yield from _along_axis(u, axis)


def _along_axis(u: Numbers, axis: int) -> Iterator[tuple[str, Numbers]]:
    every = tuple[np.ndarray, ...]
    inside = [x.ndim > axis and x.shape[axis] > 1 for x in u]
    if not any(inside):
        return

    def each(change: Callable[[np.ndarray], np.ndarray]) -> Numbers:
        return every(change(x) if ok else x for x, ok in zip(u, inside, strict=True))

    def only(x: np.ndarray, k: int) -> np.ndarray:
        out = np.zeros_like(x)
        at = (slice(None),) * axis + (k,)
        out[at] = x[at]
        return out

    def spread(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x.sum(axis, keepdims=True), x.shape)

    yield f"the cotangent is reversed along axis {axis}", each(lambda x: np.flip(x, axis))
    for k in (-1, 1):
        roll = functools.partial(np.roll, shift=k, axis=axis)
        yield f"the cotangent is shifted by {k} along axis {axis}", each(roll)
    yield f"the cotangent is averaged over axis {axis}", each(lambda x: spread(x) / x.shape[axis])
    yield f"the cotangent is summed over axis {axis}: a sum too many", each(spread)
    for k, which in ((0, "first"), (-1, "last")):
        alone = each(functools.partial(only, k=k))
        yield f"the {which} element along axis {axis} of the cotangent is used alone", alone
        rest = every(x - part if ok else x for x, part, ok in zip(u, alone, inside, strict=True))
        yield f"the {which} element along axis {axis} of the cotangent is missing", rest


def other_masks(prover: Prover, passive: Any) -> Iterator[tuple[str, Any]]:
    """The passive arguments with one mask all True or all False, and what a rule that ignores the mask would be."""
    for j, leaf in enumerate(prover.subject.passive):
        if leaf.dtype == np.dtype(bool):
            for value in (True, False):
                words = f"the mask {leaf.name} is ignored: as if it were all {value}"
                yield words, (*passive[:j], np.full(leaf.shape, value), *passive[j + 1 :])


def other_options(prover: Prover) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The reference with one option changed: keywords of a partial, defaults in the signature, static arguments."""
    s = prover.subject
    reference = s.plain_primal
    keywords = dict(reference.keywords) if isinstance(reference, functools.partial) else {}
    inner = reference.func if isinstance(reference, functools.partial) else reference
    try:
        parameters = inspect.signature(inner).parameters
    except (TypeError, ValueError):
        return
    defaults = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    for name, value in (defaults | keywords).items():
        for other in _instead(value, parameters.get(name)):
            words = f"the option {name} is ignored: as if {name}={other}"
            yield words, undecorated(functools.partial(inner, **{**keywords, name: other}))
    names = list(parameters)
    for name, value in s.options.items():
        if name in names and name not in keywords:
            for other in _instead(value, parameters.get(name)):
                words = f"the option {name} is ignored: as if {name}={other}"
                yield words, undecorated(_replacing(reference, names.index(name), other))


def _replacing(f: Callable[..., Any], position: int, value: Any) -> Callable[..., Any]:
    return lambda *args: f(*args[:position], value, *args[position + 1 :])


def _instead(value: Any, parameter: Any) -> list[Any]:
    """Values that an ignored option would have."""
    default = [] if parameter is None or parameter.default is parameter.empty else [parameter.default]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        zero_one = [0, 1] if isinstance(value, int) else [0.0, 1.0]
        near = [value - 1, value + 1] if isinstance(value, int) else []
        return [v for v in dict.fromkeys((*default, *zero_one, *near, -value, None)) if v != value]
    if isinstance(value, str):
        return [v for v in (*default, "mean", "sum", "none", "SAME", "VALID") if v != value]
    return [v for v in (*default, None) if v is not value]
