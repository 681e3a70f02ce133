"""Comparison of a rule's results with the reference's: errors, tolerances, and what is recorded of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adjoint.undecorated import equations
from .certificate import Finding, Row, Verdict, is_waived
from .compare import Error, compare
from .probes import Domain, Numbers, cotangents, widened
from .stage import Pair, Result, Stage, distance, largest, rounded
from .subject import Arrays, Leaf, Subject

SHARP = 128.0       # how many noise floors the twin may be off: reorderings of sums stay far below
HALF = 16.0         # the same in half precision, whose noise floor is measured against the twin
FLOAT32 = float(np.finfo(np.float32).eps)


@dataclass
class Record:
    """What is noted while a law is checked in a context."""

    law: str
    context: str = ""
    checks: int = 0
    worst: float = 0.0
    note: str = ""
    verdict: Verdict | None = None
    findings: list[Finding] = field(default_factory=list)

    def see(self, errors: Iterable[Error]) -> list[Error]:
        """Counts comparisons; returns those that are wrong, the first of each leaf."""
        wrong: dict[str, Error] = {}
        for e in errors:
            self.checks += 1
            self.worst = max(self.worst, e.ratio)
            if e.wrong:
                wrong.setdefault(e.leaf.name, e)
        return list(wrong.values())

    def holds(self, truth: bool, argument: str, message: str, diagnosis: str = "") -> None:
        """Counts a yes-or-no check."""
        self.checks += 1
        if not truth:
            self.worst = np.inf
            self.findings.append(Finding(self.law, argument, self.context, message, diagnosis))

    def blame(self, e: Error, where: str, diagnosis: str) -> None:
        """Makes a finding of an error."""
        measured, tolerance = (x / e.scale if e.scale else x for x in (e.error, e.tolerance))
        message = f"{where}: {e.message()}" if where else e.message()
        self.findings.append(Finding(self.law, e.leaf.name, self.context, message, diagnosis, measured, tolerance))

    def set(self, verdict: Verdict, note: str) -> None:
        """A verdict that no comparison gave."""
        self.verdict, self.note = verdict, note

    def row(self, waived: Sequence[str] = ()) -> Row:
        """The line of the table."""
        verdict = self.verdict or (Verdict.REFUTED if self.findings else Verdict.PROVEN)
        if self.findings and all(is_waived(f.law, f.context, waived) for f in self.findings):
            verdict = Verdict.WAIVED
        if verdict is Verdict.PROVEN and not self.checks:
            verdict = Verdict.SKIPPED
        return Row(self.law, self.context, verdict, self.checks, self.worst, self.note)


class Prover:
    """A subject in both precisions, and the comparisons that every law makes.

    Attributes:
        user: the stage in the user's dtypes.
        twin: the float64 stage; the user's where that is in float64, or where a prover at other sizes has none.
        sharp: the twin, or the user's stage where the function does not run in float64.
        why_no_twin: the reason of the latter.
    """

    user: Stage
    twin: Stage
    why_no_twin: str
    meshes: dict[str, int]
    waived: tuple[str, ...] = ()        # laws and contexts from which the function departs deliberately
    fails: str = ""                     # why the rule cannot be traced at these shapes

    def __init__(
        self, subject: Subject, seed: int, domain: Domain, like: Prover | None = None, sharp_only: bool = False
    ) -> None:
        self.subject, self.seed, self.domain, self.sharp_only = subject, seed, domain, sharp_only
        leaves = (*subject.active, *subject.outputs)
        self.user = Stage(subject, False, like.user if like else None)
        self.wide_already = all(np.dtype(leaf.dtype) in (np.dtype(float), np.dtype(complex)) for leaf in leaves)
        alone = self.wide_already or bool(like and like.why_no_twin)
        self.twin = self.user if alone else Stage(subject, True, like.twin if like else None)
        self.why_no_twin = like.why_no_twin if like else "" if self.wide_already else self._why_no_twin()
        self.sharp = self.user if self.why_no_twin else self.twin
        self.base = tuple(map(widened, subject.values[0]))
        self.passive = subject.values[1]
        self.meshes = like.meshes if like else self._meshes()
        self.paths: Any = None          # of the diagnosis: the reference with derivatives withheld, once compiled
        self.resized: dict[Any, Prover | str] = {}
        self.typical = [0.0] * len(subject.active)
        self._forget()

    def _forget(self) -> None:
        """Starts afresh: nothing is known of the rule yet."""
        self.warnings: list[str] = []
        self.trusted = False            # whether the adjoint law was found to hold
        self.linear_holds = True        # whether the law of linearity was
        self.forward_holds = True       # whether the function's values are the reference's
        self.cotangents: dict[str, Numbers] = {}
        self.base_pairs: dict[str, Pair] = {}
        self.base_errors: list[tuple[list[Error], list[Error]]] = []
        self.floors: dict[Leaf, float] = {}

    def reseeded(self, seed: int) -> Prover:
        """The same prover with other probes; what is compiled is shared."""
        other = copy.copy(self)
        other.seed = seed
        other._forget()
        return other

    def _why_no_twin(self) -> str:
        said = self.twin.works(self.twin.rule, *self.twin.given())
        return said or ("" if self.twin.means else self.twin.why)

    def _meshes(self) -> dict[str, int]:
        """Names and sizes of the mesh axes that occur inside the function."""
        with self.user.precision():
            jaxpr = jax.make_jaxpr(self.user.form)(*self.user.given()[:2])
        found: dict[str, int] = {}
        for equation in equations(jaxpr):
            axes = getattr(equation.params.get("mesh"), "shape", {})
            found |= {str(name): int(size) for name, size in axes.items()}
        return found

    def at(self, subject: Subject, sharp_only: bool = False) -> Prover:
        """The same function at arguments of other shapes."""
        other = Prover(subject, self.seed, self.domain, self, sharp_only)
        other.typical = self.typical
        return other

    def errors(
        self, active: Sequence[Any], passive: Arrays, u: Numbers, kinked: bool = False
    ) -> Iterator[tuple[list[Error], list[Error]]]:
        """Errors of the outputs and of the cotangents at a point, in each precision."""
        active, u = rounded(self.subject.active, active), rounded(self.subject.outputs, u)
        pair = self.sharp.both(active, passive, u)
        moves = self.sharp.moves((active, passive, u), pair.plain, self.seed, kinked)
        floors = self.sharp.floors((active, passive, u), pair.plain, moves, self.typical)
        yield self._against(pair.rule, pair.plain, floors, SHARP, u, "" if self.why_no_twin else "float64")
        if self.user is not self.sharp and not self.sharp_only:
            yield self._in_user_dtype((active, passive, u), pair.plain, moves, floors)

    def _in_user_dtype(
        self, operands: tuple[Numbers, Arrays, Numbers], truth: Result, moves: Result, floors: Result
    ) -> tuple[list[Error], list[Error]]:
        """Against the twin, whose distance from the reference in the user's dtype is the noise floor here."""
        pair, eps = self.user.both(*operands), self.user.resolution
        half = eps > 1e-4
        coarser = (FLOAT32 if half else eps) / self.sharp.resolution / 4.0
        known, here = [], []
        for plain, wide, move, floor in zip(
            (*pair.plain.y, *pair.plain.g), (*truth.y, *truth.g), (*moves.y, *moves.g), (*floors.y, *floors.g),
            strict=True,
        ):  # fmt: skip
            measured = distance(plain, wide)
            another = not half and largest(measured) > 0.3 * largest(wide)             # other random bits in float64
            known.append(plain if another else np.where(np.isfinite(plain), wide, np.nan))
            entries = np.maximum(0.0 if another else measured, eps * np.abs(wide))
            beside = coarser * max(largest(move), float(floor))                     # a float32 sum's, in half precision
            leaf = max(largest(entries), beside)
            here.append(_rowwise(np.maximum(entries, beside), leaf) if half else np.asarray(leaf))
        k = len(truth.y)
        dtype = ", ".join(dict.fromkeys(str(leaf.dtype) for leaf in self.subject.active))
        expected = Result(tuple(known[:k]), truth.others, tuple(known[k:]))
        noise = Result(tuple(here[:k]), (), tuple(here[k:]))
        return self._against(pair.rule, expected, noise, HALF if half else SHARP, operands[2], dtype)

    def _against(
        self, rule: Result, plain: Result, floors: Result, factor: float, u: Numbers, dtype: str
    ) -> tuple[list[Error], list[Error]]:
        s = self.subject
        dtype = dtype or str(s.active[0].dtype)
        forward = compare(s.outputs, rule.y, plain.y, [factor * f for f in floors.y], dtype=dtype)
        adjoint = compare(s.active, rule.g, plain.g, [factor * f for f in floors.g], u=u, dtype=dtype)
        others = zip(s.other_outputs, rule.others, plain.others, strict=True)
        forward += [Error(y, float(not _same(a, b)), 0.0, 1.0, (), a, b, dtype=dtype) for y, a, b in others]
        return forward, adjoint

    def own(self, active: Sequence[Any], passive: Arrays, u: Sequence[Any]) -> Result:
        """The rule's own results, in the sharper precision."""
        return self.sharp.own(active, passive, u)

    def prepare(self) -> None:
        """Everything at the given point: results, errors, and the noise floor of the rule compared with itself."""
        s = self.subject
        self.cotangents = cotangents(s.outputs, self.seed)
        for name, u in self.cotangents.items():
            self.base_pairs[name] = self.sharp.both(self.base, self.passive, rounded(s.outputs, u))
        self.typical = [largest(g) for g in next(iter(self.base_pairs.values())).plain.g]
        self.base_errors = [e for u in self.cotangents.values() for e in self.errors(self.base, self.passive, u)]
        noises = [self._floors(name) for name in self.cotangents if name.startswith("random")]
        for leaves, floors in ((s.outputs, [n.y for n in noises]), (s.active, [n.g for n in noises])):
            self.floors |= {leaf: max(map(float, seen)) for leaf, *seen in zip(leaves, *floors, strict=True)}

    def _floors(self, name: str) -> Result:
        """The noise floor of the cotangents of that name at the given point."""
        u, at = rounded(self.subject.outputs, self.cotangents[name]), self.base_pairs[name].plain
        operands = (self.base, self.passive, u)
        return self.sharp.floors(operands, at, self.sharp.moves(operands, at, self.seed, False), self.typical)

    @property
    def base_values(self) -> Numbers:
        """The outputs at the given point."""
        return next(iter(self.base_pairs.values())).rule.y

    def tolerances(
        self, leaves: Sequence[Leaf], want: Sequence[Any], eps: float = 0.0, scale: float = 1.0
    ) -> list[float]:
        """What rounding explains between two of the rule's own results; `scale` is that of the cotangent."""
        eps = max(eps, self.sharp.resolution)
        coarser = eps / self.sharp.resolution
        sizes = [largest(widened(w)) for w in want]
        return [
            SHARP * max(4 * eps * size, coarser * scale * self.floors.get(leaf, 0.0))
            for leaf, size in zip(leaves, sizes, strict=True)
        ]

    def close(self, leaves: Sequence[Leaf], got: Sequence[Any], want: Sequence[Any], u: Any = None) -> list[Error]:
        """Two of the rule's own results, which must agree to rounding."""
        return compare(leaves, got, want, self.tolerances(leaves, want), u=u, dtype=self.sharp_dtype)

    @property
    def sharp_dtype(self) -> str:
        return str(self.subject.active[0].dtype) if self.why_no_twin else "float64"


def _rowwise(entries: np.ndarray, leaf: float) -> np.ndarray:
    """Noise by rows: in half precision a row of small entries beside one of large ones is judged by itself."""
    rows = np.max(entries, axis=-1, keepdims=True, initial=0.0) if entries.ndim > 1 else np.asarray(leaf)
    return np.maximum(rows, 1e-3 * leaf)


def _same(a: Any, b: Any) -> bool:
    if jnp.issubdtype(a.dtype, np.integer) or a.dtype == bool:
        return a.shape == b.shape and bool(np.array_equal(a, b))
    return bool(a.shape == b.shape and a.dtype == b.dtype)
