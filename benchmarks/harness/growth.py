"""How temporaries grow with the size of the work: programs are compiled, not run."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.harness.options import Options
from benchmarks.harness.peers import forward_backward
from benchmarks.harness.programs import compile_timed
from benchmarks.harness.records import Bar, Entry, Table

Work = tuple[Mapping[str, Callable[..., Any]], tuple[Any, ...], Any]    # functions by name, their inputs, a cotangent


def growth_table(name: str, sizes: Mapping[str, Work], most: float, options: Options) -> Table:
    """One line a size; ours, the first function, may grow from the first line to the last by the factor `most`."""
    entries = []
    for label, (functions, inputs, dY) in sizes.items():
        programs = {name: compile_timed(forward_backward(f), inputs, dY) for name, f in functions.items()}
        told = {name: p.temporaries / 1e6 for name, p in programs.items() if p.temporaries is not None}
        entries.append(Entry(label, told, "" if told else "not told by this backend"))
    names = list(functions)
    columns = tuple((f"{name} MB", f"{{{name}:.2f}}") for name in names)
    first, last = (entries[i].measures.get(names[0]) for i in (0, -1))
    ratio = last / first if first and last is not None else None
    reason = options.untimed or ("" if ratio is not None else "not told by this backend")
    return Table(name, columns, entries, bars=[Bar("temporaries: grow by", ratio, "<=", most, reason=reason)])
