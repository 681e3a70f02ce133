"""The options of `python -m adjax train digits`: read here, so that nothing is imported before they are right."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..parallel import options as parallel
from ..readers import BadOption, integer, png, positive

OWN_DEFAULTS: dict[str, dict[str, float]] = {
    "mlp": {"width": 256, "learning_rate": 3e-3},
    "cnn": {"width": 32, "learning_rate": 1e-2},
}
MOST_CHANNELS, MOST_HALVINGS = 1024, 3  # of a convolutional network on images of 8 × 8 pixels
GROUPS = 8                              # of channels, as far as they divide
DTYPES = ("float32", "bfloat16", "float16", "float64")
WIDTH = "features of a hidden layer of mlp; channels of the first block of cnn, doubled in each further one"
DESCRIPTION = """\
Train a multi-layer perceptron of adjax.affine layers, or a convolutional
network of adjax.conv, group_norm and max_pool, on scikit-learn's handwritten
digits, then time the same training step with plain autodiff and compare the
two gradients.
"""
EXIT_STATUS = """\
exit status:
  0    trained, and the report printed
  1    the loss became infinite or NaN, memory or disk ran out, or the last state
       could not be saved
  2    an option is wrong, or an extra is not installed
  130  interrupted: Ctrl-C ends the training and reports the result so far
"""


class Options(NamedTuple):
    """What a training run depends on."""

    model: str = "mlp"
    steps: int = 500
    width: int = 256
    depth: int = 2
    dtype: str = "float32"
    batch: int = 128
    learning_rate: float = 3e-3
    remat: bool = False
    mesh: parallel.Axes = ()
    mode: str = "auto"
    devices: int | None = None
    accumulate: int = 1
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_every: int = 50
    plot: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options with their meanings, bounds and defaults."""
    parser.description = DESCRIPTION
    parser.epilog = EXIT_STATUS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    default = Options()

    def add(name: str, type: Callable[[str], object], metavar: str, help: str) -> None:
        field = name.removeprefix("--").replace("-", "_")
        own = {model: defaults[field] for model, defaults in OWN_DEFAULTS.items() if field in defaults}
        value = None if own else getattr(default, field)
        shown = ", ".join(f"{model} {value:g}" for model, value in own.items()) or value
        parser.add_argument(name, type=type, metavar=metavar, default=value, help=f"{help} (default {shown})")

    parser.add_argument(
        "--model",
        choices=tuple(OWN_DEFAULTS),
        default=default.model,
        help=f"a multi-layer perceptron or a convolutional network (default {default.model})",
    )
    add("--steps", integer(1), "N", "training steps")
    add("--width", integer(1, 8192), "N", WIDTH)
    add("--depth", integer(1, 100), "N", "hidden layers of mlp; blocks of cnn, each of which halves the image's sides")
    add("--batch", integer(1), "N", "images a step")
    add("--learning-rate", positive, "RATE", "peak learning rate of AdamW, decayed to zero by a cosine")
    add("--seed", integer(0, 2**32 - 1), "N", "seed of the split, the initial parameters and the batches")
    parallel.add_arguments(
        parser,
        DTYPES,
        "dtype of the layers, forward and backward; with a half-precision dtype, parameters, loss and optimizer "
        "stay in float32, and float16 scales the loss so that small cotangents survive",
        axes=("data", "fsdp", "model"),
    )
    parser.add_argument("--remat", action="store_true", help="keep each layer's input only, and run it again backwards")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="save states there, and go on from the last one")
    add("--checkpoint-every", integer(1), "N", "steps from one checkpoint to the next")
    meaning = "write the learning curves and the misclassified digits as PNG"
    parser.add_argument("--plot", type=png, metavar="FILE", help=meaning)


def chosen(given: argparse.Namespace) -> Options:
    """What was given, with the network's own defaults.

    Raises:
        BadOption: the network cannot be that large, or it or the batch does not divide over the mesh.
    """
    values: dict[str, Any] = {name: getattr(given, name) for name in Options._fields}
    missing = {name: default for name, default in OWN_DEFAULTS[given.model].items() if values[name] is None}
    options = Options(**{**values, **missing})
    if options.model == "cnn" and options.depth > MOST_HALVINGS:
        raise BadOption(f"--depth: cnn halves 8 × 8 images at most {MOST_HALVINGS} times, got {options.depth}")
    if options.model == "cnn" and options.width > MOST_CHANNELS:
        raise BadOption(f"--width: the first block of cnn has at most {MOST_CHANNELS} channels, got {options.width}")
    options = options._replace(mode=parallel.chosen_mode(options.mode, options.mesh))
    parallel.check_batch(options)
    _check_split(options)
    return options


def _check_split(options: Options) -> None:
    """Raise BadOption unless there is something that divides over the devices of `model`."""
    if "model" not in dict(options.mesh):
        return
    devices, of_cnn = parallel.size(options, "model"), options.model == "cnn"
    if of_cnn and options.depth < 2:
        raise BadOption(f"--mesh: model splits the channels between two blocks of cnn, and --depth is {options.depth}")
    counts = {"channels" if of_cnn else "features": options.width}
    if of_cnn:
        counts["groups of channels"] = math.gcd(GROUPS, options.width)
    for what, count in counts.items():
        if count % devices:
            raise BadOption(f"--mesh: {count} {what} do not divide over the {devices} devices of model")
