"""Who caught what: counted over all rules, by family and rule by rule, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness.report import plain_lines
from benchmarks.proof.checkers import Checker, Found, Outcome
from tests.certify.rules import Mutant, Rule

WIDTH = 80
FAMILY_WIDTH = 27


@dataclass(frozen=True)
class Trial:
    """One rule in one dtype, and what each checker made of it, by the checker's name."""

    rule: Rule
    outcomes: dict[str, Outcome]

    @property
    def kind(self) -> str:
        """`wrong`, `right`, or `departure`: right only for those who know of it."""
        if isinstance(self.rule, Mutant):
            return "wrong"
        return "departure" if self.rule.options.get("waive") else "right"

    @property
    def family(self) -> str:
        return family(self.rule)


def family(rule: Rule) -> str:
    """The name before the colon."""
    return rule.name.split(":")[0]


@dataclass(frozen=True)
class Count:
    """`hits` among the `of` rules that a checker was asked about, `errors` included."""

    hits: int
    of: int
    errors: int = 0

    def __str__(self) -> str:
        return f"{self.hits}/{self.of}" if self.of else "–"

    def among(self, rules: int) -> str:
        """The hits alone where the checker was asked about all rules; errors as 2e."""
        if not self.of:
            return "–"
        return (str(self.hits) if self.of == rules else str(self)) + (f" {self.errors}e" if self.errors else "")


def refuted(trials: Sequence[Trial], checker: str) -> Count:
    """How many of the rules it was asked about the checker refuted."""
    found = [t.outcomes[checker].found for t in trials]
    return Count(found.count(Found.REFUTED), len(found) - found.count(Found.ABSENT), found.count(Found.ERROR))


def summary(trials: Sequence[Trial], checker: str) -> dict[str, Count | int | float]:
    """Everything about one checker."""
    kinds = {kind: [t for t in trials if t.kind == kind] for kind in ("wrong", "right", "departure")}
    mine = [t.outcomes[checker] for t in trials]
    kills, alarms, departures = (refuted(kinds[kind], checker) for kind in kinds)
    return {
        "kills": kills,
        "laws": _named(kinds["wrong"], checker, "law"),
        "causes": _named([t for t in kinds["wrong"] if t.rule.diagnosis is not None], checker, "diagnosis"),
        "alarms": alarms,
        "waived": departures,
        "errors": kills.errors + alarms.errors + departures.errors,
        "seconds": sum(o.seconds for o in mine),
    }


def _named(wrong: Sequence[Trial], checker: str, what: str) -> Count:
    told = [getattr(t.outcomes[checker], what) for t in wrong]
    return Count(told.count(True), len(told) if any(t is not None for t in told) else 0)


def summary_lines(trials: Sequence[Trial], checkers: Sequence[Checker]) -> list[str]:
    """One line a checker."""
    rows = {c.name: summary(trials, c.name) for c in checkers if not c.missing}
    body = [[name, *(str(round(x) if isinstance(x, float) else x) for x in row.values())] for name, row in rows.items()]
    lines = plain_lines(["", *next(iter(rows.values()))], body)
    return lines + [f"{c.name}: {c.missing}" for c in checkers if c.missing]


def family_lines(trials: Sequence[Trial], checkers: Sequence[Checker], heading: str) -> list[str]:
    """How many each checker refuted of each family, and of all."""
    asked = [c for c in checkers if not c.missing]
    families = dict.fromkeys(t.family for t in trials)
    groups = {f: [t for t in trials if t.family == f] for f in families} | {"total": trials}
    body = [
        [textwrap.shorten(name, FAMILY_WIDTH, placeholder=" …"), str(len(group)),
         *(refuted(group, c.name).among(len(group)) for c in asked)]
        for name, group in groups.items()
    ]  # fmt: skip
    return plain_lines([heading, "of", *(c.short for c in asked)], body)


def alarmed(trials: Sequence[Trial]) -> list[Trial]:
    """The right rules of the families in which some checker cried wolf or broke down."""
    right = [t for t in trials if t.kind == "right"]
    loud = {t.family for t in right if any(o.found in (Found.REFUTED, Found.ERROR) for o in t.outcomes.values())}
    return [t for t in right if t.family in loud]


def failures(trials: Sequence[Trial], checker: str) -> list[Trial]:
    """The rules that a checker is wrong about, by verdict or by error; what it was not asked is no failure."""
    return [t for t in trials if t.outcomes[checker].found in (_wrong_answer(t), Found.ERROR)]


def _wrong_answer(trial: Trial) -> Found:
    return Found.PASSED if trial.kind == "wrong" else Found.REFUTED


def verbose_line(trial: Trial, checkers: Sequence[Checker]) -> str:
    """`affine: dW / n: missed by chex; error in dot`."""
    told = {"missed by" if trial.kind == "wrong" else "refuted by": _wrong_answer(trial), "error in": Found.ERROR}
    parts = []
    for said, found in told.items():
        names = [c.short for c in checkers if trial.outcomes[c.name].found is found]
        parts += [f"{said} {', '.join(names)}"] if names else []
    good = "caught by all" if trial.kind == "wrong" else "passed by all"
    return filled(f"{trial.kind:9}  {trial.rule.name}: {'; '.join(parts) or good}")


def filled(text: str, initial: str = "") -> str:
    """The text in lines of 80 columns."""
    return textwrap.fill(text, WIDTH, initial_indent=initial, subsequent_indent=initial + "    ")


def dtype_lines(dtype: str, trials: Sequence[Trial], checkers: Sequence[Checker]) -> Iterator[str]:
    """The whole report about one dtype."""
    wrong = [t for t in trials if t.kind == "wrong"]
    counted = [sum(t.kind == kind for t in trials) for kind in ("wrong", "right", "departure")]
    yield "\n{}: {} wrong rules, {} right ones, {} deliberate departures".format(dtype, *counted)
    yield from summary_lines(trials, checkers)
    if wrong:
        yield ""
        yield from family_lines(wrong, checkers, "wrong rules, killed")
    if loud := alarmed(trials):
        yield ""
        yield from family_lines(loud, checkers, "right rules, refuted")
    for title, picked in remarks(trials).items():
        yield from ([f"\n{title}:"] if picked else [])
        for trial in picked:
            yield filled(f"{trial.rule.name}: {trial.outcomes['adjax'].note}".rstrip(": "), "  ")


def remarks(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """What is to be said of adjax, rule by rule: everything that is not as it should be."""
    bad = failures(trials, "adjax")
    killed = [t for t in trials if t.kind == "wrong" and t.outcomes["adjax"].found is Found.REFUTED]
    unnamed: Callable[[str], list[Trial]] = lambda what: [t for t in killed if not getattr(t.outcomes["adjax"], what)]
    return {
        "adjax missed": [t for t in bad if t.kind == "wrong"],
        "false alarms of adjax": [t for t in bad if t.kind != "wrong"],
        "law not named by adjax": unnamed("law"),
        "cause not named by adjax": [t for t in unnamed("diagnosis") if t.rule.diagnosis is not None],
    }


def record(dtype: str, trials: Sequence[Trial], checkers: Sequence[Checker]) -> dict[str, Any]:
    """The same for programs."""
    totals = {c.name: summary(trials, c.name) for c in checkers}
    return {
        "dtype": dtype,
        "checkers": {
            name: {key: asdict(x) if isinstance(x, Count) else x for key, x in total.items()}
            for name, total in totals.items()
        },
        "rules": [
            {"name": t.rule.name, "kind": t.kind, "outcomes": {name: asdict(o) for name, o in t.outcomes.items()}}
            for t in trials
        ],
    }
