"""The options of a mesh, which the programs share: read here, so that nothing is imported before they are right."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Protocol

from ..readers import BadOption, integer

AXES = {
    "data": "splits the examples of a batch",
    "fsdp": "splits them too, and every parameter and all of the optimizer's state (ZeRO-3)",
    "model": "splits the features between two layers",
    "sequence": "splits the characters of an example",
}
MODES = ("auto", "explicit", "shard_map")
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64"}

Axes = tuple[tuple[str, int], ...]


class MeshOptions(Protocol):
    """What the options of a program have for this."""

    @property
    def mesh(self) -> Axes:
        """The axes of the mesh with their sizes; without any, no mesh."""

    @property
    def mode(self) -> str:
        """One of `MODES`."""

    @property
    def devices(self) -> int | None:
        """So many simulated CPU devices."""

    @property
    def batch(self) -> int:
        """Examples a step."""

    @property
    def accumulate(self) -> int:
        """Micro-batches a step."""

    @property
    def dtype(self) -> str:
        """The name of the layers' dtype."""


def add_arguments(
    parser: argparse.ArgumentParser, dtypes: tuple[str, ...], dtype_help: str, axes: tuple[str, ...] = tuple(AXES)
) -> None:
    """Declare them with their meanings, bounds and defaults, and with the axes that a program has."""
    parser.add_argument(
        "--dtype",
        type=dtype_name,
        choices=dtypes,
        default=dtypes[0],
        help=f"{dtype_help}; bf16 and the like will do (default {dtypes[0]})",
    )
    parser.add_argument(
        "--mesh",
        type=partial(mesh, known=axes),
        metavar="AXIS=N,...",
        default=(),
        help="train on a mesh of devices, as data=4,model=2. "
        + "; ".join(f"{name} {meaning}" for name, meaning in AXES.items() if name in axes),
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        help="who lays arrays out over the mesh: the compiler (auto, the default), their types (explicit), or the "
        "program, which runs on each device and says what to sum (shard_map)",
    )
    parser.add_argument("--devices", type=integer(1, 1024), metavar="N", help="simulate N devices on CPU")
    parser.add_argument(
        "--accumulate",
        type=integer(1),
        metavar="N",
        default=1,
        help="micro-batches that a batch is cut into, one after the other (default 1)",
    )


def dtype_name(text: str) -> str:
    """`bfloat16` of bf16, and so on.

    >>> dtype_name("bf16"), dtype_name("float32")
    ('bfloat16', 'float32')
    """
    return DTYPES.get(text, text)


def mesh(text: str, known: tuple[str, ...] = tuple(AXES)) -> Axes:
    """A reader of axes and their sizes.

    >>> mesh("data=4,model=2")
    (('data', 4), ('model', 2))
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals and size.isdecimal() and int(size) for _, equals, size in pairs):
        raise argparse.ArgumentTypeError(f"must be axes and their sizes like data=4,model=2, got {text!r}")
    names = [name for name, _, _ in pairs]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no axis {name!r}, only {', '.join(known)}")
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"the axis {name} is given twice in {text!r}")
    return tuple((name, int(size)) for name, _, size in pairs)


def spelled(axes: Axes) -> str:
    """As it was given.

    >>> spelled((("data", 4), ("model", 2)))
    'data=4,model=2'
    """
    return ",".join(f"{name}={size}" for name, size in axes)


def where(options: MeshOptions) -> str:
    """What the introduction of a program says of all this: nothing on one device."""
    parts = f" in {options.accumulate} parts" if options.accumulate > 1 else ""
    return parts + (f"    on {spelled(options.mesh)}, {options.mode}" if options.mesh else "")


def size(options: MeshOptions, *names: str) -> int:
    """The devices along some axes."""
    product = 1
    for name, count in options.mesh:
        product *= count if name in names else 1
    return product


def chosen_mode(mode: str | None, axes: Axes) -> str:
    """The mode, `auto` if none was given.

    Raises:
        BadOption: a mode without a mesh.
    """
    if mode is not None and not axes:
        raise BadOption(f"--mode: {mode} is of a mesh, and no --mesh is given")
    return mode or MODES[0]


def check_batch(options: MeshOptions) -> None:
    """Raise BadOption unless the batch divides into micro-batches, and those over the devices."""
    count, devices = options.accumulate, size(options, "data", "fsdp")
    if options.batch % count:
        raise BadOption(f"--accumulate: a batch of {options.batch} has no {count} equal micro-batches")
    if options.batch // count % devices:
        part = f"a batch of {options.batch}" if count == 1 else f"a micro-batch of {options.batch // count}"
        raise BadOption(f"--mesh: {part} does not divide over the {devices} devices of {spelled(options.mesh)} "
                        "that split it")  # fmt: skip
