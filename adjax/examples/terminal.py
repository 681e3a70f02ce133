"""Text for a terminal or a pipe: colour only where it is seen, symbols only where they can be encoded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}
ASCII = {"ᵀ": "^T", "Σ": "sum", "→": "->", "⟨": "<", "⟩": ">", "·": "-", "×": "x", "±": "+-", "✓": "ok:", "✗": "WRONG:"}
TO_ASCII = str.maketrans(dict[str, str | int | None](ASCII))
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """Where a report is written.

    Attributes:
        animated: whether a progress bar may redraw itself (a real terminal, `TERM` not `dumb`).
        coloured: whether `paint` paints: as `animated`, unless `NO_COLOR` is set (https://no-color.org).
        symbols: whether the stream's encoding can carry mathematics; where it cannot, `spell` writes ASCII.

    >>> import io
    >>> Terminal(io.StringIO()).paint("dW", "bold")
    'dW'
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.animated = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = self.animated and not os.environ.get("NO_COLOR")
        self.symbols = _carries(getattr(self.stream, "encoding", None) or "utf-8", "".join(ASCII))

    def spell(self, text: str) -> str:
        """The text in characters that the stream can carry."""
        return text if self.symbols else text.translate(TO_ASCII)

    def paint(self, text: str, *styles: str) -> str:
        """The text, spelled, in the named styles where colour is seen."""
        text = self.spell(text)
        if not (self.coloured and styles and text):
            return text
        return f"\x1b[{';'.join(str(STYLES[style]) for style in styles)}m{text}\x1b[0m"

    def print(self, text: str = "") -> None:
        """Write lines, and show them at once."""
        print(self.spell(text), file=self.stream, flush=True)


def _carries(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def width(text: str) -> int:
    """The columns that a line takes on the screen: colour takes none."""
    return len(ESCAPE.sub("", text))


def pad(text: str, columns: int) -> str:
    """The line, filled with spaces on the right up to a width on the screen."""
    return text + " " * (columns - width(text))


def beside(blocks: Sequence[Sequence[str]], gap: int = 4) -> list[str]:
    """Blocks of lines side by side, tops aligned.

    >>> beside([["a", "bb"], ["c"]], gap=2)
    ['a   c', 'bb']
    """
    height = max(map(len, blocks))
    widths = [max(map(width, block)) for block in blocks]
    rows = [[block[i] if i < len(block) else "" for block in blocks] for i in range(height)]
    return [(" " * gap).join(map(pad, row, widths)).rstrip() for row in rows]
