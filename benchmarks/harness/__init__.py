"""What every benchmark module shares: contests, compiled programs, peers, ceilings, bars and the report."""

from benchmarks.harness.bars import faster_at_least, temporaries_at_most, time_at_most
from benchmarks.harness.ceilings import Ceiling, copy_ceiling, gemm_ceiling
from benchmarks.harness.contest import Contender, contest
from benchmarks.harness.growth import growth_table
from benchmarks.harness.options import Options
from benchmarks.harness.peers import (
    Unavailable,
    forward_backward,
    jax_contender,
    jax_contenders,
    jax_program,
    normal,
    peer,
    residual_bytes,
    torch_contender,
)
from benchmarks.harness.programs import Program, compile_timed
from benchmarks.harness.records import Bar, Entry, Row, Table
from benchmarks.harness.sweep import quickest, sweep_table
from benchmarks.harness.timing import Spread, alternate, paired_ratio, seconds_per_call, spread

__all__ = [
    "Bar",
    "Ceiling",
    "Contender",
    "Entry",
    "Options",
    "Program",
    "Row",
    "Spread",
    "Table",
    "Unavailable",
    "alternate",
    "compile_timed",
    "contest",
    "copy_ceiling",
    "faster_at_least",
    "forward_backward",
    "gemm_ceiling",
    "growth_table",
    "jax_contender",
    "jax_contenders",
    "jax_program",
    "normal",
    "paired_ratio",
    "peer",
    "quickest",
    "residual_bytes",
    "seconds_per_call",
    "spread",
    "sweep_table",
    "temporaries_at_most",
    "time_at_most",
    "torch_contender",
]
