"""The command line: `python -m adjax`, or `adjax` once installed. It parses and calls, nothing else."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from adjax.certify import options as certify_options
from adjax.certify.errors import BadInput
from adjax.examples import explained, predicted, processes
from adjax.examples.digits import options as digits_options
from adjax.examples.extras import MissingExtra, require
from adjax.examples.interrupt import INTERRUPTED
from adjax.examples.readers import BadOption
from adjax.examples.text import options as text_options

FAILED, MISUSED = 1, 2
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and says in one line what is wrong."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(MISUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> Parser:
    """The parser of every command; each sets `run`, a function of the parsed options that returns the exit status."""
    root = Parser(
        prog="adjax",
        description="Layers for JAX whose backward pass is written down as an adjoint, and proven. "
        "Without a command: the worked example, Y = X W + b and its three gradients.",
    )
    root.add_argument("--version", action="version", version=version())
    root.set_defaults(run=worked_example, parser=root)
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    prover = commands.add_parser("certify", help="prove a function's backward rule, or say what is wrong with it")
    certify_options.add_arguments(prover)
    prover.set_defaults(run=certify, parser=prover)

    explainer = commands.add_parser("explain", help="what a function's backward pass keeps and costs")
    explained.add_arguments(explainer)
    explainer.set_defaults(run=explained.main, parser=explainer)

    predictor = commands.add_parser("cost", help="what a training step of a large decoder takes on many chips")
    predicted.add_arguments(predictor)
    predictor.set_defaults(run=predicted.main, parser=predictor)

    train = commands.add_parser("train", help="train an example network on real data")
    examples = train.add_subparsers(title="examples", metavar="EXAMPLE", dest="example", required=True)
    digits = examples.add_parser("digits", help="handwritten digits, from scikit-learn")
    digits_options.add_arguments(digits)
    digits.set_defaults(run=train_digits, parser=digits)
    text = examples.add_parser("text", help="a language model of characters, from any text")
    text_options.add_arguments(text)
    text.set_defaults(run=train_text, parser=text)
    return root


def version() -> str:
    """The versions that a bug report wants."""
    try:
        own = importlib.metadata.version("adjax")
    except importlib.metadata.PackageNotFoundError:
        own = "(not installed)"
    return f"adjax {own}, jax {importlib.metadata.version('jax')}, Python {platform.python_version()}"


def worked_example(options: argparse.Namespace) -> int:
    """`adjax`."""
    from adjax.examples import worked_example

    return worked_example.main()


def certify(options: argparse.Namespace) -> int:
    """`adjax certify`."""
    from adjax.certify import program

    fields = certify_options.Options._fields
    return program.main(certify_options.Options(**{name: getattr(options, name) for name in fields}))


def train_digits(options: argparse.Namespace) -> int:
    """`adjax train digits`."""
    require("train", "optax", "rich", "sklearn")
    if options.checkpoint:
        require("train", "orbax.checkpoint")
    if options.plot:
        require("plot", "matplotlib")
    from adjax.examples.digits import program

    return program.main(digits_options.chosen(options))


def train_text(options: argparse.Namespace) -> int:
    """`adjax train text`."""
    require("train", "optax", "rich")
    if options.checkpoint:
        require("train", "orbax.checkpoint")
    chosen = text_options.chosen(options)
    if chosen.processes > 1 and not chosen.distributed:
        return processes.launch(options.given, chosen.processes, options.parser.prog)
    if chosen.distributed and not processes.watched():
        return processes.watch(options.given, options.parser.prog)
    from adjax.examples.text import program

    return program.main(chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; what goes wrong is one line on stderr."""
    given = sys.argv[1:] if arguments is None else arguments
    options, unknown = parser().parse_known_args(given)
    options.given = given
    if hasattr(options, "specs") and not any(argument.startswith("-") for argument in unknown):
        options.specs, unknown = [*options.specs, *unknown], []  # argparse takes none behind an option
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        status: int = options.run(options)
    except (BadInput, MissingExtra, BadOption) as error:
        status = complain(options, error, MISUSED)
    except KeyboardInterrupt:
        status = complain(options, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to say at the flush at exit
        status = BROKEN_PIPE
    except (ArithmeticError, MemoryError, OSError) as error:
        status = complain(options, error, FAILED)
    return status


def complain(options: argparse.Namespace, message: object, status: int) -> int:
    """Say what went wrong and return the exit status."""
    print(f"{options.parser.prog}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
