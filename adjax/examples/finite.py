"""Training ends where the loss is no number, and says so."""

from __future__ import annotations

import math
from typing import Any


class NonFiniteLoss(ArithmeticError):
    """The loss became infinite or NaN, after `step` steps."""

    def __init__(self, text: str, step: int) -> None:
        super().__init__(text)
        self.step = step


def require_finite(done: int, losses: list[float], options: Any) -> None:
    """Raise NonFiniteLoss unless every loss after `done` steps, one more, and so on, is a number.

    `options` has the number of steps, the dtype and the learning rate of the run.
    """
    for taken, value in enumerate(losses, done):
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"the loss is {value} after {taken} of {options.steps} steps "
                f"({options.dtype}, learning rate {options.learning_rate:g}); try a lower --learning-rate",
                taken,
            )
