"""`python -m adjax cost`: what a training step of a large decoder takes on many chips, predicted."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap

from ..certify.report_text import spelled
from ..explain.cost_layers import ITEMSIZE
from ..explain.cost_model import DECODERS, predict
from ..explain.cost_text import in_brief
from ..explain.hardware import HARDWARE, Degrees
from .readers import BadOption, integer, positive

DESCRIPTION = """\
Predict time and memory of a training step of the decoder of `adjax train text`
on many chips, layer by layer: FLOP, bytes to and from memory, bytes sent, and
what limits each (a roofline). Every number of model and hardware can be given.
"""
EPILOG = """\
hardware, with the source of its numbers:
{}

examples:
  adjax cost --params 7b --chips 256 --hardware h100
  adjax cost --params 7b --chips 4096 --hardware v5p --tensor 8 --data 8 --remat
  adjax cost --params 13b --chips 64 --hardware h100 --link 300e9 --batch 512
"""
MODEL = {
    "width": "features of a token", "depth": "blocks", "heads": "heads of attention",
    "between": "features between, in swiglu", "vocabulary": "words", "context": "tokens of an example",
    "batch": "examples of a step, of all chips together",
    "bands": "runs of queries of attention that skip the keys behind them", "loss_block": "bytes of logits at a time",
}  # fmt: skip
RATES = {
    "flops": "FLOP/s of products of half precision", "wide_flops": "FLOP/s of products of float32",
    "bandwidth": "bytes/s of a chip's memory", "memory": "bytes of a chip's memory",
    "link": "bytes/s that a chip sends within its domain", "network": "bytes/s that a chip sends beyond its domain",
}  # fmt: skip
DOMAIN = {"domain": "chips that links join"}
SPLIT = {
    "data": "ways that examples are split", "fsdp": "ways that examples and parameters are (default: the rest)",
    "tensor": "ways that heads, features and words are", "sequence": "ways that the tokens of an example are",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options with their meanings, bounds and defaults."""
    sources = "\n".join(
        textwrap.fill(of.source, 78, initial_indent=f"  {name:<6}", subsequent_indent=" " * 8)
        for name, of in HARDWARE.items()
    )
    parser.description, parser.epilog = DESCRIPTION, EPILOG.format(sources)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--params", choices=tuple(DECODERS), default="7b", help="sizes of LLaMA's (default 7b)")
    parser.add_argument("--chips", type=integer(1, 10**6), metavar="N", default=256, help="in all (default 256)")
    parser.add_argument("--hardware", choices=tuple(HARDWARE), default="h100", help="see below (default h100)")
    parser.add_argument("--dtype", choices=tuple(ITEMSIZE), default="bfloat16", help="of the layers (default bfloat16)")
    parser.add_argument("--remat", action="store_true", help="keep each block's input only, and run it again backwards")
    parser.add_argument("--fused", action="store_true", help="kernels keep scores and logits on the chip")
    parser.add_argument("--brief", action="store_true", help="without the tables of layers and memory")
    options = ((SPLIT, integer(1, 10**6), "N"), (MODEL, integer(1, 10**12), "N"), (DOMAIN, integer(1), "N"),
               (RATES, positive, "X"))  # fmt: skip
    for group, reader, metavar in options:
        for name, meaning in group.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=reader, metavar=metavar, help=meaning)


def main(options: argparse.Namespace) -> int:
    """Print the prediction.

    Raises:
        BadOption: the degrees do not make the chips, or an axis does not divide.
    """
    given = lambda names: {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    decoder = dataclasses.replace(
        DECODERS[options.params], dtype=options.dtype, remat=options.remat, fused=options.fused, **given(MODEL)
    )
    hardware = dataclasses.replace(HARDWARE[options.hardware], **given(RATES | DOMAIN))
    try:
        prediction = predict(decoder, _degrees(options.chips, given(SPLIT)), hardware)
    except ValueError as error:
        raise BadOption(str(error).removeprefix("predict: ")) from None
    text = in_brief(prediction) if options.brief else str(prediction)
    print(spelled(text, getattr(sys.stdout, "encoding", None) or "utf-8"), flush=True)
    return 0


def _degrees(chips: int, given: dict[str, int]) -> Degrees:
    """With the chips that are left over in fsdp."""
    rest = dataclasses.replace(Degrees(**given), fsdp=1).chips
    degrees = Degrees(**{"fsdp": max(1, chips // rest), **given})
    if degrees.chips != chips:
        split = ", ".join(f"{name} {degree}" for name, degree in dataclasses.asdict(degrees).items())
        raise BadOption(f"--chips: {split} make {degrees.chips} chips, not {chips}")
    return degrees
