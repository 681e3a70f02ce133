"""Docstrings as reStructuredText, for Sphinx. They are written for people, in this house's form of plain text:

    `name` in single backticks is code       a link, where it is a public name
    a block that is indented is shown as it stands
    *, | and _ mean themselves
"""

import re
from functools import cache
from typing import Any

from tools.docs.names import public_names

SECTION = re.compile(r"\s*(Args|Attributes|Returns|Raises|Yields|Note):$")
CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")


def to_rest(docstring: str) -> str:
    """The same text for Sphinx."""
    out: list[str] = []
    around, block = 0, None                  # the indentation of the last line of text; that of the block we are in
    for paragraph in filter(str.strip, re.split(r"\n(?:[ \t]*\n)+", docstring)):
        lines = paragraph.splitlines()
        margin = min(map(_margin, lines))
        if lines[0].lstrip().startswith(">>>"):
            out += [*lines, ""]
            block = None
        elif (block is not None and margin >= block) or margin > around:
            out += [] if block is not None else [" " * around + ".. code-block:: text", ""]
            block = margin if block is None else block
            out += [*lines, ""]
        else:
            block = None
            around = _margin(lines[-1]) + 4 * bool(SECTION.match(lines[-1]))
            out += [*marked_up(paragraph).splitlines(), ""]
    return "\n".join(out)


def marked_up(text: str) -> str:
    """A paragraph: code in backticks, everything else as it stands."""
    out = ""
    for i, piece in enumerate(CODE.split(text)):
        if i % 2:
            out += _code(piece)
        else:                                # code must be told from a word that follows it at once, as in `X`s
            out += ("\\ " if i and piece[:1].isalnum() else "") + SPECIAL.sub(r"\\\1", piece)
    return out


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def _code(code: str) -> str:
    return f":py:obj:`{code} <adjax.{code}>`" if code in _names() else f"``{code}``"


@cache
def _names() -> frozenset[str]:
    return frozenset(public.name for public in public_names())


def process(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Sphinx asks here for every docstring, before napoleon reads its sections."""
    lead = ["..", ""] if what == "property" else []  # else napoleon takes what precedes a colon for a type
    lines[:] = lead + to_rest("\n".join(lines)).splitlines()


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
