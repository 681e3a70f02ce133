"""How the two Pythons that CI runs share what is the same on both and takes long.

With `ADJAX_TESTS=all` in the environment each Python takes everything.
"""

import os
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
ALL = os.environ.get("ADJAX_TESTS") == "all"
LATER = sys.version_info >= (3, 13)


def ours(name: str) -> bool:
    """Whether this Python takes what has the name: 3.11 and 3.12 take one half, later ones the other."""
    return ALL or zlib.crc32(name[::-1].encode()) % 2 == LATER


def shared(cases: Iterable[T], name: Callable[[T], str] = lambda case: case.name) -> list[T]:  # type: ignore[attr-defined]
    """The cases that this Python takes."""
    return [case for case in cases if ours(name(case))]


def every_other(cases: list[T]) -> list[T]:
    """The first, third and so on, or those between them: no two neighbours on one Python."""
    return cases if ALL else cases[LATER::2]
