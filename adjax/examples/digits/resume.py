"""A training run that saves its state, and goes on from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from adjax.examples import saving
from adjax.examples.diagnosis import Replay, explained
from adjax.examples.digits import train as training
from adjax.examples.digits.data import Digits
from adjax.examples.digits.model import loss
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.digits.train import Checkpoint, Training, batches, init_state, make_step
from adjax.examples.finite import NonFiniteLoss

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints

MATTERS = ("model", "steps", "width", "depth", "batch", "dtype", "learning_rate", "seed")


def train(
    options: Options, data: Digits, report: Callable[[Checkpoint], None], interrupted: Callable[[], bool]
) -> Training:
    """`train.train`, with `--checkpoint` from the last state that is saved on, and with an explanation where it fails.

    Raises:
        BadOption: the checkpoints are those of another run.
        NonFiniteLoss: the loss became infinite or NaN.
        NotSaved: the last state could not be written.
    """
    with opened(options) as saved:
        try:
            return training.train(options, data, report, interrupted, saved)
        except NonFiniteLoss as error:
            raise explained(error, options, replay(options, data), saved) from None


def replay(options: Options, data: Digits) -> Replay:
    """What makes the steps of the run again."""
    apply = network(options.model).spelled
    return Replay(
        first=partial(init_state, options),
        step=make_step(options, apply),
        batch=lambda step: next(batches(options, data, step)),
        loss=partial(loss, dtype=options.dtype, apply=apply),
        measured=((data.X_train, data.y_train),),
    )


def opened(options: Options) -> AbstractContextManager[Checkpoints | None]:
    """The checkpoints of the run, or None."""
    return saving.opened(options, saving.named(options, MATTERS), "digits")
