"""The training loop: one compiled step that donates its state, and a checkpoint now and then."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from adjax.examples.digits.data import Digits
from adjax.examples.digits.model import Apply, Params, logits, loss, master_dtype
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.digits.sharded import network_on, specs
from adjax.examples.finite import require_finite
from adjax.examples.parallel import training
from adjax.examples.parallel.gradients import LossScale, first_factor
from adjax.examples.parallel.mesh import entered, placement, put

if TYPE_CHECKING:
    from adjax.examples.checkpoints import Checkpoints

WEIGHT_DECAY = 0.1


class State(NamedTuple):
    """What a training step takes, donates and returns."""

    params: Params
    optimizer: optax.OptState
    scale: LossScale | None = None          # of float16


Step = Callable[[State, ArrayLike, ArrayLike], tuple[State, Array]]


class Checkpoint(NamedTuple):
    """Cross-entropy and accuracy after so many steps, on all training and all test images."""

    step: int
    train_loss: float
    test_loss: float
    train_accuracy: float
    test_accuracy: float


class Training(NamedTuple):
    """Where a training run ended, and the way there; the first checkpoint is where the run began or went on."""

    params: Params
    checkpoints: list[Checkpoint]


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """AdamW, its learning rate decayed to zero by a cosine over the run."""
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.steps)
    return optax.adamw(schedule, weight_decay=WEIGHT_DECAY)


def loss_and_gradient(
    params: Params, X: ArrayLike, y: ArrayLike, options: Options, apply: Apply, factor: ArrayLike | None = None
) -> tuple[Array, Params]:
    """The loss and its gradient, on the mesh of the options."""
    at, plain = layouts(options, params), apply == network(options.model).autodiff
    again: dict[str, Any] = {"remat": True} if options.remat else {}
    on_devices = network_on(placement(options), options.model, functools.partial(apply, **again), at, plain)
    f = lambda params, batch: loss(params, *batch, dtype=options.dtype, apply=on_devices)
    factor = first_factor(options.dtype) if factor is None else factor
    return training.loss_and_gradient(f, params, (X, y), options, at, factor)


@functools.cache
def make_step(options: Options, apply: Apply) -> Step:
    """The training step, compiled once a network; it donates the state, so the new one takes the old one's memory."""
    optimizer = make_optimizer(options)

    @functools.partial(jax.jit, donate_argnames="state")
    def step(state: State, X: ArrayLike, y: ArrayLike) -> tuple[State, Array]:
        factor = None if state.scale is None else state.scale.factor
        value, gradient = loss_and_gradient(state.params, X, y, options, apply, factor)
        new = training.stepped(optimizer, state, gradient)
        return training.laid_out(options, optimizer, new, layouts(options, state.params)), value

    return step


def layouts(options: Options, params: Params) -> Any:
    """Of every parameter on the mesh of the options; None without one."""
    on = placement(options)
    return None if on is None else specs(on, options.model, params)


def init_state(options: Options) -> State:
    """The state before the first step, made by the seed, on the mesh of the options."""
    params = network(options.model).init(jax.random.key(options.seed), options, master_dtype(options.dtype))
    return first_state(options, params)


def first_state(options: Options, params: Params) -> State:
    """The state before the first step, of these parameters."""
    return training.first_state(State, params, options, make_optimizer(options), layouts(options, params))


def batches(options: Options, data: Digits, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Those of the steps from `first` on, without end.

    Every epoch goes once through the training images, in an order made by the seed and the epoch.
    """
    each = len(data.X_train) // options.batch
    for epoch in itertools.count(first // each):
        order = np.random.default_rng((options.seed, epoch)).permutation(len(data.X_train))
        for rows in order[: each * options.batch].reshape(each, -1)[max(0, first - epoch * each) :]:
            yield data.X_train[rows], data.y_train[rows]


def train(
    options: Options,
    data: Digits,
    report: Callable[[Checkpoint], None] = lambda checkpoint: None,
    interrupted: Callable[[], bool] = lambda: False,
    saved: Checkpoints | None = None,
) -> Training:
    """Train for `options.steps`, or until interrupted; `report` hears of a checkpoint at least fifty times.

    A run goes on from the last state that is saved, and saves where it ends.

    Raises:
        NonFiniteLoss: the loss became infinite or NaN.
    """
    with entered(options):
        return _train(options, data, report, interrupted, saved)


def _train(
    options: Options,
    data: Digits,
    report: Callable[[Checkpoint], None],
    interrupted: Callable[[], bool],
    saved: Checkpoints | None,
) -> Training:
    apply = network(options.model).spelled
    measure = functools.partial(evaluate, data=data, options=options, apply=apply)
    step, state = make_step(options, apply), init_state(options)
    first, state = saved.latest(state) if saved else (0, state)
    checkpoints = [measure(state.params, step=first)]
    require_finite(first, [checkpoints[0].train_loss], options)
    stream = itertools.islice(batches(options, data, first), options.steps - first)
    every = min(50, max(1, options.steps // 50))
    while (done := checkpoints[-1].step) < options.steps and not interrupted():
        losses = []
        for X, y in itertools.islice(stream, every - done % every):
            state, value = step(state, *put(options, (X, y)))
            losses.append(value)
            if saved and saved.due(done + len(losses)):
                require_finite(done, [*map(float, losses)], options)
                saved.save(done + len(losses), state)
            if interrupted():
                break
        checkpoints.append(measure(state.params, step=done + len(losses)))
        require_finite(done, [*map(float, losses), checkpoints[-1].train_loss], options)
        report(checkpoints[-1])
    if saved:
        saved.save(checkpoints[-1].step, state)
    return Training(state.params, checkpoints)


def evaluate(params: Params, data: Digits, options: Options, apply: Apply, step: int) -> Checkpoint:
    """Cross-entropy and accuracy on all training and all test images."""
    parts = ((data.X_train, data.y_train), (data.X_test, data.y_test))
    measures = jax.device_get(_evaluate(params, parts, options=options, apply=apply))
    (train_loss, train_accuracy), (test_loss, test_accuracy) = measures
    return Checkpoint(step, *map(float, (train_loss, test_loss, train_accuracy, test_accuracy)))


@functools.partial(jax.jit, static_argnames=("options", "apply"))
def _evaluate(
    params: Params, parts: tuple[tuple[Array, Array], ...], *, options: Options, apply: Apply
) -> list[tuple[Array, Array]]:
    """With everything whole on every device, for so many images do not divide."""
    on, measures = placement(options), []
    params = params if on is None else jax.tree.map(lambda p: on.laid_out(p, P()), params)
    for X, y in parts:
        Z = logits(params, X, dtype=options.dtype, apply=apply)
        losses = optax.softmax_cross_entropy_with_integer_labels(Z, y)
        measures.append((losses.mean(), (Z.argmax(axis=-1) == y).mean()))
    return measures
