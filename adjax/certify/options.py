"""The options of `python -m adjax certify`: read here, so that no function is imported before they are right."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .specs import GRAMMAR

DESCRIPTION = """\
Prove that a function's backward rule is the adjoint of its derivative, or say
what is wrong with it: the rule is held against independent oracles, law by law,
and under every JAX transformation. It prints a certificate.
"""
EPILOG = f"""\
argument specs, one per argument (quote them: the shell has plans for < and [):
{"".join(f"  {line}" for line in GRAMMAR.splitlines(keepends=True))}
examples:
  adjax certify adjax:affine '(f32[16,8],f32[8])' 'f32[32,16]'
  adjax certify rules.py:my_loss 'bf16[8,100]' 'i32[8]<100' smoothing=0.1
  adjax certify rules.py:log 'f32[64]>0' --reference jax.numpy:log --x64
  adjax certify rules.py:clip 'f32[8]' --waive linear --devices 8

exit status:
  0    proven
  1    refuted, or vacuous: nothing could have failed
  2    no verdict: an option or a spec is wrong, the function does not import,
       or it raises
  130  interrupted by Ctrl-C
"""


class Options(NamedTuple):
    """What a certificate on the command line depends on."""

    function: str
    specs: Sequence[str] = ()
    reference: str | None = None
    laws: Sequence[str] = ()
    contexts: Sequence[str] = ()
    waive: Sequence[str] = ()
    domain: tuple[float, float] = (-math.inf, math.inf)
    seed: int = 0
    x64: bool = False
    devices: int | None = None
    json: Path | None = None
    html: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options with their meanings."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("function", metavar="FUNCTION", help="MODULE:FUNCTION or FILE.py:FUNCTION")
    parser.add_argument("specs", metavar="SPEC", nargs="*", default=[], help="the arguments, one by one, see below")
    parser.add_argument("--reference", metavar="FUNCTION", help="a plain function with the right derivative")

    def names(flag: str, field: str, help: str) -> None:
        parser.add_argument(flag, dest=field, metavar="NAME", action="append", default=[], help=f"{help} (repeatable)")

    names("--law", "laws", "check this law, and no other that is not named")
    names("--context", "contexts", "check in this context, and in no other that is not named; it must be supported")
    names("--waive", "waive", "a law or context in which the rule departs on purpose")
    default = Options("")
    parser.add_argument(
        "--domain", type=interval, metavar="LOW,HIGH", default=default.domain,
        help="keep all floating arguments between these; either may be left out (write --domain=-1,1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=integer(0), metavar="N", default=default.seed, help="of all random numbers (0)")
    parser.add_argument("--x64", action="store_true", help="allow 64-bit dtypes")
    parser.add_argument("--devices", type=integer(1), metavar="N", help="run on N simulated CPU devices")
    parser.add_argument("--json", type=writable, metavar="FILE", help="also write the certificate as JSON")
    parser.add_argument("--html", type=writable, metavar="FILE", help="also write the certificate as a web page")


def integer(least: int) -> Callable[[str], int]:
    """A reader of integers from a bound."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
        return int(text)

    return read


def interval(text: str) -> tuple[float, float]:
    """A reader of two bounds, either of which may be left out."""
    low, comma, high = text.partition(",")
    try:
        bounds = float(low or -math.inf), float(high or math.inf)
    except ValueError:
        comma, bounds = "", (0.0, 0.0)
    if not comma or not bounds[0] < bounds[1]:
        raise argparse.ArgumentTypeError(f"must be LOW,HIGH with LOW below HIGH, as in 0,1 or 0, got {text!r}")
    return bounds


def writable(text: str) -> Path:
    """A reader of file names that can be written, tried by opening the file: no certificate is lost to a wrong name."""
    path = Path(text)
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    if not existed:
        path.unlink()
    return path
