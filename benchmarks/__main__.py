"""``python -m benchmarks``: run the rows of every module here, print the tables, write them as JSON."""

import argparse
import fnmatch
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.options import Options
from benchmarks.harness.records import Row, Table
from benchmarks.harness.report import Printer, document, environment, write_json

HERE = Path(__file__).parent


def find_rows(options: Options) -> dict[str, Row]:
    """The rows of every module beside this one, by ``module: row``."""
    found = {}
    for file in sorted(HERE.glob("[!_]*.py")):
        module = importlib.import_module(f"{__package__}.{file.stem}")
        found |= {f"{file.stem}: {row.name}": row for row in module.rows(options)}
    return found


def choose(names: Sequence[str], pattern: str | None) -> list[str]:
    """The names that contain the pattern, in which * and ? stand for anything and × may be typed as x."""
    if pattern is None:
        return list(names)
    return [name for name in names if fnmatch.fnmatch(_typed(name), f"*{_typed(pattern)}*")]


def _typed(text: str) -> str:
    return text.lower().replace("×", "x")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time the layers against autodiff and peers."
    )
    parser.add_argument(
        "--seconds", type=float, default=Options.seconds, help="time to measure a row (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=Options.seed, help="of the orders of a round (default: %(default)s)"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one round: does everything run?")
    parser.add_argument("--only", metavar="PATTERN", help="rows whose name contains this; * and ? match anything")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="default: benchmarks/results/latest.json or smoke.json"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when a bar is missed")
    return parser.parse_args(arguments)


def measure(rows: dict[str, Row], options: Options, printer: Printer) -> tuple[list[Table], list[dict[str, str]]]:
    """The tables of all rows. One that fails is told and does not stop the others."""
    tables: list[Table] = []
    errors: list[dict[str, str]] = []
    for name, row in rows.items():
        try:
            tables.append(row.measure(options))
        except Exception as error:
            traceback.print_exc()
            errors.append({"row": name, "error": f"{type(error).__name__}: {error}"})
        else:
            printer.table(tables[-1])
    return tables, errors


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 when a row failed or (``--strict``) a bar is missed, or 2 when no row has such a name."""
    chosen = parse(arguments)
    options = Options(seconds=chosen.seconds, smoke=chosen.smoke, seed=chosen.seed)
    rows = find_rows(options)
    names = choose(list(rows), chosen.only)
    if not names:
        print(f"no row matches {chosen.only!r}; --list prints them all", file=sys.stderr)
        return 2
    if chosen.list:
        print(*names, sep="\n")
        return 0
    printer = Printer()
    where = environment()
    printer.header(where)
    tables, errors = measure({name: rows[name] for name in names}, options, printer)
    file = chosen.json or HERE / "results" / ("smoke.json" if options.smoke else "latest.json")
    write_json(file, document(options, where, tables, errors))
    missed = sum(bar.status == "miss" for table in tables for bar in table.bars)
    print(f"\n{len(tables)} rows, {missed} bars missed, {len(errors)} errors; written to {file}")
    return 1 if errors or (chosen.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
