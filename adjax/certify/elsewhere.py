"""The adjoint identity away from the given point: at other values, at other sizes, and in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .diagnosis import diagnose
from .judge import Prover, Record
from .oracles import subgradient
from .plain import COLUMNS, reason
from .probes import Numbers, axis_sizes, dense, generator, points, resized
from .stage import rounded
from .subject import Arrays, Leaf, Outputs, Subject

KINKED = ("tied", "all equal", "zero")      # points where a perturbation crosses a kink
LONG = 4096                                 # the length of a stretched reduction
LARGEST = 2**22                             # and the number of elements that it may take


def other_points(prover: Prover, record: Record) -> None:
    """At other values of the arguments: near by, saturated, tiny, tied, zero, offset; masks and integers too."""
    kinks: set[str] = set()
    half = any(map(_is_half, prover.subject.active))                # that law looks at these points in its dtype
    _at_points(prover, record, kinks, slice(0, 1) if half else slice(None))
    if kinks:
        record.note = f"another subgradient than autodiff's at: {', '.join(sorted(kinks))}"


def _at_points(prover: Prover, record: Record, kinks: set[str], stages: slice) -> None:
    s = prover.subject
    for name, active, passive in points(s.active, s.passive, s.values, prover.seed, prover.domain):
        u = dense(s.outputs, prover.seed, f"point {name}")
        _at(prover, record, name, active, passive, u, kinks, stages)


def _at(
    prover: Prover,
    record: Record,
    name: str,
    active: Numbers,
    passive: Arrays,
    u: Numbers,
    kinks: set[str],
    stages: slice = slice(None),
) -> None:
    active = rounded(prover.subject.active, active)
    blamed = {f.argument for f in record.findings}
    kinked = any(word in name for word in KINKED)
    for outputs, cotangents in list(prover.errors(active, passive, u, kinked))[stages]:
        for e in record.see(outputs):
            if e.leaf.name not in blamed:
                record.blame(e, f"the output at another point ({name})", diagnose(prover, e))
        for e in record.see(cotangents):
            if subgradient(prover, active, passive, e, prover.seed):
                kinks.add(name)
            elif e.leaf.name not in blamed:
                record.blame(e, f"at another point ({name})", diagnose(prover, e, at=(active, passive)))
                blamed.add(e.leaf.name)


def other_sizes(prover: Prover, record: Record) -> None:
    """At other sizes of every axis: one less, one, none. Sizes that the primal refuses are passed over."""
    s = prover.subject
    kinks: set[str] = set()
    refused = []
    for old in axis_sizes((*s.active, *s.passive)):
        for new in dict.fromkeys((old - 1, 1, 0)):
            label = f"axes of size {old} made {new}"
            smaller = reshaped(prover, old, new, sharp_only=True)
            if isinstance(smaller, str):
                refused.append(f"{old}→{new}: {smaller}")
                continue
            if smaller.fails:
                record.holds(False, "", f"{label}: the primal works and the rule fails: {smaller.fails}",
                             f"the rule fails where its primal works ({label})")
                continue
            u = dense(smaller.subject.outputs, prover.seed, label)
            before = len(record.findings)
            _at(smaller, record, label, smaller.base, smaller.passive, u, kinks)
            if len(record.findings) > before:
                return
    if kinks or refused:
        met = f"kinks met at: {', '.join(sorted(kinks))}"
        record.note = met if kinks else f"{len(refused)} sizes refused by the primal"


def reshaped(prover: Prover, old: int, new: int, sharp_only: bool = False) -> Prover | str:
    """A prover of the same function where every axis of one size has another, or why the primal does not take it."""
    key = (old, new, sharp_only)
    if key not in prover.resized:
        prover.resized[key] = _reshaped(prover, old, new, sharp_only)
    found = prover.resized[key]
    return found if isinstance(found, str) else found.reseeded(prover.seed)


def _reshaped(prover: Prover, old: int, new: int, sharp_only: bool) -> Prover | str:
    s = prover.subject
    active = resized(s.active, prover.base, old, new)
    passive = resized(s.passive, prover.passive, old, new)
    narrow = tuple(np.asarray(x).astype(leaf.dtype) for leaf, x in zip(s.active, active, strict=True))
    try:
        out = jax.eval_shape(s.leaf_form(s.fun), narrow, passive)
    except Exception as error:
        return reason(error)
    if len(out.floating) != len(s.outputs):
        return "it returns other outputs"
    found = prover.at(resized_subject(s, narrow, passive, out), sharp_only)
    stage = found.sharp
    found.fails = stage.works(stage.compared, *stage.given())
    refused = stage.works(stage.plain_rule, *stage.given()) if found.fails else ""
    return f"its reference cannot be differentiated: {refused}" if refused else found


def resized_subject(s: Subject, active: Arrays, passive: Arrays, out: Outputs) -> Subject:
    """The subject at arguments of other shapes."""

    def like(leaves: tuple[Leaf, ...], values: Any) -> tuple[Leaf, ...]:
        return tuple(leaf._replace(shape=tuple(x.shape)) for leaf, x in zip(leaves, values, strict=True))

    return Subject(**{
        **s.__dict__, "active": like(s.active, active), "passive": like(s.passive, passive),
        "values": (active, passive), "outputs": like(s.outputs, out.floating),
        "other_outputs": like(s.other_outputs, out.others),
    })  # fmt: skip


def half_precision(prover: Prover, record: Record) -> None:
    """In bfloat16 or float16: saturated and offset inputs, and every reduction stretched to 4096 terms or more."""
    s = prover.subject
    if not any(_is_half(leaf) for leaf in s.active):
        record.note = "no argument is in half precision"
        return
    kinks: set[str] = set()
    _at_points(prover, record, kinks, slice(1, 2))
    if prover.sharp.means != "vjp":
        record.note = "long reductions are not looked at: the reference has no vjp"
    for name, prover_here in _stretched(prover):
        rng = generator(prover.seed, "half", name)
        here = prover_here.subject
        u = tuple(x + 1.0 for x in dense(here.outputs, prover.seed, name))
        active = tuple(
            prover.domain.hold(leaf, x + 0.5 * np.abs(rng.standard_normal(x.shape)) * _rms(x))
            for leaf, x in zip(here.active, prover_here.base, strict=True)
        )
        _at(prover_here, record, name, active, prover_here.passive, u, kinks)


def _stretched(prover: Prover) -> Iterator[tuple[str, Prover]]:
    s = prover.subject
    largest = LARGEST if prover.sharp.means == "vjp" else COLUMNS
    yield "coherent cotangent", prover
    for n in axis_sizes((*s.active, *s.passive)):
        longer = LONG * n // np.gcd(LONG, n) if n < 64 else -(-LONG // n) * n
        longer = min(longer, -(-LONG // n) * n)
        elements = sum(int(np.prod([longer if m == n else m for m in leaf.shape])) for leaf in s.active)
        if elements <= largest and not isinstance(stretched := reshaped(prover, n, longer), str):
            outputs = sum(int(np.prod(y.shape)) for y in stretched.subject.outputs)
            if outputs <= LARGEST:
                yield f"axes of size {n} made {longer}", stretched


def _is_half(leaf: Leaf) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, np.floating)) and leaf.dtype.itemsize < 4


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(x) ** 2))) if x.size else 1.0

