"""The same training step with spelled adjoints and with plain autodiff: how fast, and how far apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from adjax.examples.terminal import Terminal

PAIRS, FEWEST_PAIRS = 11, 3
BLOCK_SECONDS = 0.05
LONGEST_SECONDS = 3.0


class Difference(NamedTuple):
    """The largest difference between entries of the two gradients, and the norm of the spelled gradient."""

    largest: float
    norm: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the norm."""
        return self.largest / self.norm if self.largest else 0.0


class Speed(NamedTuple):
    """Steps per second in each block of steps, pair by pair."""

    spelled: np.ndarray
    autodiff: np.ndarray


def difference(spelled: Any, autodiff: Any) -> Difference:
    """Of two gradients, as they are read in float64."""
    wide = [[np.asarray(g, np.float64) for g in jax.tree.leaves(tree)] for tree in (spelled, autodiff)]
    largest = max(np.abs(a - b).max(initial=0) for a, b in zip(*wide, strict=True))
    return Difference(float(largest), float(np.sqrt(sum((g**2).sum() for g in wide[0]))))


def speed(
    steps: dict[str, Callable[[Any], Any]], states: dict[str, Any], interrupted: Callable[[], bool]
) -> Speed | None:
    """Time the two steps, "spelled" and "autodiff", in alternating blocks; None if interrupted.

    A step makes a state from one. Which goes first changes from pair to pair, so that neither gains from what the other
    left in the caches.
    """
    states = dict(states)

    def block(name: str, count: int) -> float:
        state = states[name]
        start = time.perf_counter()
        for _ in range(count):
            state = steps[name](state)
        jax.block_until_ready(state)
        elapsed = time.perf_counter() - start
        states[name] = state
        return elapsed / count

    for name in steps:
        block(name, 1)  # compiles
    count = max(1, round(BLOCK_SECONDS / min(block(name, 2) for name in steps)))
    measured: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + LONGEST_SECONDS
    for pair in range(PAIRS):
        if pair >= FEWEST_PAIRS and time.perf_counter() > end:
            break
        for name in list(steps)[:: 1 if pair % 2 else -1]:
            if interrupted():
                return None
            measured[name].append(1 / block(name, count))
    return Speed(**{name: np.array(rates) for name, rates in measured.items()})


def comparison(
    plain: str, difference: Difference, speed: Speed | None, terminal: Terminal, more: tuple[str, ...] = ()
) -> str:
    """Both beside each other, with more lines behind; without the speed, where its measurement was interrupted."""
    lines = [terminal.paint(f"Spelled adjoints beside plain autodiff of {plain}", "bold")]
    if speed is not None:
        ratio = speed.spelled / speed.autodiff
        low, middle, high = np.percentile(ratio, [25, 50, 75])
        lines += [
            f"  steps a second  {_rate(speed.spelled):>8}  spelled",
            f"                  {_rate(speed.autodiff):>8}  autodiff"
            + terminal.paint(f", medians of {len(ratio)} alternating blocks", "dim"),
            f"  ratio           {middle:>8.2f}"
            + terminal.paint(f"  half of the pairs in {low:.2f} to {high:.2f}", "dim"),
        ]
    lines.append(
        f"  gradients apart {difference.largest:>8.1e}  at most, {difference.relative:.1e} of the norm"
        + terminal.paint(", on one batch", "dim")
    )
    return "\n".join([*lines, *more])


def _rate(rates: np.ndarray) -> str:
    median = float(np.median(rates))
    return f"{median:.0f}" if median >= 10 else f"{median:.2f}"
