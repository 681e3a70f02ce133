"""What the printed certificate and the one in a notebook have in common: words, numbers and groups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .certificate import Certificate, Finding, Power, Residual, Row, Verdict
from .subject import short

MARKS = {
    Verdict.PROVEN: "✓",
    Verdict.REFUTED: "✗",
    Verdict.WAIVED: "~",
    Verdict.UNSUPPORTED: "-",
    Verdict.SKIPPED: "-",
    Verdict.VACUOUS: "○",
}
VACUOUS = (
    "Every derivative was zero at every point looked at, so no mistake could have been seen. Give arguments at which "
    "the function is not constant."
)
RESIDUALS_SHOWN = 12
GROUPS_SHOWN = 12


@dataclass(frozen=True)
class Group:
    """Findings that say the same of the same argument, in several contexts; the first stands for all."""

    first: Finding
    contexts: tuple[str, ...]
    measured: float
    waived: bool


def groups(certificate: Certificate) -> list[Group]:
    """The findings, one entry per law, argument and diagnosis; those not waived come first."""
    alike: dict[tuple[bool, str, str, str], list[Finding]] = {}
    for finding in certificate.findings:
        waived = finding not in certificate.failures
        alike.setdefault((waived, finding.law, finding.argument, finding.diagnosis), []).append(finding)
    return [
        Group(same[0], tuple(dict.fromkeys(f.context for f in same if f.context)), worst(same), key[0])
        for key, same in sorted(alike.items(), key=lambda entry: entry[0][0])
    ]


def worst(findings: Iterable[Finding]) -> float:
    """The largest error, or NaN where none was measured."""
    return max((f.measured for f in findings if not math.isnan(f.measured)), default=math.nan)


def title(certificate: Certificate) -> str:
    """`PROVEN`, and beside it what was waived."""
    waived = f", with {listed(certificate.waived)} waived" if certificate.waived else ""
    return f"{certificate.verdict.upper()}{waived}"


def subject(finding: Finding) -> str:
    """What a finding is about: `adjoint of params.W, vmap X`."""
    argument = f" of {finding.argument}" if finding.argument else ""
    context = f", {finding.context}" if finding.context else ""
    return f"{finding.law}{argument}{context}"


def evidence(group: Group) -> str:
    """The two numbers of a finding, where they were measured."""
    if math.isnan(group.measured):
        return ""
    tolerance = group.first.tolerance
    explained = "" if math.isnan(tolerance) else f"; rounding explains {number(tolerance)}"
    return f"error {number(group.measured)} of the largest entry{explained}"


def seen_in(group: Group, most: int = 8) -> str:
    """The contexts in which a finding was seen, besides the first."""
    others = [c for c in group.contexts if c != group.first.context]
    more = f" and {len(others) - most} more" if len(others) > most else ""
    return f"also: {', '.join(others[:most])}{more}" if others else ""


def number(x: float) -> str:
    """Three digits: `0.125`, `1e-07`, `NaN`."""
    return "NaN" if math.isnan(x) else f"{x:.3g}"


def share(row: Row) -> str:
    """A row's worst error in units of its tolerance: percents where it is small enough, multiples where it is not."""
    x = row.measured
    if math.isnan(x) or (x == 0 and not row.checks):
        return ""
    if x > 1:
        return f"{x:.2g} ×" if x < 100 else f"{x:.0e} ×".replace("e+0", "e").replace("e+", "e")
    return "<1 %" if 0 < x < 0.005 else f"{x:.0%}".replace("%", " %")


def magnitude(x: float) -> str:
    """A relative error that would have been seen: one digit; a dash where none would."""
    return f"{x:.0e}" if math.isfinite(x) else "—"


def opinion(power: Power) -> str:
    """What the oracles say of the rule: `4 agree`, or who does not."""
    dissenting = [name for name, agrees in power.oracles.items() if not agrees]
    agreeing = len(power.oracles) - len(dissenting)
    if dissenting and not agreeing:
        return f"all {len(dissenting)} dissent" if len(dissenting) > 1 else f"{dissenting[0]} dissents"
    agree = {0: "none", 1: "1 agrees"}.get(agreeing, f"{agreeing} agree")
    return f"{agree}, not {listed(dissenting)}" if dissenting else agree


def blindness(power: Power) -> str:
    """How many elements nothing can be said of."""
    return f"{power.blind} of {power.size}" if power.blind else "0"


def oracles(powers: Sequence[Power]) -> str:
    """What the table of detection power needs said: the oracles' names, and what blind means where something is."""
    names = ", ".join(dict.fromkeys(name for power in powers for name in power.oracles))
    blind = any(power.blind for power in powers)
    said = [f"oracles: {names}"] * bool(names) + ["blind: elements whose derivative was zero at every probe"] * blind
    return "; ".join(said)


def residual_type(residual: Residual) -> str:
    """`f32[16,8]`."""
    return f"{short(residual.dtype)}[{','.join(map(str, residual.shape))}]"


def size(count: int) -> str:
    """Bytes as people read them: `512 B`, `2.0 KiB`, `1.5 GiB`."""
    amount, units = float(count), ["KiB", "MiB", "GiB", "TiB"]
    if amount < 1024:
        return f"{count} B"
    unit = ""
    while amount >= 1023.95 and units:
        amount, unit = amount / 1024, units.pop(0)
    return f"{amount:.1f} {unit}"


def kept(certificate: Certificate) -> tuple[list[Residual], str]:
    """The residuals to show, largest first where there are many, and a line for the rest."""
    residuals = list(certificate.residuals)
    if len(residuals) <= RESIDUALS_SHOWN:
        return residuals, ""
    residuals.sort(key=lambda r: -r.bytes)
    rest = residuals[RESIDUALS_SHOWN - 1 :]
    return residuals[: RESIDUALS_SHOWN - 1], f"{len(rest)} smaller ones, {size(sum(r.bytes for r in rest))}"


def footer(certificate: Certificate) -> str:
    """The verdict again, and what it took."""
    checks = sum(row.checks for row in certificate.rows)
    effort = f"{certificate.verdict.upper()} by {checks} checks in {certificate.seconds:.1f} s"
    return " · ".join(filter(None, [effort, f"seed {certificate.seed}", certificate.environment]))


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
