"""What is wrong, in one sentence with its evidence.

The wrong array is fitted to transforms of the right one: first of its entries (`transforms`), then of what went into
it: the rule at altered cotangents, the reference at altered options, the reference with one derivative withheld.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..adjoint.undecorated import narrowest, undecorated, withheld
from .plain import reverse
from .transforms import Candidate, first_fit, fits, pattern, pointwise, rearranged, reductions, scale, spread

if TYPE_CHECKING:
    from .judge import Error, Prover
    from .probes import Numbers

EQUATIONS = 60      # how many equations' derivatives are withheld in turn


def diagnose(
    prover: Prover,
    e: Error,
    linear: Callable[..., Numbers] | None = None,
    at: tuple[Any, Any] | None = None,
    also: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Names a mistake, or returns ''.

    Args:
        prover: whose rule is examined.
        e: the error to be explained.
        linear: the backward rule as a function of cotangents, where the law of linearity failed.
        at: the point, where it is not the given one.
        also: further candidates, named.
    """
    got, want = e.got, e.want
    if got.shape != want.shape:
        return f"has shape {got.shape} where {want.shape} is expected"
    told = _prefix(e)
    if not np.isfinite(got).all() and np.isfinite(want).any():
        bad = (~np.isfinite(got) & np.isfinite(want)).sum()
        return f"{told} is not finite at {bad} of {want.size} elements where the adjoint is"
    if not got.any() and want.any():
        return f"{told} is zero where it must not be: a cotangent is dropped"
    for attempt in ATTEMPTS:
        words = attempt(prover, e, linear, at or (prover.base, prover.passive), also or {})
        if words:
            return f"{told} {words if e.u is not None else words.replace('the adjoint', 'the right value')}"
    return ""


def _prefix(e: Error) -> str:
    return f"d{e.leaf.name}" if e.u is not None else e.leaf.name


Attempt = Any


