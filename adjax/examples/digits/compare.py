"""The same training step with spelled adjoints and with plain autodiff: how fast, and how far apart."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adjax.examples.digits.model import Apply, Params, loss_and_gradient
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.digits.train import State, make_optimizer, make_step

PAIRS, FEWEST_PAIRS = 11, 3
BLOCK_SECONDS = 0.05
LONGEST_SECONDS = 3.0


class Difference(NamedTuple):
    """The largest difference between entries of the two gradients, and the norm of the spelled gradient."""

    largest: float
    norm: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the norm."""
        return self.largest / self.norm if self.largest else 0.0


class Speed(NamedTuple):
    """Steps per second in each block of steps, pair by pair."""

    spelled: np.ndarray
    autodiff: np.ndarray


def networks(options: Options) -> dict[str, Apply]:
    """The two that are compared."""
    model = network(options.model)
    return {"spelled": model.spelled, "autodiff": model.autodiff}


def gradient_difference(options: Options, params: Params, X: np.ndarray, y: np.ndarray) -> Difference:
    """Both gradients on one batch, at the same parameters."""
    spelled, autodiff = (
        jax.tree.leaves(
            jax.jit(functools.partial(loss_and_gradient, dtype=options.dtype, apply=apply))(params, X, y)[1]
        )
        for apply in networks(options).values()
    )
    wide = lambda g: np.asarray(g, np.float64)
    largest = max(np.abs(wide(a) - wide(b)).max() for a, b in zip(spelled, autodiff, strict=True))
    return Difference(float(largest), float(np.sqrt(sum((wide(g) ** 2).sum() for g in spelled))))


def speed(
    options: Options,
    params: Params,
    X: np.ndarray,
    y: np.ndarray,
    interrupted: Callable[[], bool] = lambda: False,
) -> Speed | None:
    """Time the two training steps on one batch in alternating blocks; None if interrupted.

    Both start from copies of the same state. Which goes first changes from pair to pair, so that neither gains from
    what the other left in the caches.
    """
    batch = jnp.asarray(X), jnp.asarray(y)
    steps = {name: make_step(options, apply) for name, apply in networks(options).items()}
    states = {name: _fresh_state(options, params) for name in steps}

    def block(name: str, count: int) -> float:
        state = states[name]
        start = time.perf_counter()
        for _ in range(count):
            state, _ = steps[name](state, *batch)
        jax.block_until_ready(state)
        elapsed = time.perf_counter() - start
        states[name] = state
        return elapsed / count

    for name in steps:
        block(name, 1)  # compiles
    count = max(1, round(BLOCK_SECONDS / min(block(name, 2) for name in steps)))
    measured: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + LONGEST_SECONDS
    for pair in range(PAIRS):
        if pair >= FEWEST_PAIRS and time.perf_counter() > end:
            break
        for name in list(steps)[:: 1 if pair % 2 else -1]:
            if interrupted():
                return None
            measured[name].append(1 / block(name, count))
    return Speed(**{name: np.array(rates) for name, rates in measured.items()})


def _fresh_state(options: Options, params: Params) -> State:
    params = jax.tree.map(jnp.copy, params)
    return State(params, make_optimizer(options).init(params))
