"""A training run that saves its state, and goes on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from adjax.examples import saving
from adjax.examples.diagnosis import Replay, explained
from adjax.examples.finite import NonFiniteLoss
from adjax.examples.text import train as training
from adjax.examples.text.data import Text, batch
from adjax.examples.text.decoder import SPELLED
from adjax.examples.text.options import Options
from adjax.examples.text.train import Checkpoint, Training, init_state, make_step, network_loss

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints

MATTERS = ("steps", "width", "depth", "heads", "context", "batch", "dtype", "learning_rate", "seed")


def train(
    options: Options, text: Text, report: Callable[[Checkpoint], None], interrupted: Callable[[], bool]
) -> Training:
    """`train.train`, with `--checkpoint` from the last state that is saved on, and with an explanation where it fails.

    Raises:
        BadOption: the checkpoints are those of another run.
        NonFiniteLoss: the loss became infinite or NaN.
        NotSaved: the last state could not be written.
    """
    with opened(options, text) as saved:
        try:
            return training.train(options, text, report, interrupted, saved)
        except NonFiniteLoss as error:
            raise explained(error, options, replay(options, text), saved) from None


def replay(options: Options, text: Text) -> Replay:
    """What makes the steps of the run again."""
    alone, vocabulary = options._replace(mesh=(), mode="auto", accumulate=1, remat=False), len(text.characters)
    return Replay(
        first=partial(init_state, options, vocabulary),
        step=make_step(options, SPELLED),
        batch=lambda step: (batch(options, text.train, step),),
        loss=network_loss(alone, SPELLED, vocabulary),
    )


def opened(options: Options, text: Text) -> AbstractContextManager[Checkpoints | None]:
    """The checkpoints of the run, or None."""
    return saving.opened(options, what_matters(options, text), "text")


def what_matters(options: Options, text: Text) -> dict[str, str | int | float]:
    """What a state depends on: not the mesh, and not how the same numbers are computed."""
    digest = hashlib.sha256(text.characters.encode() + text.train.tobytes()).hexdigest()[:12]
    return saving.named(options, MATTERS) | {"a text of SHA-256": digest}
