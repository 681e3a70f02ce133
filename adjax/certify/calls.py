"""Laws about ways of calling: subsets of arguments, other modes, second order, purity; and what is kept in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .certificate import Residual, Verdict
from .compare import compare
from .diagnosis import diagnose
from .judge import Prover, Record
from .oracles import pushforward
from .plain import pairing, pull, reason, reverse
from .probes import Numbers, dense, nearby
from .stage import rounded
from .subject import Arrays

SUBSETS = 12        # how many subsets of the arguments are tried


def subsets(prover: Prover, record: Record) -> None:
    """Whatever subset of the arguments is differentiated, the cotangents are the same; each output may come alone."""
    s, stage = prover.subject, prover.sharp
    if len(s.active) == len(s.outputs) == 1:
        record.note = "one argument, one output"
        return
    u = dense(s.outputs, prover.seed, "subsets")
    operands = stage.operands(prover.base, prover.passive, u)
    y, full = prover.own(prover.base, prover.passive, u)[::2]
    for chosen in _some_subsets(len(s.active)):
        names = ", ".join(s.active[i].name for i in chosen)
        try:
            value, got = stage.run(stage.compiled(f"subset {chosen}", _partial_vjp(stage.form, chosen)), *operands)
        except Exception as error:
            record.holds(False, names, f"jax.vjp with respect to {names} alone fails: {reason(error)}")
            continue
        for e in record.see(prover.close(s.outputs, value, y)):
            record.blame(e, f"where {names} alone is differentiated", diagnose(prover, e))
        leaves = [s.active[i] for i in chosen]
        for e in record.see(prover.close(leaves, got, [full[i] for i in chosen], u)):
            record.blame(e, f"where {names} alone is differentiated", diagnose(prover, e))
    if len(s.outputs) > 1:
        _outputs_alone(prover, record)


def _some_subsets(n: int) -> list[tuple[int, ...]]:
    """All proper subsets where there are few; single leaves and their complements otherwise."""
    everything = [c for k in range(1, n) for c in itertools.combinations(range(n), k)]
    if len(everything) <= SUBSETS:
        return everything
    singles = [(i,) for i in range(n)]
    complements = [tuple(j for j in range(n) if j != i) for i in range(n)]
    return [*singles[: SUBSETS // 2], *complements[: SUBSETS // 2]]


def _partial_vjp(form: Callable[..., Any], chosen: Sequence[int]) -> Callable[..., Any]:
    def vjp(active: Arrays, passive: Arrays, u: Arrays) -> tuple[Arrays, Arrays]:
        def of_chosen(*some: Any) -> Arrays:
            full = dict(enumerate(active)) | dict(zip(chosen, some, strict=True))
            return form(tuple(full[i] for i in range(len(active))), passive).floating

        y, back = jax.vjp(of_chosen, *(active[i] for i in chosen))
        return y, pull(back, y, u)

    return vjp


def _outputs_alone(prover: Prover, record: Record) -> None:
    """One output, the others unused: their cotangents are symbolic zeros."""
    s, stage = prover.subject, prover.sharp
    for j, output in enumerate(s.outputs):
        def alone(active: Arrays, passive: Arrays, u: Arrays, j: int = j) -> Arrays:
            y, back = jax.vjp(lambda *z: stage.form(z, passive).floating[j], *active)
            return pull(lambda u: back(*u), (y,), (u[j],))

        u = tuple(x if k == j else 0.0 * x for k, x in enumerate(dense(s.outputs, prover.seed, "alone")))
        want = prover.own(prover.base, prover.passive, u).g
        got = stage.run(stage.compiled(f"output {j} alone", alone), *stage.operands(prover.base, prover.passive, u))
        for e in record.see(prover.close(s.active, got, want, u)):
            record.blame(e, f"where {output.name} alone is used", diagnose(prover, e))


def forward_mode(prover: Prover, record: Record) -> None:
    """J v by forward mode of the function itself: ⟨J v, u⟩ = ⟨v, bwd(u)⟩."""
    s, stage = prover.subject, prover.sharp
    v = dense(s.active, prover.seed, "tangent")
    operands = (stage.cast(s.active, prover.base), prover.passive, stage.cast(s.active, v))
    program = stage.compiled("jvp", pushforward(stage.form))
    plain = stage.compiled("plain jvp", pushforward(stage.plain_form))
    try:
        dy = stage.run(program, *operands)
        want = stage.run(plain, *operands) if stage.means in ("vjp", "jvp") else None
    except Exception as error:
        record.set(Verdict.UNSUPPORTED, reason(error))
        return
    if want is not None:
        for e in record.see(prover.close(s.outputs, dy, want)):
            record.blame(e, "jvp of the function, against the reference", diagnose(prover, e))
    for name, pair in prover.base_pairs.items():
        u = rounded(s.outputs, prover.cotangents[name])
        terms = [np.real(a * b) for a, b in ((*zip(dy, u, strict=True),))]
        pulled = [np.real(a * b) for a, b in zip(rounded(s.active, v), pair.rule.g, strict=True)]
        left, right = (sum(float(t.sum()) for t in side) for side in (terms, pulled))
        size = sum(float(np.sqrt((t**2).sum())) for t in (*terms, *pulled))
        slack = 64 * max(8 * stage.resolution * size, max(prover.floors.values()))
        if abs(left - right) > slack:
            message = f"forward and reverse mode disagree: ⟨J v, u⟩ = {left:.6g}, ⟨v, bwd(u)⟩ = {right:.6g}"
            record.holds(False, "", message, "the forward-mode rule is not the transpose of the backward rule")
            return
        record.checks += 1


def second_order(prover: Prover, record: Record) -> None:
    """H v of ⟨u, f⟩ through all four compositions of the two modes, against the reference's."""
    s, stage = prover.subject, prover.sharp
    u, v = dense(s.outputs, prover.seed, "second"), dense(s.active, prover.seed, "second")
    operands = (*stage.operands(prover.base, prover.passive, u), stage.cast(s.active, v))
    known = None
    for name, compose in COMPOSITIONS[:3]:
        try:
            known = stage.run(stage.compiled(f"plain {name}", compose(stage.plain_form)), *operands)
            break
        except Exception as error:
            record.note = f"the reference has no second derivative: {reason(error)}"
    unsupported = []
    for name, compose in COMPOSITIONS:
        try:
            got = stage.run(stage.compiled(name, compose(stage.form)), *operands)
        except Exception as error:
            unsupported.append(f"{name}: {reason(error)}")
            continue
        if known is None:
            known = got
        if name == "forward over forward":
            total = sum(float(np.real(a * b).sum()) for a, b in zip(known, rounded(s.active, v), strict=True))
            known_here, leaves = (np.asarray(total),), s.active[:1]
            leaves = (leaves[0]._replace(name="⟨v, H v⟩", shape=()),)
        else:
            known_here, leaves = tuple(known), s.active
        sizes = max(float(np.abs(k).max(initial=0.0)) for k in (*known, *known_here))
        tolerances = [64 * max(64 * stage.resolution * sizes, 8 * max(prover.floors.values()))] * len(leaves)
        for e in record.see(compare(leaves, got, known_here, tolerances, u=u, dtype=prover.sharp_dtype)):
            record.blame(e, f"second derivative, {name}", diagnose(prover, e))
    _by_cotangent(prover, record, operands)
    if len(unsupported) == len(COMPOSITIONS):
        record.set(Verdict.UNSUPPORTED, unsupported[0])
    elif unsupported:
        record.note = f"unsupported: {'; '.join(unsupported)}"


