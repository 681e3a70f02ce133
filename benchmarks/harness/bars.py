"""Bars read off the table of a contest. The first entry is ours."""

from benchmarks.harness.records import Bar, Table


def time_at_most(table: Table, other: str, factor: float) -> Bar:
    """Our time is at most ``factor`` times the other's."""
    ours, entry = table.entries[0].name, table.entry(other)
    name = f"time: {ours} / {other}"
    if entry.missing:
        return Bar(name, None, "<=", factor, reason=entry.missing)
    m = entry.measures
    interval = (1 / m["ratio_most"], 1 / m["ratio_least"])
    return Bar(name, 1 / m["ratio"], "<=", factor, reason=table.untimed, interval=interval)


def faster_at_least(table: Table, other: str, factor: float) -> Bar:
    """The other's time is at least ``factor`` times ours."""
    ours, entry = table.entries[0].name, table.entry(other)
    name = f"time: {other} / {ours}"
    if entry.missing:
        return Bar(name, None, ">=", factor, reason=entry.missing)
    m = entry.measures
    return Bar(name, m["ratio"], ">=", factor, reason=table.untimed, interval=(m["ratio_least"], m["ratio_most"]))


def temporaries_at_most(table: Table, other: str, factor: float = 1.0) -> Bar:
    """Our program's temporaries are at most ``factor`` times the other's."""
    ours, theirs = (entry.measures.get("temporaries_mb") for entry in (table.entries[0], table.entry(other)))
    name = f"temporaries: {table.entries[0].name}, at most {factor:g} × {other}"
    if ours is None or theirs is None:
        return Bar(name, None, "<=", float("nan"), "MB", table.entry(other).missing or "not told by this backend")
    return Bar(name, ours, "<=", factor * theirs, "MB")
