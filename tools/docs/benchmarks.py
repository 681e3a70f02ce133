"""The tables of benchmarks, from the JSON that `python -m benchmarks` writes; no figure is typed."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.records import Bar, Entry, Table
from benchmarks.harness.report import SCHEMA, bar_line, ceiling_line, cells

PEERS = ("plain autodiff", "Flax", "Equinox", "PyTorch")
NOTHING = "Nothing has been measured in this checkout: `make bench` writes the figures that this page shows.\n"


def read(files: Iterable[Path]) -> dict[str, Any] | None:
    """The first of these documents that exists and has today's form."""
    documents = (json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists())
    return next((document for document in documents if document["schema"] == SCHEMA), None)


def tables(document: Mapping[str, Any] | None) -> dict[str, str]:
    """The pieces of Markdown, by name: `summary`, a line a contest, and `everything`."""
    if document is None:
        return {"summary": NOTHING, "everything": NOTHING}
    measured = [restored(record) for record in document["tables"]]
    where = _where(document["environment"])
    return {
        "summary": "\n".join([*_summary(measured), "", where, ""]),
        "everything": "\n".join([where, "", *(line for table in measured for line in _whole(table))]),
    }


def restored(record: Mapping[str, Any]) -> Table:
    """The table that `Table.record` wrote."""
    return Table(
        name=record["name"],
        columns=tuple((heading, template) for heading, template in record["columns"]),
        entries=[Entry(**entry) for entry in record["entries"]],
        ceilings=record["ceilings"],
        bars=[Bar(**{field: value for field, value in bar.items() if field != "status"}) for bar in record["bars"]],
        notes=record["notes"],
        untimed=record["untimed"],
    )


def _summary(measured: list[Table]) -> Iterator[str]:
    contests = [table for table in measured if "median_ms" in table.entries[0].measures and not table.untimed]
    peers = [peer for peer in PEERS if any(_ratio(table, peer) for table in contests)]
    body = [
        [
            table.name,
            f"{table.entries[0].measures['median_ms']:.3g}",
            *(f"{ratio:.2f} ×" if (ratio := _ratio(table, peer)) else "–" for peer in peers),
        ]
        for table in contests
    ]
    yield from markdown(["", "adjax, ms", *peers], body)
    bars = [bar for table in measured for bar in table.bars if bar.status != "not judged"]
    met = sum(bar.status == "pass" for bar in bars)
    yield from ("", "The other columns say how many times as long the same work takes there.")
    yield f"Of {len(bars)} bars that these figures are held to, {met} are met: [all of them](benchmarks.md)."


def _ratio(table: Table, peer: str) -> float | None:
    """How many times as long as ours the quickest entry of that peer takes."""
    ratios = [entry.measures["ratio"] for entry in table.entries[1:] if _is_of(entry, peer)]
    return min(ratios, default=None)


def _is_of(entry: Entry, peer: str) -> bool:
    return entry.name.lower().startswith(peer.lower()) and "ratio" in entry.measures


def _whole(table: Table) -> Iterator[str]:
    yield from (f"## {table.name}", "")
    yield from markdown(*cells(table))
    missing = [f"not measured: {entry.name} ({entry.missing})" for entry in table.entries if entry.missing]
    notes = [*missing, *map(ceiling_line, table.ceilings), *table.notes, *map(_bar, table.bars)]
    yield from ("", *(f"- {' '.join(note.split())}" for note in notes), "")


def _bar(bar: Bar) -> str:
    return f"**{bar.status}**: {bar_line(bar).removeprefix(bar.status)}"


def markdown(headings: list[str], body: list[list[str]]) -> list[str]:
    """A table: names on the left, figures on the right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return [f"| {' | '.join(line)} |" for line in (headings, rule, *body)]


def _where(environment: Mapping[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in environment["versions"].items() if version[0].isdigit()]
    return f"Measured on {environment['cores']} cores, {environment['device']}: {', '.join(versions)}."