def _by_cotangent(prover: Prover, record: Record, operands: tuple[Arrays, Arrays, Arrays, Arrays]) -> None:
    """The backward rule differentiated with respect to the cotangent gives J v back."""
    stage = prover.sharp
    active, passive, _, v = operands

    def twice(a: Arrays, p: Arrays, u: Arrays, v: Arrays) -> Arrays:
        g, back = jax.vjp(lambda *w: reverse(stage.form)(a, p, w)[1], *u)
        return pull(back, g, v)

    try:
        got = stage.run(stage.compiled("by cotangent", twice), *operands)
        want = stage.run(stage.compiled("plain jvp", pushforward(stage.plain_form)), active, passive, v)
    except Exception:                                               # one of the modes is not supported, and said so
        return
    for e in record.see(prover.close(prover.subject.outputs, got, want)):
        record.blame(e, "the rule's derivative with respect to the cotangent is not J v", diagnose(prover, e))


def _reverse_over_reverse(form: Callable[..., Any]) -> Callable[..., Any]:
    def hvp(a: Arrays, p: Arrays, u: Arrays, v: Arrays) -> Arrays:
        return tuple(jax.vjp(lambda *x: reverse(form)(x, p, u)[1], *a)[1](tuple(v)))

    return hvp


def _forward_over_reverse(form: Callable[..., Any]) -> Callable[..., Any]:
    def hvp(a: Arrays, p: Arrays, u: Arrays, v: Arrays) -> Arrays:
        return jax.jvp(lambda *x: reverse(form)(x, p, u)[1], tuple(a), tuple(v))[1]

    return hvp


def _along(form: Callable[..., Any], p: Arrays, u: Arrays, v: Arrays) -> Callable[..., Any]:
    """x -> ⟨u, J(x) v⟩."""
    return lambda *x: pairing(jax.jvp(lambda *z: form(z, p).floating, tuple(x), tuple(v))[1], u)


