"""A certificate for a notebook: HTML with inline styles, which takes text colour and background from the page.

Verdicts are told apart by a word and a mark, and only then by colour: blue, orange and grey (Okabe and Ito's palette,
darkened until white letters stand out), which colour-blind readers can tell apart, on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from . import report_words as words
from .certificate import Certificate, Row, Verdict

BLUE, ORANGE, GREY = "#0067a8", "#b34700", "#666"
COLOURS = {Verdict.PROVEN: BLUE, Verdict.REFUTED: ORANGE}
LINE = "1px solid rgba(128,128,128,0.4)"
FAINT = "opacity:0.75;"
MONO = "font-family:monospace;"
CELL = "padding:2px 12px 2px 0;vertical-align:top;border:0;background:transparent;"
SIDES = {                                       # of a column: names, text, numbers
    "n": f"{CELL}text-align:left;white-space:nowrap;min-width:9em;",
    "l": f"{CELL}text-align:left;white-space:normal;",
    "r": f"{CELL}text-align:right;white-space:nowrap;",
}


def html(certificate: Certificate) -> str:
    """The certificate as one `<div>`; everything that comes from the function under test is escaped."""
    parts = [
        _head(certificate),
        _findings(certificate),
        _rows(certificate, "law"),
        _rows(certificate, "context"),
        _powers(certificate),
        _residuals(certificate),
        *(_line(f"! {warning}") for warning in certificate.warnings),
        _line(words.footer(certificate), FAINT),
    ]
    return f'<div style="max-width:60em;font-size:13px;line-height:1.4;">{"".join(parts)}</div>'


def page(certificate: Certificate) -> str:
    """A web page of its own, light or dark as the reader's system is."""
    title = f"certificate of {escape(certificate.name)}"
    style = ":root{color-scheme:light dark}body{font-family:system-ui,sans-serif;margin:1.5em}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head>\n<body>{html(certificate)}</body></html>\n"
    )


def _head(certificate: Certificate) -> str:
    verdict = certificate.verdict
    waived = words.title(certificate).removeprefix(verdict.upper())
    head = f'certificate of <b>{escape(certificate.name)}</b> {_badge(verdict, verdict.upper())}{escape(waived)}'
    said = _line(words.VACUOUS) if verdict is Verdict.VACUOUS else ""
    return f'<div style="font-size:15px;">{head}</div>{_line(certificate.signature, FAINT + MONO)}{said}'


def _badge(verdict: Verdict, word: str) -> str:
    style = f"background:{COLOURS.get(verdict, GREY)};color:#fff;border-radius:3px;padding:0 6px;white-space:nowrap;"
    return f'<span style="{style}">{words.MARKS[verdict]} {escape(word)}</span>'


def _findings(certificate: Certificate) -> str:
    groups = words.groups(certificate)
    parts = []
    for group in groups[: words.GROUPS_SHOWN]:
        verdict = Verdict.WAIVED if group.waived else Verdict.REFUTED
        said = [f"{_badge(verdict, str(verdict))} <b>{escape(words.subject(group.first))}</b>"]
        said += [f"<b>{escape(group.first.diagnosis)}</b>"] if group.first.diagnosis else []
        said += map(escape, filter(None, [group.first.message, words.evidence(group), words.seen_in(group)]))
        style = f"margin:8px 0;padding-left:10px;border-left:4px solid {COLOURS.get(verdict, GREY)};"
        parts.append(f'<div style="{style}">{"<br>".join(said)}</div>')
    rest = len(groups) - words.GROUPS_SHOWN
    return "".join(parts) + (_line(f"and {rest} more") if rest > 0 else "")


def _rows(certificate: Certificate, heading: str) -> str:
    rows = [row for row in certificate.rows if bool(row.context) == (heading == "context")]
    return _table([heading, "verdict", "checks", "error / tolerance", ""], map(_row, rows), "nnrrl") if rows else ""


def _row(row: Row) -> list[str]:
    name, checks = row.context or row.law, str(row.checks or "")
    return [escape(name), _badge(row.verdict, row.verdict), checks, escape(words.share(row)), escape(row.note)]


def _powers(certificate: Certificate) -> str:
    powers = certificate.powers
    if not powers:
        return ""
    rows = [
        [power.argument, words.magnitude(power.element), words.magnitude(power.scale), words.blindness(power),
         words.opinion(power)] for power in powers
    ]  # fmt: skip
    heading = "<b>detection power</b>: the smallest relative error that would have been seen"
    heads = ["argument", "one element", "the whole", "blind", "oracles"]
    table = _table(heads, (map(escape, row) for row in rows), "nrrrl")
    return heading + table + _line(words.oracles(powers), FAINT)


def _residuals(certificate: Certificate) -> str:
    shown, rest = words.kept(certificate)
    if not shown:
        return ""
    total = words.size(sum(residual.bytes for residual in certificate.residuals))
    rows = ([escape(r.name), escape(words.residual_type(r)), words.size(r.bytes)] for r in shown)
    table = _table(["residual", "type", "bytes"], rows, "nnr")
    summary = f"<summary><b>residuals</b>: {len(certificate.residuals)}, {total}</summary>"
    return f"<details>{summary}{table}{_line(rest)}</details>"


def _table(heads: Sequence[str], rows: Iterable[Iterable[str]], sides: str) -> str:
    """A table of cells that are HTML already; `sides` has a letter of `SIDES` for each column."""
    styles = [SIDES[side] for side in sides]
    head = "".join(f'<th style="{s}border-bottom:{LINE};">{h}</th>' for s, h in zip(styles, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td style="{s}">{cell}</td>' for s, cell in zip(styles, row, strict=True)) + "</tr>"
        for row in rows
    )
    style = "border-collapse:collapse;border:0;margin:8px 0;table-layout:auto;font-size:13px;"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _line(text: str, style: str = "") -> str:
    return f'<div style="margin:4px 0;{style}">{escape(text)}</div>' if text else ""
