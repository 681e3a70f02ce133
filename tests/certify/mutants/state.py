"""Rules that remember: residuals shared between calls, results that change from call to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant
from tests.certify.words import ruled

MATRIX = normal((7, 5))


def sine(x: Array) -> Array:
    return jnp.sin(x)


def replaced_by_the_next() -> Any:
    """Keeps its residual in one variable for all calls."""
    memory: list[Array] = []

    def fwd(x: Array) -> Any:
        memory[:] = [x]
        return sine(x), None

    return ruled(sine, fwd, lambda _, dy: (jnp.cos(memory[0]) * dy,))()


def first_for_all() -> Any:
    """Computes its residual once for each shape and dtype, like a plan."""
    plans: dict[Any, Array] = {}

    def fwd(x: Array) -> Any:
        traced = isinstance(x, jax.core.Tracer)
        return sine(x), x if traced else plans.setdefault((x.shape, x.dtype), x)

    return ruled(sine, fwd, lambda x, dy: (jnp.cos(x) * dy,))()


def overwritten() -> Any:
    """A rule with one work array for all its calls, as in NumPy programs."""
    buffers: dict[Any, np.ndarray] = {}

    def fwd(x: Array) -> Any:
        if isinstance(x, jax.core.Tracer):
            return sine(x), jnp.cos(x)
        buffer = buffers.setdefault((x.shape, x.dtype), np.empty(x.shape, x.dtype))
        buffer[...] = np.cos(np.asarray(x))
        return sine(x), Buffer(buffer)

    return ruled(sine, fwd, lambda r, dy: (jnp.asarray(r.array if isinstance(r, Buffer) else r) * dy,))()


@jax.tree_util.register_static
class Buffer:
    """An array that is no leaf: it goes where the rule goes, and is not copied."""

    def __init__(self, array: np.ndarray):
        self.array = array


def counting() -> Any:
    """Right when first run, and a little more wrong at each run after."""
    runs: list[None] = []

    def bwd(args: Any, dy: Array) -> Any:
        runs.append(None)
        return (jnp.cos(args[0]) * dy * (1 + 0.25 * (len(runs) - 1)),)

    return planted(sine, bwd)()


def alternating() -> Any:
    """Right at every other run."""
    runs: list[None] = []

    def bwd(args: Any, dy: Array) -> Any:
        runs.append(None)
        return (jnp.cos(args[0]) * dy * (len(runs) % 2),)

    return planted(sine, bwd)()


def dropping() -> Any:
    """Drops every second element on average, at random, and doubles the rest: right only in the mean."""
    rng = np.random.default_rng(0)

    def bwd(args: Any, dy: Array) -> Any:
        return (jnp.cos(args[0]) * dy * jnp.asarray(2 * rng.integers(2, size=dy.shape), dy.dtype),)

    return planted(sine, bwd)()


def sine_when(wrong: Callable[[Array], bool]) -> Callable[[], Any]:
    """Makes a sine whose cotangent is doubled when `wrong(dy)`."""
    return planted(sine, lambda args, dy: (jnp.cos(args[0]) * dy * (2 if wrong(dy) else 1),))


def forward_when_traced(x: Array) -> Any:
    return sine(x) * (2 if isinstance(x, jax.core.Tracer) else 1), x


MUTANTS = [
    Mutant("memory: one residual for all calls, overwritten by the next", replaced_by_the_next, MATRIX,
           law="pure", diagnosis="shared between calls"),
    Mutant("memory: the first call's residual for all", first_for_all, MATRIX,
           law="pure", diagnosis="shared between calls"),
    Mutant("memory: one NumPy buffer for all calls", overwritten, MATRIX, law="pure", diagnosis="shared between calls"),
    Mutant("backward rule: grows from run to run", counting, MATRIX, law="pure", diagnosis="not deterministic"),
    Mutant("backward rule: right at every other run", alternating, MATRIX, law="pure", diagnosis="not deterministic"),
    Mutant("backward rule: random without a key", dropping, MATRIX, law="pure", diagnosis="not deterministic"),
    Mutant("backward rule: doubled when traced", sine_when(lambda dy: isinstance(dy, jax.core.Tracer)), MATRIX,
           law="pure", diagnosis="eager"),
    Mutant("forward rule: doubled when traced", ruled(sine, forward_when_traced, lambda x, dy: (jnp.cos(x) * dy,)),
           MATRIX, law="forward"),
]
