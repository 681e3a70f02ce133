"""A certificate as plain text, within 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from . import report_words as words
from .certificate import Certificate, Row, Verdict

WIDTH = 80
NOTE_LINES = 3
VERDICT, CHECKS, ERROR = 15, 6, 8                # columns of the tables of laws and contexts
LONGEST = 26                                     # of the names shown in a table
COLOURS = {Verdict.PROVEN: 32, Verdict.REFUTED: 31, Verdict.WAIVED: 33, Verdict.VACUOUS: 33}
SPELLING = str.maketrans({
    "✓": "+", "✗": "x", "○": "o", "─": "-", "—": "-", "·": "-", "…": "...", "×": "x", "→": "->", "≤": "<=", "≠": "!=",
    "⟨": "<", "⟩": ">", "ᵀ": "^T", "Σ": "sum", "∂": "d", "√": "sqrt", "±": "+-", "−": "-", "δ": "d", "µ": "u",
})  # fmt: skip
Lines = list[str]
Paint = Callable[[str, Verdict], str]


def text(certificate: Certificate, colour: bool = False) -> str:
    """The certificate as lines of at most 80 columns, with the verdicts in colour (ANSI) if asked for."""
    paint = _painted if colour else _plain
    blocks = [
        _head(certificate, paint),
        _findings(certificate, paint),
        _rows(certificate, "law", paint),
        _rows(certificate, "context", paint),
        _powers(certificate),
        _residuals(certificate),
        _warnings(certificate),
        _wrapped(words.footer(certificate)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def spelled(text: str, encoding: str) -> str:
    """The text in characters that an encoding has."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(SPELLING).encode(encoding, "replace").decode(encoding)
    return text


def _plain(text: str, verdict: Verdict) -> str:
    return text


def _painted(text: str, verdict: Verdict) -> str:
    code = COLOURS.get(verdict)
    return text if code is None else f"\x1b[{code}m{text}\x1b[0m"


def _head(certificate: Certificate, paint: Paint) -> Lines:
    lines = _wrapped(f"certificate of {certificate.name}: {words.title(certificate)}", 0, 2)
    word = certificate.verdict.upper()
    lines = [line.replace(f": {word}", f": {paint(word, certificate.verdict)}") for line in lines]
    lines += _wrapped(certificate.signature, 2, 4)
    return lines if certificate.verdict is not Verdict.VACUOUS else [*lines, "", *_wrapped(words.VACUOUS, 2)]


def _rows(certificate: Certificate, heading: str, paint: Paint) -> Lines:
    """The table of laws or that of contexts, with the same columns."""
    rows = [row for row in certificate.rows if bool(row.context) == (heading == "context")]
    if not rows:
        return []
    width = max(min(len(row.context or row.law), LONGEST) for row in certificate.rows) + 2
    heads = f"{heading:<{width}}{'verdict':<{VERDICT}}{'checks':>{CHECKS}}{'error':>{ERROR}}"
    lines = [f"{heads} / tolerance", "─" * (WIDTH - 2)]
    for row in rows:
        lines += _row(row, width, paint)
    return _indented(lines)


def _row(row: Row, width: int, paint: Paint) -> Lines:
    """A row without checks has its note directly beside its verdict."""
    said = row.verdict.upper() if row.verdict is Verdict.REFUTED else row.verdict
    name = _clipped(row.context or row.law, LONGEST)
    verdict = paint(f"{words.MARKS[row.verdict]} {said:<{VERDICT - 2}}", row.verdict)
    counts = f"{row.checks or '':>{CHECKS}}{words.share(row):>{ERROR}}  " if row.checks or words.share(row) else ""
    indent = width + VERDICT + len(counts)
    note = textwrap.wrap(row.note, WIDTH - 2 - indent, max_lines=NOTE_LINES, placeholder=" …") or [""]
    return [f"{name:<{width}}{verdict}{counts}{note[0]}".rstrip(), *(" " * indent + line for line in note[1:])]


def _findings(certificate: Certificate, paint: Paint) -> Lines:
    lines: Lines = []
    groups = words.groups(certificate)
    for group in groups[: words.GROUPS_SHOWN]:
        verdict = Verdict.WAIVED if group.waived else Verdict.REFUTED
        mark = words.MARKS[verdict] + " waived:" * group.waived
        first, *more = _wrapped(f"{mark} {words.subject(group.first)}", 2, 4)
        lines += [first.replace(mark, paint(mark, verdict), 1), *more]
        for part in (group.first.diagnosis, group.first.message, words.evidence(group), words.seen_in(group)):
            lines += _wrapped(part, 4, 6)
    rest = len(groups) - words.GROUPS_SHOWN
    return ["findings", *lines, *([f"  and {rest} more"] if rest > 0 else [])] if lines else []


def _powers(certificate: Certificate) -> Lines:
    powers = certificate.powers
    if not powers:
        return []
    names = [_clipped(power.argument, LONGEST) for power in powers]
    width = max(map(len, [*names, "argument"])) + 2
    blind = max(map(len, [*map(words.blindness, powers), "blind"])) + 2
    lines = [f"{'argument':<{width}}{'element':>7}{'whole':>9}{'blind':>{blind}}   oracles", "─" * (WIDTH - 2)]
    for name, power in zip(names, powers, strict=True):
        element, whole = words.magnitude(power.element), words.magnitude(power.scale)
        start = f"{name:<{width}}{element:>7}{whole:>9}{words.blindness(power):>{blind}}   "
        opinion = textwrap.wrap(words.opinion(power), WIDTH - 2 - len(start))
        lines += [start + opinion[0], *(" " * len(start) + line for line in opinion[1:])]
    title = "detection power: the smallest relative error that would have been seen"
    return [title, *_indented(lines), *_wrapped(words.oracles(powers), 2, 4)]


def _residuals(certificate: Certificate) -> Lines:
    shown, rest = words.kept(certificate)
    if not shown:
        return []
    total = words.size(sum(residual.bytes for residual in certificate.residuals))
    names = [_clipped(residual.name, 36) for residual in shown]
    width = max(map(len, names)) + 2
    lines = [
        f"{name:<{width}}{_clipped(words.residual_type(residual), 24):<24} {words.size(residual.bytes):>9}"
        for name, residual in zip(names, shown, strict=True)
    ]
    return [f"residuals: {len(certificate.residuals)}, {total}", *_indented([*lines, *filter(None, [rest])])]


def _warnings(certificate: Certificate) -> Lines:
    return [line for warning in certificate.warnings for line in _wrapped(f"! {warning}", 0, 2)]


def _wrapped(text: str, indent: int = 0, hanging: int | None = None) -> Lines:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent if hanging is None else hanging),
        break_on_hyphens=False,
    )


def _indented(lines: Sequence[str]) -> Lines:
    return ["  " + line if line else line for line in lines]


def _clipped(name: str, width: int) -> str:
    """A name that is too long keeps its end, by which it differs from others."""
    return name if len(name) <= width else "…" + name[1 - width :]
