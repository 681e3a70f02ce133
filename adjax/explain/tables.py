"""Rows of cells as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Row = tuple[str, ...]
CELL = "padding:1px 14px 1px 0;text-align:left;border:0;background:transparent;"


def aligned(rows: Sequence[Row], left: int) -> list[str]:
    """Lines of text: the first `left` columns aligned on the left, the others on the right.

    >>> aligned([("name", "bytes"), ("W", "60")], 1)
    ['name  bytes', 'W        60']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cell = lambda i, words: words.ljust(widths[i]) if i < left else words.rjust(widths[i])
    return ["  ".join(cell(i, words) for i, words in enumerate(row)).rstrip() for row in rows]


def table(rows: Iterable[Row]) -> str:
    """An HTML table."""
    line = lambda row: "<tr>" + "".join(f'<td style="{CELL}">{escape(words)}</td>' for words in row) + "</tr>"
    return f"<table>{''.join(map(line, rows))}</table>"
