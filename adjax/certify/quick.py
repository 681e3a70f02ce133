"""How XLA:CPU is told to spend less time on compiling a program that runs a few times."""

from __future__ import annotations

import functools
from typing import Any

import jax

OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
EMITTERS = "xla_cpu_use_fusion_emitters"    # without them some versions take half the time; others lack the option


@functools.cache
def quick_options() -> dict[str, Any]:
    """`compiler_options` of `jax.jit` that this version takes.

    >>> jax.jit(lambda x: x + 1, compiler_options=quick_options())(1).item()
    2
    """
    options = {**OPTIONS, EMITTERS: False}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return OPTIONS
    return options
