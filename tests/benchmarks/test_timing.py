"""The statistics of side-by-side timing, on clocks that stand still and drift."""

import random
import statistics

import numpy as np
import pytest

from benchmarks.harness.timing import alternate, calls_per_sample, paired_ratio, seconds_per_call, spread


class Clock:
    """A clock that moves only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def test_spread_is_the_median_between_the_quartiles():
    result = spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (result.low, result.median, result.high) == (2.0, 3.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0, (7.0, 7.0))


def test_interval_holds_the_true_median_in_about_95_of_100_runs():
    rng = np.random.default_rng(0)
    intervals = [spread(rng.lognormal(size=41)).interval for _ in range(1000)]
    assert 0.93 <= np.mean([low <= 1 <= high for low, high in intervals]) <= 0.99


def test_ratio_is_paired_by_round_so_drift_divides_out():
    drift = [1.0, 10.0, 3.0, 0.1, 7.0]
    ours, theirs = [2 * d for d in drift], [3 * d for d in drift]
    assert paired_ratio(theirs, ours)[:3] == pytest.approx((1.5, 1.5, 1.5))
    # the median of the ratios, not the ratio of the medians
    ours, theirs = [1.0, 2.0, 9.0], [9.0, 1.0, 2.0]
    assert paired_ratio(theirs, ours).median == 0.5
    assert statistics.median(theirs) / statistics.median(ours) == 1.0
    with pytest.raises(ValueError, match=r"zip\(\)"):
        paired_ratio([1.0], [1.0, 2.0])


def test_every_round_runs_every_contender_once_in_changing_order():
    seen = []
    trials = {name: (lambda name=name: seen.append(name)) for name in "abcd"}
    outcomes = alternate(trials, seconds=0, rounds=(20, 20), seed=3)
    rounds = [tuple(seen[i : i + 4]) for i in range(0, len(seen), 4)]
    assert len(rounds) == 20
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 5
    assert {order[0] for order in rounds} == set("abcd")
    assert all(len(values) == 20 for values in outcomes.values())
    again, seen[:] = list(seen), []
    alternate(trials, seconds=0, rounds=(20, 20), seed=3)
    assert seen == again


@pytest.mark.parametrize(("rounds", "expected"), [((1, 100), 5), ((8, 100), 8), ((1, 3), 3)])
def test_rounds_fill_the_time_between_their_bounds(rounds, expected):
    clock = Clock()
    trials = {"a": lambda: clock.advance(0.5), "b": lambda: clock.advance(1.5)}
    outcomes = alternate(trials, seconds=10, rounds=rounds, clock=clock)
    assert [len(values) for values in outcomes.values()] == [expected, expected]


def test_the_second_of_two_runs_is_timed():
    clock, costs = Clock(), iter([9.0, 9.0, 1.0, 3.0])
    assert seconds_per_call(lambda: clock.advance(next(costs)), 2, clock) == 2.0


def test_tiny_work_is_called_until_a_sample_lasts():
    clock, durations = Clock(), random.Random(0)
    assert calls_per_sample(lambda: clock.advance(1e-4), 5e-3, clock) == 50
    assert calls_per_sample(lambda: clock.advance(durations.uniform(1, 2)), 5e-3, clock) == 1
    assert calls_per_sample(lambda: None, 5e-3, clock) == 1
