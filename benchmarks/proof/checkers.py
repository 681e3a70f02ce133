"""A checker and a rule give an outcome: adjax by its certificates, the peers by what they raise."""

from __future__ import annotations

import functools
import importlib.metadata
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import jax

from adjax.certify.certificate import Certificate, Verdict
from adjax.certify.certify import certify_each
from benchmarks.proof import peers
from tests.certify.rules import Mutant, Rule


class Found(StrEnum):
    """What a checker makes of a rule."""

    REFUTED = "refuted"
    PASSED = "passed"
    ERROR = "error"                 # it raised something else than its verdict
    ABSENT = "absent"               # not installed, or it does not take such rules


@dataclass(frozen=True)
class Outcome:
    """One rule judged by one checker.

    Attributes:
        law, diagnosis: whether the law and the mistake were named; None where no one could.
        note: how often, or why not.
    """

    found: Found
    note: str = ""
    seconds: float = 0.0
    law: bool | None = None
    diagnosis: bool | None = None


@dataclass(frozen=True)
class Checker:
    """`judge(rule, dtype)` gives the outcome; `missing` says why it cannot be asked at all."""

    name: str
    short: str
    judge: Callable[[Rule, str], Outcome]
    missing: str = ""

    def __call__(self, rule: Rule, dtype: str) -> Outcome:
        """The outcome, with the time it took."""
        if self.missing:
            return Outcome(Found.ABSENT, self.missing)
        started = time.perf_counter()
        try:
            outcome = self.judge(rule, dtype)
        except Exception as error:
            outcome = Outcome(Found.ERROR, _first_line(error))
        return replace(outcome, seconds=time.perf_counter() - started)


def checkers(keys: int, wrong_keys: int, contexts: bool) -> list[Checker]:
    """adjax first, with so many keys, then the others; `contexts`: right rules are taken through all of them."""
    ours = functools.partial(certified, keys=keys, wrong_keys=wrong_keys, contexts=contexts)
    return [
        Checker("adjax", "adjax", ours),
        _peer("check_grads order 1", "grads 1", functools.partial(peers.gradients, order=1)),
        _peer("check_grads order 2", "grads 2", functools.partial(peers.gradients, order=2)),
        _peer("chex", "chex", peers.chex_gradients, library="chex"),
        _peer("dot test", "dot", peers.dot),
        _peer("torch gradcheck", "torch", peers.torch_gradcheck, library="torch", once=True),
    ]


def version(library: str) -> str:
    """Of what is installed, or nothing."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _peer(
    name: str, short: str, check: Callable[[Rule, str], None], library: str = "jax", once: bool = False
) -> Checker:
    """`once`: the checker has a dtype of its own, so a rule's outcome is the same for every dtype."""
    missing = "" if version(library) else f"{library} is not installed"
    judge = functools.partial(asserted, check)
    return Checker(name, short, _remembered(judge) if once else judge, missing)


def _remembered(judge: Callable[[Rule, str], Outcome]) -> Callable[[Rule, str], Outcome]:
    known: dict[str, Outcome] = {}

    def remembered(rule: Rule, dtype: str) -> Outcome:
        if rule.name not in known:
            known[rule.name] = judge(rule, dtype)
        return known[rule.name]

    return remembered


def asserted(check: Callable[[Rule, str], None], rule: Rule, dtype: str) -> Outcome:
    """The outcome of a checker that raises. What it computes itself may mix dtypes and warn."""
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        try:
            check(rule, dtype)
        except AssertionError as error:
            return Outcome(Found.REFUTED, _first_line(error))
        except peers.NotPorted as reason:
            return Outcome(Found.ABSENT, str(reason))
    return Outcome(Found.PASSED)


def certified(rule: Rule, dtype: str, *, keys: int, wrong_keys: int, contexts: bool) -> Outcome:
    """The outcome of `certify`: a wrong rule must be refuted with every key, a right one proven with every key."""
    wrong = isinstance(rule, Mutant)
    everywhere = bool(rule.context) if isinstance(rule, Mutant) else contexts
    options = {"contexts": None if everywhere else (), **rule.options}
    seeds = range(wrong_keys if wrong else keys)
    made = list(certify_each(rule.function(), *rule.at(dtype), keys=seeds, **options))
    if isinstance(rule, Mutant):
        good = [c.verdict is Verdict.REFUTED for c in made]
        named = {"law": all(names_law(rule, c) for c in made), "diagnosis": all(diagnoses(rule, c) for c in made)}
    else:
        good, named = [c.ok for c in made], {}
    said = "" if all(good) else _said(made, good)
    return Outcome(Found.REFUTED if all(good) == wrong else Found.PASSED, said, **named)


def names_law(mutant: Mutant, certificate: Certificate) -> bool:
    """Whether the law that the rule breaks is among those refuted, in the context where it breaks it."""
    return any(f.law == mutant.law and mutant.context in ("", f.context) for f in certificate.failures)


def diagnoses(mutant: Mutant, certificate: Certificate) -> bool:
    """Whether the mistake is said; False where it has no name."""
    phrase = mutant.diagnosis
    return phrase is not None and any(phrase.lower() in f.diagnosis.lower() for f in certificate.failures)


def _said(made: Sequence[Certificate], good: Sequence[bool]) -> str:
    """The keys that went wrong, and the first verdict or failure among them."""
    bad = [c for c, fine in zip(made, good, strict=True) if not fine]
    first: Any = bad[0]
    finding = f", {first.failures[0].law}: {first.failures[0].message}" if first.failures else ""
    return f"{first.verdict} with key {', '.join(str(c.seed) for c in bad)}{finding}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
