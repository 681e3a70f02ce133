"""A contest: several ways to do one piece of work, measured side by side in one process."""

import contextlib
import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.harness.ceilings import Ceiling
from benchmarks.harness.options import Options
from benchmarks.harness.programs import Program
from benchmarks.harness.records import Entry, Table
from benchmarks.harness.timing import Spread, alternate, calls_per_sample, paired_ratio, seconds_per_call, spread

COLUMNS = (
    ("median ms", "{median_ms:.4g}"),
    ("quartiles", "{low_ms:.3g}-{high_ms:.3g}"),
    ("/ ours", "{ratio:.3f}"),
    ("quartiles", "{ratio_low:.3f}-{ratio_high:.3f}"),
    ("GFLOP/s", "{gflops:.1f}"),
    ("GB/s", "{gbs:.1f}"),
    ("temp MB", "{temporaries_mb:.2f}"),
    ("compile ms", "{build_ms:.0f}"),
)


@dataclass(frozen=True)
class Contender:
    """One way to do the work: ``call`` does the whole of it once and returns when it is done.

    ``view`` turns what ``call`` returns into arrays in the order of our own, to compare them; None compares nothing.
    ``missing`` says why there is no call.
    """

    name: str
    call: Callable[[], Any] | None = None
    program: Program | None = None
    view: Callable[[Any], Sequence[Any]] | None = jax.tree.leaves
    missing: str = ""


def contest(
    name: str,
    contenders: Sequence[Contender],
    options: Options,
    *,
    flops: float | None = None,
    bytes_moved: float | None = None,
    ceilings: Sequence[Ceiling] = (),
    judged: Collection[str] = (),
    tolerance: float = 1e-3,
) -> Table:
    """Time the contenders, the first of which is ours, and the ceilings by turns; give a table of ratios.

    The ``judged``, those that a bar compares with ours, get as long again alone with it: their ratios must be sharp.
    ``flops`` and ``bytes_moved`` are those that the work needs, the same for everyone.
    Raises ValueError when a contender's result is further than ``tolerance`` from ours, relative to the largest entry.
    """
    ours, running = contenders[0].name, {c.name: c.call for c in contenders if c.call is not None}
    check_agreement(contenders, tolerance)
    times = time_calls(running | {c.name: c.call for c in ceilings}, options)
    duel = {name: running[name] for name in (ours, *judged) if name in running}
    alone = time_calls(duel, options) if len(duel) > 1 else {}
    ratios = {name: paired_ratio(times[name], times[ours]) for name in running}
    ratios |= {name: paired_ratio(times[name] + alone[name], times[ours] + alone[ours]) for name in alone}
    entries = []
    for c in contenders:
        measures = (
            _measures(spread(times[c.name]), ratios[c.name], c.program, flops, bytes_moved) if c.name in running else {}
        )
        entries.append(Entry(c.name, measures, c.missing))
    reached = {"GFLOP/s": entries[0].measures.get("gflops"), "GB/s": entries[0].measures.get("gbs")}
    note = f"rounds: {len(times[ours])}, orders drawn at random, the second of two runs timed"
    more = f"; {len(alone[ours])} more of {', '.join(alone)} alone" if alone else ""
    return Table(
        name,
        COLUMNS,
        entries,
        ceilings=[c.record(spread(times[c.name]).median, reached[c.unit]) for c in ceilings],
        notes=[note + more],
        untimed=options.untimed,
    )


def time_calls(calls: dict[str, Callable[[], Any]], options: Options) -> dict[str, list[float]]:
    """Seconds per call of each, round by round, after one round that warms up and chooses the calls of a sample."""
    counts = {name: calls_per_sample(call, options.sample_seconds) for name, call in calls.items()}
    trials = {name: lambda name=name: seconds_per_call(calls[name], counts[name]) for name in calls}
    with _no_garbage_collection():
        return alternate(trials, seconds=options.seconds, rounds=options.rounds, seed=options.seed)


def check_agreement(contenders: Sequence[Contender], tolerance: float) -> None:
    """Refuse a contest in which someone computes something else."""
    ours, *others = contenders
    others = [c for c in others if c.call is not None and c.view is not None]
    if not others:
        return
    expected = [np.asarray(leaf) for leaf in ours.view(ours.call())]
    for other in others:
        difference = relative_difference([np.asarray(leaf) for leaf in other.view(other.call())], expected)
        if not difference <= tolerance:
            raise ValueError(
                f"{other.name} computes something else than {ours.name}: relative difference {difference:.2g}, "
                f"at most {tolerance:.2g} allowed"
            )


def relative_difference(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference of two lists of arrays, each relative to its largest entry; inf if shapes differ."""
    if [a.shape for a in actual] != [e.shape for e in expected]:
        return float("inf")
    pairs = [(a, e) for a, e in zip(actual, expected, strict=True) if e.size]
    differences = [np.max(np.abs(a - e)) / (np.max(np.abs(e)) or 1.0) for a, e in pairs]
    return float(np.max(differences, initial=0.0))


def _measures(
    time: Spread, ratio: Spread, program: Program | None, flops: float | None, bytes_moved: float | None
) -> dict[str, float]:
    measures = {"median_ms": 1e3 * time.median, "low_ms": 1e3 * time.low, "high_ms": 1e3 * time.high}
    measures |= {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
    measures |= {"ratio_least": ratio.interval[0], "ratio_most": ratio.interval[1]}
    if flops is not None:
        measures["gflops"] = flops / time.median / 1e9
    if bytes_moved is not None:
        measures["gbs"] = bytes_moved / time.median / 1e9
    if program is not None:
        measures["build_ms"] = program.total_ms
        if program.temporaries is not None:
            measures["temporaries_mb"] = program.temporaries / 1e6
    return measures


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
