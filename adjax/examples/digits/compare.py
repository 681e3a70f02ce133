"""The same training step with spelled adjoints and with plain autodiff, on one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adjax.examples import side_by_side
from adjax.examples.digits.model import Apply, Params
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.digits.train import State, first_state, loss_and_gradient, make_step
from adjax.examples.parallel.mesh import entered, put, whole
from adjax.examples.side_by_side import Difference, Speed


def networks(options: Options) -> dict[str, Apply]:
    """The two that are compared."""
    model = network(options.model)
    return {"spelled": model.spelled, "autodiff": model.autodiff}


def gradient_difference(options: Options, params: Params, X: np.ndarray, y: np.ndarray) -> Difference:
    """Both gradients on one batch, at the same parameters."""
    gradient = lambda apply: jax.jit(functools.partial(loss_and_gradient, options=options, apply=apply))
    with entered(options):
        both = (gradient(apply)(params, *put(options, (X, y)))[1] for apply in networks(options).values())
        return side_by_side.difference(*(whole(options, g) for g in both))


def speed(
    options: Options,
    params: Params,
    X: np.ndarray,
    y: np.ndarray,
    interrupted: Callable[[], bool] = lambda: False,
) -> Speed | None:
    """Time the two training steps, both from copies of the same state; None if interrupted."""
    batch = put(options, (jnp.asarray(X), jnp.asarray(y)))

    def taking(step: Callable[..., tuple[State, object]]) -> Callable[[State], State]:
        return lambda state: step(state, *batch)[0]

    steps = {name: taking(make_step(options, apply)) for name, apply in networks(options).items()}
    with entered(options):
        return side_by_side.speed(steps, {name: _fresh_state(options, params) for name in steps}, interrupted)


def _fresh_state(options: Options, params: Params) -> State:
    return first_state(options, jax.tree.map(jnp.copy, params))