def _reverse_over_forward(form: Callable[..., Any]) -> Callable[..., Any]:
    def hvp(a: Arrays, p: Arrays, u: Arrays, v: Arrays) -> Arrays:
        slope, back = jax.vjp(_along(form, p, u, v), *a)
        return tuple(back(jax.numpy.ones_like(slope)))

    return hvp


def _forward_over_forward(form: Callable[..., Any]) -> Callable[..., Any]:
    def curvature(a: Arrays, p: Arrays, u: Arrays, v: Arrays) -> Arrays:
        return (jax.jvp(_along(form, p, u, v), tuple(a), tuple(v))[1],)

    return curvature


COMPOSITIONS = (
    ("reverse over reverse", _reverse_over_reverse),
    ("forward over reverse", _forward_over_reverse),
    ("reverse over forward", _reverse_over_forward),
    ("forward over forward", _forward_over_forward),
)


def pure(prover: Prover, record: Record) -> None:
    """The same result twice, eagerly and compiled; and two interleaved calls keep their residuals apart."""
    s, stage = prover.subject, prover.sharp
    u = dense(s.outputs, prover.seed, "pure")
    elsewhere = nearby(s.active, prover.base, prover.seed, "pure", prover.domain)
    here, there = (stage.operands(x, prover.passive, u) for x in (prover.base, elsewhere))
    with stage.precision():
        first, second = (_eager(stage.form, here), _eager(stage.form, here))
        y, *backs = _interleaved(stage.form, here, there)
        apart = [jax.tree.map(np.asarray, pull(back, y, tuple(map(jax.numpy.asarray, here[2])))) for back in backs]
    compiled = prover.own(prover.base, prover.passive, u), prover.own(elsewhere, prover.passive, u)
    claims = (
        (second, first, "two equal calls differ", "the rule is not deterministic"),
        (first[1], compiled[0].g, "called eagerly it gives another cotangent than under jit", "eager and jit differ"),
        (apart[0], compiled[0].g, "a first call's cotangent, taken after a second call's forward pass",
         "residuals are shared between calls"),
        (apart[1], compiled[1].g, "a second call's cotangent, taken after the first one's",
         "residuals are shared between calls"),
    )  # fmt: skip
    leaves = (*s.outputs, *s.active)
    for got, want, message, diagnosis in claims:
        flat, expected = (jax.tree.leaves(x) for x in (got, want))
        for e in record.see(prover.close(leaves[-len(flat) :], flat, expected, u)):
            record.blame(e, message, diagnosis)
        if record.findings:
            return


def _pulled(form: Callable[..., Any], operands: tuple[Arrays, Arrays, Arrays]) -> tuple[Any, Any]:
    active, passive, _ = operands
    return jax.vjp(lambda *x: form(x, passive).floating, *map(jax.numpy.asarray, active))


def _interleaved(form: Callable[..., Any], here: Any, there: Any) -> tuple[Any, Any, Any]:
    """Two forward passes, whose backward passes are still to come."""
    y, back = _pulled(form, here)
    return y, back, _pulled(form, there)[1]


def _eager(form: Callable[..., Any], operands: tuple[Arrays, Arrays, Arrays]) -> tuple[Numbers, Numbers]:
    y, back = _pulled(form, operands)
    g = pull(back, y, tuple(map(jax.numpy.asarray, operands[2])))
    return tuple(map(np.asarray, y)), tuple(map(np.asarray, g))


def residuals(prover: Prover, record: Record) -> list[Residual]:
    """What the forward pass keeps; remarks where it is wider than any argument or more than all of them together."""
    s = prover.subject
    _, back = jax.eval_shape(lambda a, p: _residuals_of(prover.user.form, a, p), *s.values)
    kept = [
        Residual(f"residual[{i}]", tuple(x.shape), str(x.dtype), int(np.prod(x.shape)) * x.dtype.itemsize)
        for i, x in enumerate(back) if hasattr(x.dtype, "itemsize")
    ]  # fmt: skip
    given = [leaf for leaf in (*s.active, *s.passive) if isinstance(leaf.dtype, np.dtype)]
    held = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in given)
    total = sum(r.bytes for r in kept)
    widest = max(leaf.dtype.itemsize for leaf in s.active)
    for r in (r for r in kept if r.dtype.startswith(("float", "complex")) and np.dtype(r.dtype).itemsize > widest):
        prover.warnings.append(f"{r.name} {r.dtype}{list(r.shape)} is wider than every argument")
    if total > held:
        prover.warnings.append(f"the residuals ({total} bytes) are larger than all arguments together ({held} bytes)")
    record.checks = len(kept) or 1
    record.note = f"{len(kept)} array{'s' * (len(kept) != 1)}, {total} bytes; the arguments are {held} bytes"
    return kept


def _residuals_of(form: Callable[..., Any], active: Arrays, passive: Arrays) -> tuple[Any, list[Any]]:
    y, back = jax.vjp(lambda *x: form(x, passive).floating, *active)
    return y, jax.tree.leaves(back)

