"""The training loop: one compiled step that donates its state, and the held-out loss now and then."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from adjax.examples.finite import require_finite
from adjax.examples.parallel import training
from adjax.examples.parallel.gradients import LossScale, first_factor
from adjax.examples.parallel.mesh import entered, placement, put
from adjax.examples.text.data import Text, batches, windows
from adjax.examples.text.decoder import SPELLED, Layers, Params, init, loss
from adjax.examples.text.options import Options
from adjax.examples.text.sharded import layers_on, specs

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints

WARM_UP = 0.1                           # of the steps
WEIGHT_DECAY = 0.1
CLIPPED_AT = 1.0                        # the norm of a gradient
QUICK_WINDOWS = 64                      # of the held-out text, while training


class State(NamedTuple):
    """What a training step takes, donates and returns."""

    params: Params
    optimizer: optax.OptState
    scale: LossScale | None = None          # of float16


Step = Callable[[State, ArrayLike], tuple[State, Array]]


class Checkpoint(NamedTuple):
    """Bits per character after so many steps: the mean of the steps since the last one, and held out."""

    step: int
    train: float
    held_out: float


class Training(NamedTuple):
    """Where a training run ended, and the way there from the step at which it went on."""

    params: Params
    checkpoints: list[Checkpoint]
    first: int = 0


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """AdamW with clipped gradients, its learning rate warmed up and then decayed to zero by a cosine."""
    warm_up = max(1, round(WARM_UP * options.steps))
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, warm_up, max(options.steps, warm_up + 1))
    return optax.chain(optax.clip_by_global_norm(CLIPPED_AT), optax.adamw(schedule, weight_decay=WEIGHT_DECAY))


def layouts(options: Options, vocabulary: int) -> Any:
    """Of every parameter on the mesh of the options; None without one."""
    on = placement(options)
    return None if on is None else specs(on, vocabulary)


def network_loss(options: Options, layers: Layers, vocabulary: int) -> Callable[[Params, ArrayLike], Array]:
    """The loss in nats of parameters and ids, on the mesh of the options."""
    layers = layers_on(placement(options), layers, vocabulary)
    return functools.partial(loss, layers=layers, heads=options.heads, dtype=options.dtype, remat=options.remat)


def loss_and_gradient(
    params: Params, ids: ArrayLike, options: Options, layers: Layers, factor: ArrayLike | None = None
) -> tuple[Array, Params]:
    """The loss in nats, and its gradient."""
    factor, vocabulary = first_factor(options.dtype) if factor is None else factor, len(params.table)
    f = network_loss(options, layers, vocabulary)
    return training.loss_and_gradient(f, params, ids, options, layouts(options, vocabulary), factor)


@functools.cache
def make_step(options: Options, layers: Layers) -> Step:
    """The training step, compiled once; it donates the state, so the new one takes the old one's memory."""
    optimizer = make_optimizer(options)

    @functools.partial(jax.jit, donate_argnames="state")
    def step(state: State, ids: ArrayLike) -> tuple[State, Array]:
        factor = None if state.scale is None else state.scale.factor
        value, gradient = loss_and_gradient(state.params, ids, options, layers, factor)
        new = training.stepped(optimizer, state, gradient)
        return training.laid_out(options, optimizer, new, layouts(options, len(state.params.table))), value

    return step


def init_state(options: Options, vocabulary: int) -> State:
    """The state before the first step, made by the seed, on the mesh of the options."""
    on = placement(options)
    shardings = None if on is None else jax.tree.map(on.sharding, specs(on, vocabulary))
    make = jax.jit(init, static_argnames=("options", "vocabulary"), out_shardings=shardings)
    return first_state(options, make(jax.random.key(options.seed), options=options, vocabulary=vocabulary))


def first_state(options: Options, params: Params) -> State:
    """The state before the first step, of these parameters."""
    at = layouts(options, len(params.table))
    return training.first_state(State, params, options, make_optimizer(options), at)


def train(
    options: Options,
    text: Text,
    report: Callable[[Checkpoint], None] = lambda checkpoint: None,
    interrupted: Callable[[], bool] = lambda: False,
    saved: Checkpoints | None = None,
) -> Training:
    """Train for `options.steps`, or until interrupted; `report` hears of about twenty checkpoints.

    A run goes on from the last state that is saved, and saves where it ends.

    Raises:
        NonFiniteLoss: the loss became infinite or NaN.
    """
    with entered(options):
        return _train(options, text, report, interrupted, saved)


def _train(
    options: Options,
    text: Text,
    report: Callable[[Checkpoint], None],
    interrupted: Callable[[], bool],
    saved: Checkpoints | None,
) -> Training:
    step, state = make_step(options, SPELLED), init_state(options, len(text.characters))
    held_out = windows(options, text.held_out)
    first, state = saved.latest(state) if saved else (0, state)
    stream = itertools.islice(batches(options, text.train, first), options.steps - first)
    checkpoints: list[Checkpoint] = []
    done, every = first, max(1, options.steps // 20)
    while done < options.steps and not interrupted():
        losses = []
        for ids in itertools.islice(stream, every - done % every):
            state, value = step(state, put(options, ids))
            losses.append(value)
            if saved and saved.due(done + len(losses)):
                require_finite(done, [*map(float, losses)], options)
                saved.save(done + len(losses), state)
            if interrupted():
                break
        values = [*map(float, losses)]
        require_finite(done, values, options)
        done += len(losses)
        bits = evaluate(state.params, held_out[:: -(-len(held_out) // QUICK_WINDOWS)], options)
        checkpoints.append(Checkpoint(done, float(np.mean(values)) / math.log(2), bits))
        report(checkpoints[-1])
    if saved:
        saved.save(done, state)
    return Training(state.params, checkpoints, first)


def evaluate(params: Params, held_out: np.ndarray, options: Options) -> float:
    """Bits per character over windows of text, a batch at a time."""
    nats = 0.0
    with entered(options):
        for first in range(0, len(held_out), options.batch):
            part = held_out[first : first + options.batch]
            nats += float(_loss(params, put(options, part), options)) * len(part)
    return nats / len(held_out) / math.log(2)


@functools.partial(jax.jit, static_argnames="options")
def _loss(params: Params, ids: Array, options: Options) -> Array:
    mode = "explicit" if options.mode == "explicit" else "auto"
    return network_loss(options._replace(remat=False, mode=mode), SPELLED, len(params.table))(params, ids)
