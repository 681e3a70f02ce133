"""Results for people (tables of at most 100 columns) and for programs (one JSON object)."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness.options import Options
from benchmarks.harness.records import Bar, Table

SCHEMA = 2
WIDTH = 100
LIBRARIES = ("jax", "jaxlib", "numpy", "torch", "flax", "equinox", "optax")
STYLES = {"pass": "green", "miss": "bold red", "not judged": "dim"}


def environment() -> dict[str, Any]:
    """The machine and the version of everything that takes part; what is not installed says so."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def document(
    options: Options, where: dict[str, Any], tables: Sequence[Table], errors: Sequence[dict[str, str]]
) -> dict[str, Any]:
    """Everything that was measured, as one JSON object. ``bars`` gathers those of all tables."""
    records = [table.record() for table in tables]
    return {
        "schema": SCHEMA,
        "options": asdict(options),
        "environment": where,
        "tables": records,
        "bars": [{"table": record["name"], **bar} for record in records for bar in record["bars"]],
        "errors": list(errors),
    }


def write_json(file: Path, contents: dict[str, Any]) -> None:
    """Write the document, making its folder where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class Printer:
    """Prints tables: in colour through rich where it is installed, else as plain text."""

    def __init__(self, rich: bool | None = None) -> None:
        self.rich = importlib.util.find_spec("rich") is not None if rich is None else rich

    def header(self, where: dict[str, Any]) -> None:
        """One paragraph: versions, cores, load."""
        versions = [f"{name} {version}" for name, version in where["versions"].items() if version[0].isdigit()]
        absent = [f"{name}: {version}" for name, version in where["versions"].items() if not version[0].isdigit()]
        load = "" if where["load"] is None else f", load {where['load']:.1f}"
        self._text(f"python {where['python']}, " + ", ".join(versions + absent))
        self._text(f"{where['cores']} cores of {where['platform']}, device {where['device']}{load}")

    def table(self, table: Table) -> None:
        """The measures of every entry, who is missing and why, the ceilings, the notes and the bars."""
        headings, body = cells(table)
        self._text("")
        if self.rich:
            self._rich_table(table, headings, body)
        else:
            print(table.name, *plain_lines(headings, body), sep="\n")
        missing = [f"not measured: {entry.name} ({entry.missing})" for entry in table.entries if entry.missing]
        for line in [*missing, *map(ceiling_line, table.ceilings), *table.notes]:
            self._text(f"  {line}")
        for bar in table.bars:
            self._text(f"  {bar_line(bar)}", STYLES[bar.status])

    def _text(self, text: str, style: str = "") -> None:
        text = textwrap.fill(text, WIDTH, subsequent_indent="    ")
        if self.rich:
            self._console().print(text, style=style, markup=False, highlight=False)
        else:
            print(text)

    def _console(self, width: int = WIDTH) -> Any:
        from rich.console import Console

        return Console(width=width)

    def _rich_table(self, table: Table, headings: list[str], body: list[list[str]]) -> None:
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable

        shown = RichTable(title=escape(table.name), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, heading in enumerate(headings):
            shown.add_column(heading, justify="right" if i else "left", no_wrap=True)
        for i, line in enumerate(body):
            shown.add_row(*map(escape, line), style="" if i else "bold")
        natural = len(plain_lines(headings, body)[0]) + 2 * len(headings)
        self._console(max(WIDTH, natural)).print(shown)             # a figure that is cut says nothing


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The headings and the cells of every entry. A column that nobody fills is left out."""
    filled = [
        (heading, template)
        for heading, template in table.columns
        if any(_cell(template, entry.measures) != "–" for entry in table.entries)
    ]
    body = [[entry.name, *(_cell(template, entry.measures) for _, template in filled)] for entry in table.entries]
    return ["", *(heading for heading, _ in filled)], body


def _cell(template: str, measures: dict[str, float]) -> str:
    try:
        return template.format(**measures)
    except KeyError:
        return "–"


def plain_lines(headings: list[str], body: list[list[str]]) -> list[str]:
    """Aligned text: names on the left, figures on the right."""
    widths = [max(map(len, column)) for column in zip(headings, *body, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (headings, *body)
    ]


def bar_line(bar: Bar) -> str:
    """``pass  time: adjax / plain autodiff: 0.998 [0.991, 1.004] <= 1.03``; in brackets the 95 % interval."""
    value = "–" if bar.value is None else f"{bar.value:.4g}"
    reason = f" ({bar.reason})" if bar.reason else ""
    if bar.interval and not bar.reason:
        value += " [{:.4g}, {:.4g}]".format(*bar.interval)
    return f"{bar.status:10}  {bar.name}: {value} {bar.sense} {bar.limit:.4g} {bar.unit}".rstrip() + reason


def ceiling_line(ceiling: dict[str, Any]) -> str:
    """``GEMM 512×1024×1024: 95.2 GFLOP/s, of which ours reaches 93 %``."""
    share = "" if ceiling["share"] is None else f", of which ours reaches {100 * ceiling['share']:.0f} %"
    return f"ceiling in the same run: {ceiling['name']}: {ceiling['speed']:.1f} {ceiling['unit']}{share}"
