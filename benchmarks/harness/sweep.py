"""Many shapes in one table: a line each, and bars on the geometric mean of the ratios and on the worst of them."""

import math
from collections.abc import Collection

from benchmarks.harness.options import Options
from benchmarks.harness.records import Bar, Entry, Table

SPEEDS = {"gflops": ("GFLOP/s", "{gflops:.1f}"), "gbs": ("GB/s", "{gbs:.1f}")}


def quickest(table: Table, names: Collection[str]) -> str:
    """The entry of these that takes the least time; the first where none has a time."""
    return min(names, key=lambda name: table.entry(name).measures.get("ratio", math.inf))


def sweep_table(
    name: str, tables: dict[str, Table], peers: Collection[str], speed: str, least: float, options: Options
) -> Table:
    """The contests of many shapes, by their labels: autodiff in geometric mean `least` × ours, 0.95 at the worst.

    `peers` are the entries of PyTorch, the quickest of which has to take 0.8 × ours; `speed` is what is shown of ours.
    """
    entries = [Entry(label, _line(table, peers, speed)) for label, table in tables.items()]
    of = lambda column: [e.measures[column] for e in entries if column in e.measures]
    bars = []
    for other, mean in (("autodiff", least), ("PyTorch", 0.8)):
        ratios = of(other)
        value = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
        reason = options.untimed or ("" if ratios else "not installed")
        bars.append(Bar(f"time: {other} / adjax, geometric mean", value, ">=", mean, reason=reason))
    bars.append(Bar("time: autodiff / adjax, worst", min(of("autodiff")), ">=", 0.95, reason=options.untimed))
    shares = [e.measures["ours_mb"] / e.measures["theirs_mb"] for e in entries if e.measures.get("theirs_mb")]
    if shares:
        bars.append(Bar("temporaries: adjax / autodiff, largest", max(shares), "<=", 1.0, reason=options.untimed))
    columns = (
        ("adjax ms", "{ours_ms:.3g}"), ("autodiff / ours", "{autodiff:.2f}"), ("PyTorch / ours", "{PyTorch:.2f}"),
        SPEEDS[speed], ("temp MB", "{ours_mb:.1f}"), ("of autodiff", "{theirs_mb:.1f}"),
    )  # fmt: skip
    return Table(name, columns, entries, bars=bars, untimed=options.untimed)


def _line(table: Table, peers: Collection[str], speed: str) -> dict[str, float]:
    named = ("adjax", "plain autodiff", quickest(table, peers))
    ours, autodiff, peer = (table.entry(name).measures for name in named)
    found = {
        "ours_ms": ours["median_ms"],
        "autodiff": autodiff["ratio"],
        "PyTorch": peer.get("ratio"),
        speed: ours[speed],
        "ours_mb": ours.get("temporaries_mb"),
        "theirs_mb": autodiff.get("temporaries_mb"),
    }
    return {column: value for column, value in found.items() if value is not None}
