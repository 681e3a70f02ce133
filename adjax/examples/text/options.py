"""The options of `python -m adjax train text`: read here, so that nothing is imported before they are right."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .. import processes
from ..parallel import options as parallel
from ..readers import BadOption, integer, positive

DTYPES = ("float32", "bfloat16", "float16")
DESCRIPTION = """\
Train a decoder of adjax.embed, rms_norm, affine, rotary, attention, swiglu and
linear_cross_entropy on the characters of a text, by default of Python's own
help topics; tell the loss on text held out, write some, then time the same
training step with plain autodiff and compare the two gradients.
"""
EXIT_STATUS = """\
exit status:
  0    trained, and the report printed
  1    the loss became infinite or NaN, memory ran out, the last state could not
       be saved, or one of several processes is gone
  2    an option is wrong, or an extra is not installed
  130  interrupted: Ctrl-C ends the training and reports the result so far
"""


class Options(NamedTuple):
    """What a training run depends on."""

    file: Path | None = None
    steps: int = 160
    width: int = 128
    depth: int = 4
    heads: int = 4
    context: int = 256
    batch: int = 16
    dtype: str = "float32"
    learning_rate: float = 4e-3
    remat: bool = False
    mesh: parallel.Axes = ()
    mode: str = "auto"
    devices: int | None = None
    accumulate: int = 1
    sample: int = 400
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_every: int = 20
    processes: int = 1
    devices_per_process: int | None = None
    distributed: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options with their meanings, bounds and defaults."""
    parser.description = DESCRIPTION
    parser.epilog = EXIT_STATUS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    default = Options()

    def add(name: str, type: Callable[[str], object], metavar: str, help: str) -> None:
        value = getattr(default, name.removeprefix("--").replace("-", "_"))
        parser.add_argument(name, type=type, metavar=metavar, default=value, help=f"{help} (default {value:g})")

    parser.add_argument("--file", type=Path, metavar="FILE", help="the text, in UTF-8 (default Python's help topics)")
    add("--steps", integer(1), "N", "training steps")
    add("--width", integer(2, 8192), "N", "features of a character")
    add("--depth", integer(1, 100), "N", "blocks of attention and swiglu")
    add("--heads", integer(1, 1024), "N", "heads of attention: twice as many, or more, divide the width")
    add("--context", integer(1, 2**17), "N", "characters of an example")
    add("--batch", integer(1), "N", "examples a step")
    add("--learning-rate", positive, "RATE", "peak learning rate of AdamW, warmed up, then decayed by a cosine")
    meaning = "dtype of the layers; parameters, loss and optimizer stay in float32, and float16 scales the loss"
    parallel.add_arguments(parser, DTYPES, meaning)
    parser.add_argument("--remat", action="store_true", help="keep each block's input only, and run it again backwards")
    add("--sample", integer(0, 10**5), "N", "characters to write at the end")
    add("--seed", integer(0, 2**32 - 1), "N", "seed of the initial parameters, the batches and the sample")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="save states there, and go on from the last one")
    add("--checkpoint-every", integer(1), "N", "steps from one checkpoint to the next")
    processes.add_arguments(parser)


def chosen(given: argparse.Namespace) -> Options:
    """What was given.

    Raises:
        BadOption: the width does not divide into heads of even width, or the network or the batch over the mesh.
    """
    options = Options(**{name: getattr(given, name) for name in Options._fields})
    options = processes.chosen(options)
    options = options._replace(mode=parallel.chosen_mode(options.mode, options.mesh))
    if options.width % (2 * options.heads):
        raise BadOption(f"--heads: a width of {options.width} has no {options.heads} heads of equal, even width")
    parallel.check_batch(options)
    model, fsdp = parallel.size(options, "model"), parallel.size(options, "fsdp")
    for count, what, axes, devices in (
        (options.heads, "heads", "model", model),
        (features_between(options.width), "features of swiglu", "model", model),
        (options.width, "features", "fsdp and model", fsdp * model),
        (options.context, "characters", "sequence", parallel.size(options, "sequence")),
    ):
        if count % devices:
            raise BadOption(f"--mesh: {count} {what} do not divide over the {devices} devices of {axes}")
    return options


def features_between(width: int) -> int:
    """f: 8/3 of the width, as swiglu has three products where others have two."""
    return 8 * max(1, round(width / 3))
