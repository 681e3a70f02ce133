"""`certify`: one call that proves a backward rule, or says what is wrong with it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from .calls import forward_mode, pure, residuals, second_order, subsets
from .certificate import AdjointError, Certificate, Finding, Power, Residual, Row, Verdict
from .contexts import contexts_of, examine
from .elsewhere import half_precision, other_points, other_sizes
from .errors import BadInput
from .judge import Prover, Record
from .laws import adjoint, forward, linear, runs, structure
from .oracles import Opinion
from .plain import reason
from .power import power
from .probes import Domain, seed_of
from .subject import subject

LAWS = (
    "structure", "forward", "linear", "adjoint", "points", "sizes", "subsets", "second order", "forward mode", "pure",
    "half precision", "residuals",
)  # fmt: skip
CONTEXTS = (
    "eager", "jit", "vmap", "vmap cotangents", "vmap of grad", "grad of vmap", "scan", "remat", "shard_map",
    "sharded jit", "explicit sharding",
)  # fmt: skip
LATER: tuple[tuple[str, Callable[[Prover, Record], None]], ...] = (
    ("points", other_points), ("sizes", other_sizes), ("subsets", subsets), ("second order", second_order),
    ("forward mode", forward_mode), ("pure", pure), ("half precision", half_precision),
)  # fmt: skip
NEED_ADJOINT = ("points", "sizes", "half precision", "second order", "forward mode")
Progress = Callable[[str, int, int], None]


def certify(
    f: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    laws: Sequence[str] | None = None,
    contexts: Sequence[str] | None = None,
    waive: str | Sequence[str] = (),
    key: Any = 0,
    argnums: int | Sequence[int] | None = None,
    domain: Any = None,
    progress: Progress | None = None,
) -> Certificate:
    """Proves that the backward rule of `f` is the adjoint of its derivative, or says what is wrong.

        ⟨J v, u⟩ = ⟨v, bwd(u)⟩        for all tangents v and cotangents u

    Everything is computed on a float64 twin and in the dtypes given, against four oracles (`ORACLES`) that do not use
    the rule; tolerances come from the measured noise floor. The laws (`LAWS`) hold the rule itself, the contexts
    (`CONTEXTS`) its behaviour under JAX's transformations.

    Args:
        f: any JAX function: a `jax.custom_vjp`, `any_mode`, `custom_jvp`, `custom_gradient`, a bound method, a plain
            function, a `functools.partial` of one.
        args: where it is looked at. Floating arrays are differentiated; Python bools, ints and strings, and arguments
            declared nondiff, are options and stay as they are.
        reference: a plain JAX function of the same arguments. Default: the primal of `f`, without any custom rule.
        laws, contexts: those to check, by name; default all. A context that is asked for by name and is not supported
            is a failure; "vmap" means a batch in each argument alone.
        waive: laws and contexts in which `f` departs deliberately. They are checked and shown, and refute nothing.
        key: an integer or a `jax.random.key`: the seed of all probes.
        argnums: positions of the arguments to differentiate; default all that have floating leaves.
        domain: where `f` is defined: an interval `(low, high)` for all floating arguments, None for no bound, or a dict
            from argument names to intervals. Points outside are not visited; "given" in place of an interval keeps an
            argument (a permutation, sorted ids) as it is.
        progress: called with (what, done, total) as the work goes on.

    Returns:
        A `Certificate`: `.ok`, `.failures`, `.verdict`; prints as a table.

    Raises:
        BadInput: the function or its arguments cannot be certified; the message says what to do.

    >>> import jax.numpy as jnp
    >>> @jax.custom_vjp
    ... def mean(x):
    ...     return x.mean()
    >>> mean.defvjp(lambda x: (x.mean(), x), lambda x, dy: (jnp.full_like(x, dy),))
    >>> certificate = certify(mean, jnp.arange(5.0), laws=["adjoint"], contexts=[])
    >>> certificate.ok, certificate.failures[0].diagnosis.split(":")[0]
    (False, 'dx is 5 times the adjoint, n=5 times too large')
    """
    options = {"reference": reference, "laws": laws, "contexts": contexts, "waive": waive, "argnums": argnums,
               "domain": domain, "progress": progress}
    return next(certify_each(f, *args, keys=[key], **options))


def certify_each(
    f: Callable[..., Any],
    *args: Any,
    keys: Iterable[Any],
    reference: Callable[..., Any] | None = None,
    laws: Sequence[str] | None = None,
    contexts: Sequence[str] | None = None,
    waive: str | Sequence[str] = (),
    argnums: int | Sequence[int] | None = None,
    domain: Any = None,
    progress: Progress | None = None,
) -> Iterator[Certificate]:
    """`certify` with one key after the other; everything is compiled once. Arguments as there."""
    started = time.perf_counter()
    waived = (waive,) if isinstance(waive, str) else tuple(waive)
    chosen = _chosen("law", laws, LAWS)
    _chosen("law or context to waive", [_kind(w) for w in waived], (*LAWS, *CONTEXTS))
    given = (contexts,) if isinstance(contexts, str) else contexts
    if given is not None:
        _chosen("context", [_kind(c) for c in given], CONTEXTS)
    prover = Prover(subject(f, args, reference, argnums), 0, Domain(domain))
    for key in keys:
        trial = Trial(prover.reseeded(seed_of(key)), chosen, waived, progress or (lambda what, done, total: None))
        trial.laws()
        if trial.runs:
            trial.contexts(given)
        yield trial.certificate(time.perf_counter() - started)
        started = time.perf_counter()


def _kind(context: str) -> str:
    """The name in `CONTEXTS`: "vmap X" is a "vmap"."""
    return "vmap" if context.startswith("vmap ") and context not in CONTEXTS else context


def assert_adjoint(f: Callable[..., Any], *args: Any, **options: Any) -> None:
    """`certify`, as an assertion for tests.

    Args:
        f, args, options: as for `certify`.

    Raises:
        AdjointError: an AssertionError with the certificate as its text, and as `.certificate`.

    >>> assert_adjoint(jax.numpy.sin, jax.numpy.ones(3), laws=["adjoint"], contexts=[])
    """
    certificate = certify(f, *args, **options)
    if not certificate.ok:
        raise AdjointError(certificate)


def _chosen(what: str, names: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(known) if names is None else (names,) if isinstance(names, str) else tuple(names)
    if unknown := [n for n in chosen if n not in known]:
        raise BadInput(f"certify: unknown {what} {unknown[0]!r}; there are {', '.join(known)}")
    return chosen


class Trial:
    """One run of the prover: laws in order, then contexts."""

    def __init__(self, prover: Prover, laws: Sequence[str], waived: tuple[str, ...], progress: Progress) -> None:
        self.prover, self.chosen, self.waived, self.progress = prover, laws, waived, progress
        prover.waived = waived
        self.records: list[Record] = []
        self.opinions: list[Opinion] = []
        self.residuals: list[Residual] = []
        self.runs = True
        self.total = len(laws) + 10

    def begin(self, law: str) -> Record:
        record = Record(law)
        self.progress(law, len(self.records), self.total)
        self.records.append(record)
        return record

    def laws(self) -> None:
        """Everything that was asked for, in the order of `LAWS`; the laws that others rest on are always judged."""
        p = self.prover
        if not p.sharp.means:
            raise BadInput(f"certify: the reference of {p.subject.name} cannot be differentiated: {p.sharp.why}")
        record = self.begin("structure")
        try:
            self.runs = runs(p, record)
            if self.runs:
                p.prepare()
                structure(p, record)
        except Exception as error:
            self.runs = False
            record.holds(False, "", f"{p.subject.name} raises at the given point: {reason(error)}")
        if not self.runs:
            return
        self._try("forward", forward)
        self._try("linear", linear)
        self._try("adjoint", self._adjoint)
        for law, check in LATER:
            if law in self.chosen:
                if law in NEED_ADJOINT and not p.trusted:
                    self.begin(law).set(Verdict.SKIPPED, "not judged: it is not the adjoint as it is")
                else:
                    self._try(law, check)
        if "residuals" in self.chosen:
            self._try("residuals", self._residuals)
        self.records = [r for r in self.records if r.law in self.chosen]

    def _try(self, law: str, check: Callable[[Prover, Record], Any]) -> None:
        """Checks a law; what the function raises meanwhile is a finding."""
        record = self.begin(law)
        try:
            check(self.prover, record)
        except Exception as error:
            record.holds(False, "", f"{self.prover.subject.name} raises while this law is checked: {reason(error)}")

    def _adjoint(self, prover: Prover, record: Record) -> None:
        self.opinions, held = adjoint(prover, record)
        prover.trusted = held and not any(r.findings for r in self.records if r.law == "forward")

    def _residuals(self, prover: Prover, record: Record) -> None:
        self.residuals = residuals(prover, record)

    def contexts(self, given: Sequence[str] | None) -> None:
        """Each context in turn: all, or those asked for."""
        every = contexts_of(self.prover)
        names = [n for n in every if given is None or n in given or (_kind(n) == "vmap" and "vmap" in given)]
        self.total = len(self.records) + len(names)
        for name in names:
            self.progress(name, len(self.records), self.total)
            record = examine(self.prover, name, every[name])
            if given is not None and record.verdict is Verdict.UNSUPPORTED:
                record.findings.append(Finding("context", "", name, f"asked for, and not supported: {record.note}"))
                record.verdict = None
            self.records.append(record)

    def certificate(self, seconds: float) -> Certificate:
        """What was found."""
        p, s = self.prover, self.prover.subject
        self.progress("", self.total, self.total)
        if p.why_no_twin:
            p.warnings.append(f"judged in {s.active[0].dtype} alone, {s.name} does not run in float64: {p.why_no_twin}")
        findings = tuple(f for r in self.records for f in r.findings)
        rows: tuple[Row, ...] = tuple(r.row(self.waived) for r in self.records)
        devices = jax.devices()
        environment = (
            f"jax {jax.__version__}, Python {platform.python_version()}, {len(devices)} x {devices[0].platform}"
        )
        return Certificate(
            name=s.name, signature=s.signature, rows=rows, findings=findings, powers=tuple(self._powers()),
            residuals=tuple(self.residuals), warnings=tuple(dict.fromkeys(p.warnings)), waived=self.waived,
            seed=p.seed, environment=environment, seconds=seconds,
        )  # fmt: skip

    def _powers(self) -> list[Power]:
        """The smallest relative errors that the sharper stage would have seen at the given point."""
        p = self.prover
        return [power(p, i, [o for o in self.opinions if o.leaf == i]) for i in range(len(p.subject.active))]
