"""Why a loss became no number: the state before that, found again, and what `gradient_flow` says of it.

Steps are told only now and then whether the loss is finite, and by then the state is gone. But the seed and the step
make a batch, so the same steps lead there again, from a checkpoint or from the beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import adjax
from adjax.examples.finite import NonFiniteLoss
from adjax.examples.parallel.mesh import entered, put, whole
from adjax.examples.parallel.options import MeshOptions

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints

Batch = tuple[Any, ...]


class Replay(NamedTuple):
    """What makes the steps of a run again. A state has `params`.

    Attributes:
        first: () ↦ the state before the first step.
        step: (state, *batch) ↦ (state, loss); it may donate the state.
        batch: a step ↦ its batch.
        loss: (parameters, *batch) ↦ the loss, on one device.
        measured: the batches whose loss a run looks at between steps.
    """

    first: Callable[[], Any]
    step: Callable[..., tuple[Any, Any]]
    batch: Callable[[int], Batch]
    loss: Callable[..., Array]
    measured: tuple[Batch, ...] = ()


def explained(error: NonFiniteLoss, options: MeshOptions, replay: Replay, saved: Checkpoints | None) -> NonFiniteLoss:
    """The error with the layer where it began. The last state of numbers alone is saved."""
    with entered(options):
        done, state = last_finite(options, replay, error.step, saved)
        if saved:
            saved.save(done, state)
        params = whole(options, state.params)
    why = _broken_loss(replay, params, done) if done == error.step else _broken_update(replay, params, done)
    where = f"; the state before it is checkpoint {done}" if saved else ""
    return NonFiniteLoss(f"{error}. In the step after {done}: {why}{where}", error.step)


def last_finite(options: MeshOptions, replay: Replay, step: int, saved: Checkpoints | None) -> tuple[int, Any]:
    """The last state, at most that after `step` steps, whose parameters are numbers; and its step."""
    done, state = _nearest(replay.first(), step, saved)
    while done < step:
        before = jax.tree.map(jnp.copy, state)
        state, _ = replay.step(state, *put(options, replay.batch(done)))
        if not finite(state.params):
            return done, before
        done += 1
    return done, state


def _nearest(first: Any, step: int, saved: Checkpoints | None) -> tuple[int, Any]:
    for done in saved.steps() if saved else ():
        if saved and done <= step:
            state = saved.read(done, first)
            if finite(state.params):
                return done, state
    return 0, first


@jax.jit
def finite(tree: Any) -> Array:
    """Whether all of it are numbers."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _broken_loss(replay: Replay, params: Any, done: int) -> str:
    """Where the loss of these parameters breaks, on the batch of the step or on one that is measured."""
    for batch in (replay.batch(done), *replay.measured):
        flow = adjax.gradient_flow(replay.loss, params, *map(jnp.asarray, batch))
        if not math.isfinite(flow.loss):
            return flow.verdict[0]
    return "on one device, which rounds otherwise, the loss is a number"


def _broken_update(replay: Replay, params: Any, done: int) -> str:
    """Where the gradient of these parameters breaks, if it is not the update."""
    flow = adjax.gradient_flow(replay.loss, params, *map(jnp.asarray, replay.batch(done)))
    numbers = [flow.loss, *(layer.cotangent for layer in flow.layers), *(layer.gradient for layer in flow.layers)]
    return "the update of the parameters overflows" if all(map(math.isfinite, numbers)) else flow.verdict[0]
