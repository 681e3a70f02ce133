"""What is measured, as plain records: they print as tables and are written as JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.harness.options import Options

SENSES: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, limit: value <= limit,
    ">=": lambda value, limit: value >= limit,
    "==": lambda value, limit: value == limit,
}


@dataclass(frozen=True)
class Bar:
    """A named check: ``value sense limit``. A bar with a reason is shown with it and not judged.

    ``interval`` is where a measured value lies with 95 % confidence: a limit inside it is not settled by this run.
    """

    name: str
    value: float | None
    sense: str
    limit: float
    unit: str = ""
    reason: str = ""
    interval: tuple[float, float] | None = None

    @property
    def status(self) -> str:
        """``pass``, ``miss`` or ``not judged``."""
        if self.reason or self.value is None:
            return "not judged"
        return "pass" if SENSES[self.sense](self.value, self.limit) else "miss"


@dataclass(frozen=True)
class Entry:
    """One line of a table: a contender and its measures, or the reason why it has none."""

    name: str
    measures: dict[str, float] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Table:
    """What measuring one row gave. ``columns`` are headings with the template of their cells: ``"{median_ms:.2f}"``.

    The first entry is ours. ``untimed`` says why the times mean nothing (one round of a smoke run).
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    entries: list[Entry]
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    untimed: str = ""

    def entry(self, name: str) -> Entry:
        """The entry of that name."""
        return next(entry for entry in self.entries if entry.name == name)

    def with_bars(self, bars: list[Bar]) -> "Table":
        """The same measures, judged by these bars."""
        return replace(self, bars=bars)

    def record(self) -> dict[str, Any]:
        """As JSON: every field, and the status of each bar."""
        return asdict(self) | {"bars": [asdict(bar) | {"status": bar.status} for bar in self.bars]}


@dataclass(frozen=True)
class Row:
    """One thing to measure: nothing is built before ``measure`` is called."""

    name: str
    measure: Callable[[Options], Table]
