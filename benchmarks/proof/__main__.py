"""``python -m benchmarks.proof``: run the planted rules through every checker and print who caught what."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness.report import environment, write_json
from benchmarks.proof.checkers import Checker, checkers, version
from benchmarks.proof.tables import WIDTH, Trial, dtype_lines, failures, family, filled, record, verbose_line
from tests.certify.rules import DTYPES, Rule

SCHEMA = 1
DEVICES = 8
LIBRARIES = ("jax", "numpy", "chex", "torch")
RULES_PER_CACHE = 32                # JAX keeps every compiled program: without a limit, gigabytes
LEGEND = (
    "kills: wrong rules refuted; laws, causes: the broken law named; the mistake named, of those that have a name",
    "alarms: right rules refuted; waived: deliberate departures refuted, of whose waivers adjax alone is told",
    "errors: neither refuted nor passed, but broken down; 3 1e is three refuted, one error",
    "torch judges in float64, and real functions alone; all but adjax judge reverse mode alone, for custom_vjp has no "
    "other",
)


def prepare() -> None:
    """JAX as in the tests: eight simulated devices, float64, no implicit promotion. Before JAX looks for devices."""
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def planted() -> list[Rule]:
    """All wrong rules and then all right ones. Imported only here: they may make arrays, so `prepare` comes first."""
    from tests.certify.mutants import MUTANTS
    from tests.certify.right import RIGHT

    return [*MUTANTS, *RIGHT]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.proof", description="Judge planted wrong and right rules by adjax and by others."
    )
    add = parser.add_argument
    add("--dtype", action="append", choices=DTYPES, help="default: float32; may be repeated")
    add("--keys", type=_positive, default=1, metavar="N", help="seeds of adjax for right rules (default: 1, bar: 20)")
    add("--wrong-keys", type=_positive, default=1, metavar="N", help="seeds of adjax for wrong rules (default: 1)")
    add("--only", default="", metavar="SUBSTRING", help="rules whose name contains this, in either case")
    add("--family", action="append", metavar="NAME", help="rules with this before the colon; may be repeated")
    add("--checker", action="append", metavar="NAME", help="adjax, and checkers whose name contains this")
    add("--contexts", action="store_true", help="certify the right rules in all contexts")
    add("--verbose", action="store_true", help="say of each rule who is wrong about it")
    add("--list", action="store_true", help="print the names of the rules and stop")
    add("--json", type=Path, metavar="FILE", help="write every outcome to this file")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def choose(rules: Sequence[Rule], only: str, families: Sequence[str] | None) -> list[Rule]:
    """The rules that were asked for."""
    return [r for r in rules if only.lower() in r.name.lower() and (not families or family(r) in families)]


def conditions(options: argparse.Namespace) -> Iterator[str]:
    """Versions, and how adjax is asked."""
    where = environment()
    versions = ", ".join(f"{name} {version(name) or 'not installed'}" for name in LIBRARIES)
    yield f"python {where['python']}, {versions}, {jax.device_count()} {where['device']} devices"
    right = "in all contexts" if options.contexts else "in no context (--contexts: in all)"
    yield (
        f"adjax: every law; wrong rules with {_keys(options.wrong_keys)}, in no context (contexts=[]), save those that "
        f"are wrong in one only; right rules with {_keys(options.keys)}, {right}"
    )


def _keys(number: int) -> str:
    return "one key" if number == 1 else f"{number} keys"


def judge(rules: Sequence[Rule], dtype: str, asked: Sequence[Checker], verbose: bool) -> list[Trial]:
    """Every rule by every checker. Says how far it is, in a terminal or rule by rule."""
    trials = []
    for i, rule in enumerate(rules, start=1):
        if not verbose and sys.stderr.isatty():
            line = f"{dtype} {i}/{len(rules)} {rule.name}"
            print(f"\r{line[: WIDTH - 1]:{WIDTH - 1}}", end="", file=sys.stderr, flush=True)
        trials.append(Trial(rule, {checker.name: checker(rule, dtype) for checker in asked}))
        if verbose:
            print(verbose_line(trials[-1], asked), flush=True)
        if i % RULES_PER_CACHE == 0:
            jax.clear_caches()
    if not verbose and sys.stderr.isatty():
        print("\r" + " " * (WIDTH - 1) + "\r", end="", file=sys.stderr, flush=True)
    return trials


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 when adjax missed a wrong rule or refuted a right one, or 2 when there is no such rule."""
    options = parse(arguments)
    prepare()
    dtypes = list(dict.fromkeys(options.dtype or ["float32"]))
    chosen = choose(planted(), options.only, options.family)
    if options.list:
        print(*(rule.name for rule in chosen), sep="\n")
        return 0
    groups = {d: [r for r in chosen if d in r.dtypes and r.devices <= jax.device_count()] for d in dtypes}
    if not any(groups.values()):
        print("no rule has such a name and dtype; --list prints them all", file=sys.stderr)
        return 2
    asked = checkers(options.keys, options.wrong_keys, options.contexts)
    if options.checker:
        asked = [c for c in asked if c.name == "adjax" or any(name in c.name for name in options.checker)]
    for paragraph in (*conditions(options), *LEGEND):
        print(filled(paragraph))
    results: dict[str, list[Trial]] = {}
    for dtype, rules in groups.items():
        if rules:
            results[dtype] = judge(rules, dtype, asked, options.verbose)
            print(*dtype_lines(dtype, results[dtype], asked), sep="\n", flush=True)
            if options.json:
                write_json(options.json, document(options, results, asked))
    return 1 if any(failures(trials, "adjax") for trials in results.values()) else 0


def document(options: argparse.Namespace, results: Mapping[str, Sequence[Trial]], asked: Sequence[Checker]) -> Any:
    """Every outcome so far, as JSON."""
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    where = environment() | {"checkers": {name: version(name) for name in LIBRARIES}}
    tables = [record(dtype, trials, asked) for dtype, trials in results.items()]
    return {"schema": SCHEMA, "options": settings, "environment": where, "dtypes": tables}


if __name__ == "__main__":
    sys.exit(main())
