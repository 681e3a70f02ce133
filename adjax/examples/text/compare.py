"""The same training step with spelled adjoints and with plain autodiff: gradients, speed and memory, on one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adjax.examples import side_by_side
from adjax.examples.side_by_side import Difference, Speed
from adjax.examples.text.decoder import SPELLED, Params
from adjax.examples.text.options import Options
from adjax.examples.text.plain import PLAIN
from adjax.examples.text.train import State, loss_and_gradient, make_optimizer, make_step

LAYERS = {"spelled": SPELLED, "autodiff": PLAIN}


def gradient_difference(options: Options, params: Params, ids: np.ndarray) -> Difference:
    """Both gradients, at the same parameters."""
    gradient = lambda layers: jax.jit(functools.partial(loss_and_gradient, options=options, layers=layers))
    return side_by_side.difference(*(gradient(layers)(params, ids)[1] for layers in LAYERS.values()))


def speed(
    options: Options, params: Params, ids: np.ndarray, interrupted: Callable[[], bool] = lambda: False
) -> Speed | None:
    """Time the two training steps, both from copies of the same state; None if interrupted."""
    batch = jnp.asarray(ids)

    def taking(step: Callable[..., tuple[State, object]]) -> Callable[[State], State]:
        return lambda state: step(state, batch)[0]

    steps = {name: taking(make_step(options, layers)) for name, layers in LAYERS.items()}
    return side_by_side.speed(steps, {name: _fresh_state(options, params) for name in steps}, interrupted)


def temporaries(options: Options, params: Params, ids: np.ndarray) -> dict[str, int]:
    """Bytes that each compiled step needs beside its arguments and results."""
    state = jax.eval_shape(lambda p: _fresh_state(options, p), params)

    def of(name: str) -> int:
        step: Any = make_step(options, LAYERS[name])
        analysis = step.lower(state, ids).compile().memory_analysis()
        return 0 if analysis is None else int(analysis.temp_size_in_bytes)

    return {name: of(name) for name in LAYERS}


def _fresh_state(options: Options, params: Params) -> State:
    params = jax.tree.map(jnp.copy, params)
    return State(params, make_optimizer(options).init(params))
