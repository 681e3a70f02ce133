"""Readers of option values for the programs: what is wrong is said by argparse, in one line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path


class BadOption(ValueError):
    """An option does not fit the others or the data; the text names it."""


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """A reader of integers within bounds."""
    bounds = f"an integer of at least {least}" + ("" if most is None else f" and at most {most}")

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {bounds}, got {text!r}") from None
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"must be {bounds}, got {value}")
        return value

    return read


def positive(text: str) -> float:
    """A reader of finite positive numbers."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def png(text: str) -> Path:
    """A reader of file names that can be written, tried by opening the file: no training is lost to a wrong name."""
    path = Path(text)
    if path.suffix.lower() not in ("", ".png"):
        raise argparse.ArgumentTypeError(f"the plot is a PNG: FILE must end in .png, got {text!r}")
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    if not existed:
        path.unlink()
    return path
