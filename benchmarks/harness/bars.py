"""Bars read off the table of a contest. The first entry is ours."""

from collections.abc import Callable

from benchmarks.harness.records import Bar, Table


def time_at_most(table: Table, other: str, factor: float) -> Bar:
    """Our time is at most ``factor`` times the other's."""
    return _bar(table, f"time: {table.entries[0].name} / {other}", other, "<=", factor, lambda m: 1 / m["ratio"])


def faster_at_least(table: Table, other: str, factor: float) -> Bar:
    """The other's time is at least ``factor`` times ours."""
    return _bar(table, f"time: {other} / {table.entries[0].name}", other, ">=", factor, lambda m: m["ratio"])


def temporaries_at_most(table: Table, other: str, factor: float = 1.0) -> Bar:
    """Our program's temporaries are at most ``factor`` times the other's."""
    ours, theirs = (entry.measures.get("temporaries_mb") for entry in (table.entries[0], table.entry(other)))
    name = f"temporaries: {table.entries[0].name}, at most {factor:g} × {other}"
    if ours is None or theirs is None:
        return Bar(name, None, "<=", float("nan"), "MB", table.entry(other).missing or "not told by this backend")
    return Bar(name, ours, "<=", factor * theirs, "MB")


def _bar(
    table: Table, name: str, other: str, sense: str, limit: float, value: Callable[[dict[str, float]], float]
) -> Bar:
    entry = table.entry(other)
    if entry.missing:
        return Bar(name, None, sense, limit, reason=entry.missing)
    return Bar(name, value(entry.measures), sense, limit, reason="" if table.timed else "smoke run")
