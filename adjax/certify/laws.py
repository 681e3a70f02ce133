"""The laws at the given point: structure, forward, linear, adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from .compare import compare
from .diagnosis import diagnose
from .judge import Prover, Record
from .oracles import ORACLES, Opinion, difference_opinions, jvp_opinions, subgradient, transpose_opinions
from .plain import reason
from .probes import Numbers, dense
from .stage import rounded


def runs(prover: Prover, record: Record) -> bool:
    """Whether the rule can be differentiated in reverse at all."""
    said = prover.user.works(prover.user.rule, *prover.user.given())
    record.holds(not said, "", f"jax.vjp of {prover.subject.name} fails: {said}", "the rule is refused by JAX")
    return not said


def structure(prover: Prover, record: Record) -> None:
    """The rule returns a cotangent of its primal's shape and dtype for every leaf."""
    s = prover.subject
    _, g = jax.eval_shape(prover.user.rule, *prover.user.given())
    for leaf, ct in zip(s.active, g, strict=True):
        record.holds((ct.shape, ct.dtype) == (leaf.shape, leaf.dtype), leaf.name,
                     f"the cotangent of {leaf} is {ct.dtype}{list(ct.shape)}")
    if s.rule is not None:
        _raw_rule(prover, record)
    else:
        record.note = "no rule is exposed: what JAX made of it is judged"


def _raw_rule(prover: Prover, record: Record) -> None:
    """What the backward rule returns before JAX fills it up, replicates and casts it."""
    s = prover.subject
    args = s.assemble(*s.values)
    static = sorted(s.rule.nondiff_argnums)
    returned: list[Any] = []

    def run(active: Sequence[Any], passive: Sequence[Any]) -> Any:
        given = s.assemble(active, passive)
        if s.rule.symbolic_zeros:
            given = tuple(x if i in static else jax.tree.map(lambda v: CustomVJPPrimal(v, True), x)
                          for i, x in enumerate(given))
        y, residuals = s.rule.fwd(*given)
        u = jax.tree.map(_cotangent, y)
        returned.append(jax.tree.map(_described, s.rule.bwd(*(args[i] for i in static), residuals, u), is_leaf=_empty))
        return y

    try:
        y = jax.eval_shape(run, *s.values)
    except Exception as error:
        record.note = f"the rule cannot be called by itself: {reason(error)}"
        return
    _forward_types(prover, record, y)
    dynamic = [i for i in range(len(args)) if i not in static]
    if not isinstance(returned[0], (tuple, list)) or len(returned[0]) != len(dynamic):
        record.holds(False, "", f"the backward rule returns {type(returned[0]).__name__}, not a tuple of "
                                f"{len(dynamic)} cotangents")
        return
    for i, ct in zip(dynamic, returned[0], strict=True):
        leaves = [leaf for leaf in (*s.active, *s.passive) if leaf.position == i]
        _cotangents_of(prover, record, leaves, args[i], ct)


def _empty(x: Any) -> bool:
    return x is None or isinstance(x, SymbolicZero)


def _described(x: Any) -> Any:
    """The type of what a rule returned; zeros without arrays stay as they are."""
    return x if _empty(x) or isinstance(x, np.ndarray) else jax.typeof(x)


def _cotangent(y: Any) -> Any:
    y = jnp.asarray(y)
    return jnp.zeros_like(y) if jnp.issubdtype(y.dtype, np.inexact) else np.zeros(y.shape, jax.dtypes.float0)


def _forward_types(prover: Prover, record: Record, y: Any) -> None:
    """The forward rule returns what the primal returns, weak types included."""
    s = prover.subject
    want = jax.eval_shape(lambda a, p: s.rule.fun(*s.assemble(a, p)), *s.values)
    record.holds(jax.tree.structure(y) == jax.tree.structure(want), "",
                 f"the forward rule returns {jax.tree.structure(y)}, the primal {jax.tree.structure(want)}")
    for got, expected in zip(jax.tree.leaves(y), jax.tree.leaves(want), strict=False):
        same = (got.shape, got.dtype) == (expected.shape, expected.dtype)
        record.holds(same, "", f"the forward rule returns {got.dtype}{list(got.shape)}, the primal "
                               f"{expected.dtype}{list(expected.shape)}")
        if same and getattr(got, "weak_type", False) != getattr(expected, "weak_type", False):
            prover.warnings.append("the forward rule's output and the primal's differ in weak type")


def _cotangents_of(prover: Prover, record: Record, leaves: Sequence[Any], primal: Any, ct: Any) -> None:
    """One argument: what was returned for it, leaf by leaf."""
    structure = jax.tree.structure(primal)
    if structure.num_leaves > 1 and hasattr(ct, "shape"):
        record.holds(False, leaves[0].name.split(".")[0].split("[")[0],
                     f"one array {ct.dtype}{list(ct.shape)} is returned for a pytree of {structure.num_leaves} leaves",
                     f"one array is broadcast over {structure.num_leaves} leaves: return a pytree like the primal")
        return
    found = jax.tree.leaves(ct, is_leaf=_empty)
    primals = jax.tree.leaves(primal, is_leaf=lambda x: x is None)
    found = [None] * len(primals) if _empty(ct) else found
    if len(found) != len(primals):
        record.note = f"{len(found)} cotangents are returned for the {len(primals)} leaves of an argument"
        return
    arrays = [c for c, x in zip(found, primals, strict=True) if hasattr(x, "shape")]
    for leaf, c in zip(leaves, arrays, strict=False):
        if leaf in prover.subject.active:
            _cotangent_of(prover, record, leaf, c)


