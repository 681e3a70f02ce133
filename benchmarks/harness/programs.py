"""Compiled programs: what tracing, lowering and compiling cost, the temporaries and the instructions that remain."""

import functools
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = .*? ([a-z][a-z0-9-]*)\(", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A compiled function and the milliseconds each stage of compiling it took."""

    compiled: Any
    trace_ms: float
    lower_ms: float
    compile_ms: float

    @property
    def total_ms(self) -> float:
        """Tracing, lowering and compiling."""
        return self.trace_ms + self.lower_ms + self.compile_ms

    @property
    def temporaries(self) -> int | None:
        """Bytes of temporary buffers, where the backend tells."""
        analysis = self.compiled.memory_analysis()
        return None if analysis is None else int(analysis.temp_size_in_bytes)

    def instructions(self) -> Counter[str]:
        """How often each operation occurs in the optimized program, inside fusions too."""
        return instruction_counts(self.compiled.as_text())


def instruction_counts(text: str) -> Counter[str]:
    """How often each operation occurs in the text of an HLO module."""
    return Counter(INSTRUCTION.findall(text))


def compile_timed(f: Callable[..., Any], *args: Any) -> Program:
    """Compile f for these arguments with JAX's caches emptied, so that no contender pays for another."""
    _start_compiler()
    jax.clear_caches()
    start = time.perf_counter()
    traced = jax.jit(f).trace(*args)
    traced_at = time.perf_counter()
    lowered = traced.lower()
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    return Program(compiled, 1e3 * (traced_at - start), 1e3 * (lowered_at - traced_at), 1e3 * (end - lowered_at))


@functools.cache
def _start_compiler() -> None:
    """Whoever compiles first in a process also starts the backend; let it be nobody's contender."""
    x = jnp.ones((2, 2))
    jax.block_until_ready(jax.jit(jax.grad(lambda x: jnp.sum(x @ x)))(x))
