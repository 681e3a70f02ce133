"""Timing by turns, and the statistics of it.

Times measured in one process drift together (frequency, neighbours, what the allocator kept), so contenders are run in
rounds, each once a round and in an order drawn anew, and two of them are compared by the ratio within each round: the
drift is in both and divides out. What is reported is the median of these ratios, with quartiles.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
Clock = Callable[[], float]


class Spread(NamedTuple):
    """A median between its quartiles, and the interval in which the true median lies with 95 % confidence."""

    low: float
    median: float
    high: float
    interval: tuple[float, float]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value. The interval holds for any distribution: the order statistics of rank n/2 ± 0.98 √n."""
    ordered, n = sorted(map(float, values)), len(values)
    margin = 0.98 * math.sqrt(n)
    first, last = max(0, math.floor(n / 2 - margin)), min(n - 1, math.ceil(n / 2 + margin))
    low, median, high = (float(q) for q in np.quantile(ordered, [0.25, 0.5, 0.75]))
    return Spread(low, median, high, (ordered[first], ordered[last]))


def paired_ratio(others: Sequence[float], ours: Sequence[float]) -> Spread:
    """The spread of other / ours, round by round. Both were measured in the same rounds."""
    return spread([other / our for other, our in zip(others, ours, strict=True)])


def alternate(
    trials: Mapping[str, Callable[[], T]],
    *,
    seconds: float,
    rounds: tuple[int, int],
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> dict[str, list[T]]:
    """Run each trial once a round, in an order drawn anew each round, until the seconds are spent.

    At least ``rounds[0]`` and at most ``rounds[1]`` rounds are run, and a round is always finished.
    """
    rng, (least, most) = random.Random(seed), rounds
    outcomes: dict[str, list[T]] = {name: [] for name in trials}
    deadline, order = clock() + seconds, list(trials)
    for done in range(most):
        if done >= least and clock() >= deadline:
            break
        rng.shuffle(order)
        for name in order:
            outcomes[name].append(trials[name]())
    return outcomes


def seconds_per_call(call: Callable[[], object], calls: int, clock: Clock = time.perf_counter) -> float:
    """Time of one call, averaged over the second of two runs of ``calls`` calls.

    The first run finds the memory, the caches and the thread pools as the contender before left them.
    """
    start = end = 0.0
    for _ in range(2):
        start = clock()
        for _ in range(calls):
            call()
        end = clock()
    return (end - start) / calls


def calls_per_sample(call: Callable[[], object], sample_seconds: float, clock: Clock = time.perf_counter) -> int:
    """How many calls last about ``sample_seconds``, judged after one call that warms up."""
    one = seconds_per_call(call, 1, clock)
    return max(1, round(sample_seconds / one)) if one > 0 else 1
