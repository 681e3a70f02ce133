"""Where a program saves its state, if it does: read without orbax, which only `--checkpoint` needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints


class SavingOptions(Protocol):
    """What the options of a program have for this."""

    @property
    def checkpoint(self) -> Path | None:
        """The folder; None for no checkpoints."""

    @property
    def checkpoint_every(self) -> int:
        """Steps from one to the next."""


def named(options: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The options of these names, as one gives them."""
    return {f"--{name.replace('_', '-')}": getattr(options, name) for name in names}


def opened(
    options: SavingOptions, run: Mapping[str, Any], program: str
) -> AbstractContextManager[Checkpoints | None]:
    """The checkpoints of a run, or None; `run` is what its state depends on.

    Raises:
        BadOption: the checkpoints are those of another run.
    """
    if options.checkpoint is None:
        return nullcontext()
    from adjax.examples.checkpoints import Checkpoints

    return Checkpoints(options.checkpoint, run, every=options.checkpoint_every, say=partial(say, program))


def say(program: str, text: str) -> None:
    """A line on stderr, which a progress bar lets pass above itself."""
    if jax.process_index() == 0:
        print(f"adjax train {program}: {text}", file=sys.stderr, flush=True)
