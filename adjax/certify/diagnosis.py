"""What is wrong, in one sentence with its evidence.

The wrong array is fitted to transforms of the right one: first of its entries (`transforms`), then of what went into
it: the rule at altered cotangents, the reference at altered options, the reference with one derivative withheld.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..adjoint.undecorated import narrowest, withheld
from .alternatives import altered, other_masks, other_options
from .plain import reverse
from .transforms import Candidate, first_fit, fits, pattern, pointwise, rearranged, reductions, scale, spread

if TYPE_CHECKING:
    from .compare import Error
    from .judge import Prover
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


def _options(prover: Prover, e: Error, linear: Any, at: Any, also: Any) -> str:
    """The reference at other values of its options."""
    s, stage = prover.subject, prover.sharp

    def candidates() -> Iterator[Candidate]:
        for words, passive in other_masks(prover, at[1]):
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
