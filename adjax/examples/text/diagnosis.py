"""Why a loss became no number: the state before that, found again, and what `gradient_flow` says of it.

Steps are told only now and then whether the loss is finite, and by then the state is gone. But the seed and the step
make a batch, so the same steps lead there again, from a checkpoint or from the beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

import adjax
from adjax.examples.finite import NonFiniteLoss
from adjax.examples.parallel.mesh import entered, put, whole
from adjax.examples.text.data import Text, batch
from adjax.examples.text.decoder import SPELLED
from adjax.examples.text.options import Options
from adjax.examples.text.train import State, init_state, make_step, network_loss

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints


def explained(error: NonFiniteLoss, options: Options, text: Text, saved: Checkpoints | None) -> NonFiniteLoss:
    """The error with the layer where it began. The last state of numbers alone is saved."""
    with entered(options):
        done, state = last_finite(options, text, error.step, saved)
        if saved:
            saved.save(done, state)
        params = whole(options, state.params)
    alone = options._replace(mesh=(), mode="auto", accumulate=1, remat=False)
    loss = network_loss(alone, SPELLED, len(text.characters))
    verdict = adjax.gradient_flow(loss, params, jnp.asarray(batch(options, text.train, done))).verdict
    why = verdict[0] if verdict else "the update of the parameters overflows"
    where = f"; the state before it is checkpoint {done}" if saved else ""
    return NonFiniteLoss(f"{error}. In the step after {done}: {why}{where}", error.step)


def last_finite(options: Options, text: Text, step: int, saved: Checkpoints | None) -> tuple[int, State]:
    """The last state, at most that after `step` steps, whose parameters are numbers; and its step."""
    take, state = make_step(options, SPELLED), init_state(options, len(text.characters))
    done, state = _nearest(state, step, saved)
    while done < step:
        before = jax.tree.map(jnp.copy, state)
        state, _ = take(state, put(options, batch(options, text.train, done)))
        if not finite(state.params):
            return done, before
        done += 1
    return done, state


def _nearest(first: State, step: int, saved: Checkpoints | None) -> tuple[int, State]:
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
