"""The same training step with spelled adjoints and with plain autodiff: gradients, speed and memory, on one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adjax.examples import side_by_side
from adjax.examples.parallel.mesh import entered, put, whole
from adjax.examples.side_by_side import Difference, Speed
from adjax.examples.text.decoder import SPELLED, Layers, Params
from adjax.examples.text.options import Options
from adjax.examples.text.plain import PLAIN
from adjax.examples.text.train import State, first_state, loss_and_gradient, make_step

LAYERS = {"spelled": SPELLED, "autodiff": PLAIN}


def gradient_difference(options: Options, params: Params, ids: np.ndarray) -> Difference:
    """Both gradients, at the same parameters."""
    gradient = lambda layers: jax.jit(functools.partial(loss_and_gradient, options=options, layers=layers))
    with entered(options):
        both = (gradient(layers)(params, put(options, ids))[1] for layers in LAYERS.values())
        return side_by_side.difference(*(whole(options, g) for g in both))


def speed(
    options: Options, params: Params, ids: np.ndarray, interrupted: Callable[[], bool] = lambda: False
) -> Speed | None:
    """Time the two training steps, both from copies of the same state; None if interrupted."""
    batch = put(options, jnp.asarray(ids))

    def taking(step: Callable[..., tuple[State, object]]) -> Callable[[State], State]:
        return lambda state: step(state, batch)[0]

    steps = {name: taking(make_step(options, layers)) for name, layers in LAYERS.items()}
    with entered(options):
        return side_by_side.speed(steps, {name: _fresh_state(options, params) for name in steps}, interrupted)


def temporaries(options: Options, params: Params, ids: np.ndarray) -> dict[str, int]:
    """Bytes that each compiled step needs, on each device, beside its arguments and results."""

    def of(name: str) -> int:
        analysis = compiled(options, LAYERS[name], params, ids).memory_analysis()
        return 0 if analysis is None else int(analysis.temp_size_in_bytes)

    return {name: of(name) for name in LAYERS}


def compiled(options: Options, layers: Layers, params: Params, ids: np.ndarray) -> Any:
    """The training step, compiled for these parameters and a batch like this."""
    step: Any = make_step(options, layers)
    with entered(options):
        return step.lower(first_state(options, params), put(options, ids)).compile()


def _fresh_state(options: Options, params: Params) -> State:
    return first_state(options, jax.tree.map(jnp.copy, params))
