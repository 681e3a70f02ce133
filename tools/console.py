"""Runs the commands that a page shows in its console blocks, and writes what they print below them.

    python tools/console.py docs/scale.md            # write
    python tools/console.py --check docs/scale.md    # only compare; exit status 1 where they differ

Blocks of ```console whose lines `$ python -m adjax ...` are commands; what follows each, up to the next, is its output.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

from adjax.__main__ import main as adjax

BLOCK = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)
PROMPT = "$ python -m adjax "


def renewed(page: str) -> str:
    """The page with what its commands print today."""
    return BLOCK.sub(lambda block: block[1] + "".join(map(_renewed, _commands(block[2]))) + block[3], page)


def _commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.startswith(PROMPT)]


def _renewed(command: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = adjax(shlex.split(command.removeprefix(PROMPT)))
    if status:
        raise SystemExit(f"{command}: exit status {status}")
    return f"{command}\n{printed.getvalue()}"


def main(arguments: list[str]) -> int:
    """Renew or check the pages, and return the exit status."""
    names = [argument for argument in arguments if argument != "--check"]
    stale = []
    for page in map(Path, names):
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            stale.append(page.name)
            if "--check" not in arguments:
                page.write_text(after, encoding="utf-8")
    if stale:
        print(f"{'differs' if '--check' in arguments else 'renewed'}: {', '.join(stale)}")
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