def _cotangent_of(prover: Prover, record: Record, leaf: Any, c: Any) -> None:
    i = prover.subject.active.index(leaf)
    if _empty(c):
        zero = all(not pair.plain.g[i].any() for pair in prover.base_pairs.values())
        record.holds(zero, leaf.name, f"None is returned for {leaf}, whose derivative is not zero",
                     f"the cotangent of {leaf.name} is zero: the rule returns None for an active argument")
        return
    dtype, shape = c.dtype, tuple(c.shape)
    same = shape == leaf.shape and (dtype == leaf.dtype or getattr(c, "weak_type", False))
    record.holds(same, leaf.name, f"the rule returns {dtype}{list(shape)} for {leaf}",
                 "" if dtype == leaf.dtype else f"the cotangent is {dtype} where its primal is {leaf.dtype}")


def forward(prover: Prover, record: Record) -> None:
    """The forward rule's values, the function's values outside of differentiation, and the reference's agree."""
    s, stage = prover.subject, prover.sharp
    wrong = record.see(e for outputs, _ in prover.base_errors for e in outputs)
    for e in wrong:
        record.blame(e, "the forward rule differs from the primal", diagnose(prover, e))
    prover.forward_holds = not wrong
    if not wrong:
        value = stage.run(stage.value, *stage.given()[:2])
        own = next(iter(prover.base_pairs.values())).rule
        for e in record.see(prover.close(s.outputs, value.floating, own.y)):
            record.blame(e, "the function differs from its own forward rule", diagnose(prover, e))


def linear(prover: Prover, record: Record) -> None:
    """bwd(0) = 0, bwd(-u) = -bwd(u), bwd(2ᵏ u) = 2ᵏ bwd(u), bwd(u + w) = bwd(u) + bwd(w)."""
    s = prover.subject
    u, w = (tuple(np.round(8 * x) / 8 for x in dense(s.outputs, prover.seed, f"linear {k}")) for k in range(2))
    narrow = any(y.dtype == np.float16 for y in s.outputs)
    for stage in dict.fromkeys((prover.sharp, prover.user)):
        powers = (4, -4) if narrow else (40, -40) if stage is prover.sharp else (20, -20)

        def bwd(*terms: Numbers, stage: Any = stage) -> Numbers:
            total = tuple(sum(parts) for parts in zip(*terms, strict=True))
            return stage.own(prover.base, prover.passive, total).g

        bu, bw = bwd(u), bwd(w)
        dtype = "float64" if stage.twin else str(s.active[0].dtype)

        def tell(got: Numbers, want: Numbers, law: str, scale: float = 1.0, stage: Any = stage, dtype: str = dtype,
                 bwd: Any = bwd) -> None:
            tolerances = prover.tolerances(s.active, want, stage.resolution, scale)
            for e in record.see(compare(s.active, got, want, tolerances, u=u, dtype=dtype)):
                prover.linear_holds = False
                record.blame(e, law, diagnose(prover, e, linear=bwd))

        zero = tuple(0.0 * x for x in u)
        tell(bwd(zero), tuple(0.0 * x for x in bu), "bwd(0) is not 0", scale=0.0)
        tell(bwd(tuple(-x for x in u)), tuple(-x for x in bu), "bwd(-u) is not -bwd(u)")
        for k in powers:
            scaled = bwd(tuple(2.0**k * x for x in u))
            tell(scaled, tuple(2.0**k * x for x in bu), f"bwd(2^{k} u) is not 2^{k} bwd(u)", scale=2.0**k)
        if stage is prover.sharp:
            tell(bwd(u, w), tuple(a + b for a, b in zip(bu, bw, strict=True)), "bwd(u + w) is not bwd(u) + bwd(w)")


def adjoint(prover: Prover, record: Record) -> tuple[list[Opinion], bool]:
    """g = Jᵀ u for every cotangent, by four oracles.

    Returns:
        The oracles' opinions, and whether the law holds.
    """
    s = prover.subject
    wrong = record.see(e for _, cotangents in prover.base_errors for e in cotangents)
    kinks = [e for e in wrong if subgradient(prover, prover.base, prover.passive, e, prover.seed)]
    for e in wrong:
        if e not in kinks:
            record.blame(e, "", diagnose(prover, e))
    if kinks:
        record.note = f"a kink at the given point: another subgradient of {kinks[0].leaf.name} than autodiff's"
    probes = {name: (rounded(s.outputs, u), prover.base_pairs[name].rule.g) for name, u in prover.cotangents.items()}
    opinions = [Opinion("vjp", i, not any(e.leaf == leaf for e in wrong)) for i, leaf in enumerate(s.active)]
    departs = "forward" in prover.waived and not prover.forward_holds       # differences are of its own values
    differences = () if departs else (difference_opinions,)
    for oracle in (jvp_opinions, transpose_opinions, *differences):
        opinions += oracle(prover, probes)
    blamed = {f.argument for f in record.findings}
    for o in opinions:
        leaf = s.active[o.leaf]
        record.checks += o.agrees is not None
        if o.agrees is False and leaf.name not in blamed and not kinks:
            record.holds(False, leaf.name, f"oracle `{o.oracle}` dissents: relative error {o.measured:.2g} where "
                         f"{o.tolerance:.2g} is explained", _dissent(o, prover))
            blamed.add(leaf.name)
    if silent := [f"{name}: {o.note}" for name in ORACLES for o in opinions if o.oracle == name and o.note][:1]:
        record.note = record.note or silent[0]
    return opinions, not record.findings


def _dissent(o: Opinion, prover: Prover) -> str:
    if o.oracle != "differences":
        return ""
    what = "reference" if prover.subject.given_reference else "primal"
    return (
        f"the slope of the function's own values differs from its {what}'s derivative too: "
        f"a stop_gradient in the {what}, or a {what} that is another function"
    )