def _how_it_scales(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    """How the rule depends on the cotangent, where it is not linear: constant, squared, absolute, clipped, ignored."""
    if e.u is None or prover.linear_holds:
        return ""
    i = prover.subject.active.index(e.leaf)
    u = e.u if any(np.any(x) for x in e.u) else next(iter(prover.cotangents.values()))

    def bwd(c: float) -> np.ndarray:
        return prover.own(at[0], at[1], tuple(c * x for x in u)).g[i]

    return _how(bwd)


def _how(bwd: Callable[[float], np.ndarray]) -> str:
    """What a function of a multiple c of the cotangent does instead of being proportional to c."""
    one, two, minus, zero = bwd(1.0), bwd(2.0), bwd(-1.0), bwd(0.0)
    big, bigger = bwd(2.0**20), bwd(2.0**22)
    same = functools.partial(fits, tolerance=1e-7 * (np.abs(one).max(initial=0.0) or 1.0))
    constant = zero.ravel()[np.argmax(np.abs(zero))] if zero.size else 0.0
    even = same(minus, one)
    limit = np.abs(big).max(initial=0.0)
    tiny, twice = bwd(2.0**-30), bwd(2.0**-29)
    bounded = fits(big, bigger, 1e-6 * limit)
    small = tiny.any() and fits(twice, 2 * tiny, 1e-6 * np.abs(twice).max())
    claims = (
        (zero.any() and same(one, zero) and same(two, zero),
         "does not depend on the cotangent: the cotangent is ignored"),
        (zero.any() and same(two - zero, 2 * (one - zero)),
         f"has an added constant: bwd(0) = {constant:.6g} at its largest"),
        (even and same(two, 4 * one), "is the same for -u and four times as large for 2u: the cotangent is squared"),
        (even and same(two, 2 * one), "is the same for -u: the absolute value is taken"),
        (same(two, 4 * one), "grows with the square of the cotangent: the cotangent is squared"),
        (bounded and small, f"does not grow beyond ±{limit:.4g} with the cotangent: it is clipped"),
        (bounded, "does not grow with the cotangent: only its direction or its sign is used"),
    )  # fmt: skip
    return next((words for holds, words in claims if holds), "")


def _not_linear(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    return "is not linear in the cotangent" if e.u is not None and not prover.linear_holds else ""


def _entries(prover: Prover, e: Error, linear: Any, at: Any, also: Mapping[str, np.ndarray]) -> str:
    """Transforms of the right array's entries, and other arguments' cotangents."""
    got, want, tolerance = e.got, e.want, 4 * e.tolerance
    sizes = [n for leaf in (*prover.subject.active, *prover.subject.outputs) for n in leaf.shape]
    extra = [int(np.prod(leaf.shape)) for leaf in (*prover.subject.outputs, *prover.subject.active)]
    words = first_fit(got, iter(also.items()), tolerance)
    words = words or scale(got, want, [*sizes, *extra], prover.meshes, tolerance)
    if not words and not np.any(want):
        return "is not zero where the adjoint is"
    for candidates in (rearranged(want), _others(prover, e, at), pointwise(got, want), spread(want)):
        words = words or first_fit(got, candidates, tolerance)
    if not words and e.u is not None:
        words = first_fit(got, reductions(e.u, want.shape), tolerance)
    return words


def _others(prover: Prover, e: Error, at: Any) -> Iterator[Candidate]:
    """Right cotangents of other arguments of the same size."""
    if e.u is None:
        return
    if len(prover.subject.active) < 2 or not prover.sharp.means:
        return
    right = prover.sharp.both(at[0], at[1], e.u).plain.g
    for leaf, g in zip(prover.subject.active, right, strict=True):
        if leaf != e.leaf and g.size == e.want.size:
            yield f"is the cotangent of {leaf.name}: two arguments are swapped", g.reshape(e.want.shape)
            if g.ndim == 2:
                yield (f"is the cotangent of {leaf.name} transposed: two arguments are swapped",
                       g.T.reshape(e.want.shape))


def _inputs(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    """The right adjoint of an altered cotangent."""
    if e.u is None or not prover.sharp.means or e.leaf not in prover.subject.active:
        return ""
    i = prover.subject.active.index(e.leaf)

    def candidates() -> Iterator[Candidate]:
        for words, u in altered(prover, e.u):
            yield words, prover.sharp.unrounded(at[0], at[1], u).plain.g[i]
        if np.iscomplexobj(e.want):
            conjugated = prover.sharp.both(at[0], at[1], tuple(map(np.conj, e.u))).plain.g[i]
            yield "is the adjoint with its matrix conjugated: the conjugate transpose", np.conj(conjugated)

    return first_fit(e.got, candidates(), 4 * e.tolerance)


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


def _options(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    """The reference at other values of its options."""
    s, stage = prover.subject, prover.sharp

    def candidates() -> Iterator[Candidate]:
        for words, passive in _other_masks(prover, at[1]):
            g = stage.both(at[0], passive, e.u or ()).plain.g
            yield words, g[s.active.index(e.leaf)]
        for words, fun in other_options(prover):
            try:
                program = stage.compiled(words, reverse(s.leaf_form(fun)))
                y, g = stage.run(program, *stage.operands(at[0], at[1], e.u or ()))
            except Exception:                               # an option that this function does not take
                continue
            leaves = dict(zip((*s.outputs, *s.active), (*y.floating, *g), strict=True))
            yield words, leaves[e.leaf]

    if e.u is None or e.leaf not in s.active:
        return ""
    return first_fit(e.got, candidates(), 4 * e.tolerance)


def _other_masks(prover: Prover, passive: Any) -> Iterator[tuple[str, Any]]:
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


def _pattern(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    return pattern(e.got, e.want, 4 * e.tolerance, small=1)


def _paths(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    """The reference with the derivative through one of its equations withheld."""
    s, stage = prover.subject, prover.sharp
    if e.u is None or e.leaf not in s.active or stage.means != "vjp":
        return ""
    i = s.active.index(e.leaf)
    operands = stage.operands(at[0], at[1], e.u)
    if prover.paths is None:
        with stage.precision():
            names, form = withheld(s.leaf_form(s.reference), *operands[:2])
        prover.paths = names, jax.jit(lambda k, a, p, u: reverse(lambda a, p: form(k, a, p))(a, p, u)[1])
    names, program = prover.paths

    def candidates() -> Iterator[Candidate]:
        for k, name in enumerate(names[:EQUATIONS]):
            g = stage.run(program, np.int32(k), *operands)
            yield f"lacks a term: the derivative through `{name}` is missing, as if stopped", g[i]

    return first_fit(e.got, candidates(), 4 * e.tolerance)


def _as_it_came(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    same = (x for x in e.u or () if x.shape == e.got.shape)
    return first_fit(e.got, (("is the output's cotangent as it came", x) for x in same), 4 * e.tolerance)


def _precision(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    """Right to a few digits, with a narrower dtype among the rule's equations."""
    size = np.abs(e.want).max(initial=0.0)
    off = np.abs(e.got - e.want).max(initial=0.0) / (size or 1.0)
    stage = prover.sharp
    with stage.precision():
        eps = narrowest(stage.rule, *stage.given())
    names = {2.0**-7: "bfloat16", 2.0**-10: "float16", 2.0**-23: "float32"}
    if eps > stage.resolution / 2 and off < 32 * eps and eps in names:
        return f"is right to {off:.0e} only: it is rounded to {names[eps]} on the way"
    return ""


ATTEMPTS = (
    _how_it_scales, _entries, _inputs, _options, _paths, _as_it_came, _precision, _not_linear, _pattern,
)  # fmt: skip
