"""What ``import adjax`` adds to ``import jax``, each time in a fresh process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import adjax
from benchmarks.harness import Bar, Entry, Options, Row, Table, alternate, spread

BAR_MS, MOST_CHILDREN = 150, 15
CHILD = """
import time
start = time.perf_counter()
import jax
between = time.perf_counter()
import adjax
print(between - start, time.perf_counter() - between)
"""


def rows(options: Options) -> Iterator[Row]:
    """One row: the package is imported as a whole."""
    yield Row("import adjax", measure)


def child_ms() -> tuple[float, float]:
    """Milliseconds of ``import jax`` and of ``import adjax`` after it, in one new interpreter.

    Both are clocked in the same child, so that what jax takes, and how it varies, is in neither side of the difference.
    """
    root = Path(adjax.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", CHILD], cwd=root, capture_output=True, text=True, check=True)
    jax_s, adjax_s = map(float, child.stdout.split())
    return 1e3 * jax_s, 1e3 * adjax_s


def measure(options: Options) -> Table:
    """The median of several children, after one that fills the file cache."""
    child_ms()
    rounds = options.rounds[0], min(options.rounds[1], MOST_CHILDREN)
    jax_ms, adjax_ms = zip(
        *alternate({"child": child_ms}, seconds=options.seconds, rounds=rounds)["child"], strict=True
    )
    added = spread(adjax_ms)
    spreads = {"import adjax, after jax": added, "import jax": spread(jax_ms)}
    return Table(
        "import, in fresh processes",
        (("median ms", "{median_ms:.1f}"), ("quartiles", "{low_ms:.1f}-{high_ms:.1f}")),
        [Entry(name, {"median_ms": s.median, "low_ms": s.low, "high_ms": s.high}) for name, s in spreads.items()],
        bars=[
            Bar("import adjax adds", added.median, "<=", BAR_MS, "ms", reason=options.untimed, interval=added.interval)
        ],
        notes=[f"processes: {len(adjax_ms)}"],
        untimed=options.untimed,
    )
