"""The training loop: one compiled step that donates its state, and a checkpoint now and then."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from adjax.examples.digits.data import Digits
from adjax.examples.digits.model import Apply, Params, logits, loss_and_gradient, master_dtype
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.finite import require_finite

WEIGHT_DECAY = 0.1


class State(NamedTuple):
    """What a training step takes, donates and returns."""

    params: Params
    optimizer: optax.OptState


Step = Callable[[State, ArrayLike, ArrayLike], tuple[State, Array]]


class Checkpoint(NamedTuple):
    """Cross-entropy and accuracy after so many steps, on all training and all test images."""

    step: int
    train_loss: float
    test_loss: float
    train_accuracy: float
    test_accuracy: float


class Training(NamedTuple):
    """Where a training run ended, and the way there; the first checkpoint is that of the initial parameters."""

    params: Params
    checkpoints: list[Checkpoint]


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """AdamW, its learning rate decayed to zero by a cosine over the run."""
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.steps)
    return optax.adamw(schedule, weight_decay=WEIGHT_DECAY)


@functools.cache
def make_step(options: Options, apply: Apply) -> Step:
    """The training step, compiled once a network; it donates the state, so the new one takes the old one's memory."""
    optimizer = make_optimizer(options)

    @functools.partial(jax.jit, donate_argnames="state")
    def step(state: State, X: ArrayLike, y: ArrayLike) -> tuple[State, Array]:
        value, gradient = loss_and_gradient(state.params, X, y, dtype=options.dtype, apply=apply)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), optimizer_state), value

    return step


def init_state(options: Options) -> State:
    """The state before the first step, made by the seed."""
    params = network(options.model).init(jax.random.key(options.seed), options, master_dtype(options.dtype))
    return State(params, make_optimizer(options).init(params))


def batches(options: Options, data: Digits) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end: every epoch goes once through the training images in a new order, made by the seed."""
    random = np.random.default_rng(options.seed)
    while True:
        order = random.permutation(len(data.X_train))
        for first in range(0, len(order) - options.batch + 1, options.batch):
            rows = order[first : first + options.batch]
            yield data.X_train[rows], data.y_train[rows]


def train(
    options: Options,
    data: Digits,
    report: Callable[[Checkpoint], None] = lambda checkpoint: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Training:
    """Train for `options.steps`, or until interrupted; `report` hears of a checkpoint at least fifty times.

    Raises:
        NonFiniteLoss: the loss became infinite or NaN.
    """
    apply = network(options.model).spelled
    measure = functools.partial(evaluate, data=data, dtype=options.dtype, apply=apply)
    step, state = make_step(options, apply), init_state(options)
    checkpoints = [measure(state.params, step=0)]
    stream = itertools.islice(batches(options, data), options.steps)
    every = min(50, max(1, options.steps // 50))
    while (done := checkpoints[-1].step) < options.steps and not interrupted():
        losses = []
        for X, y in itertools.islice(stream, every):
            state, value = step(state, X, y)
            losses.append(value)
            if interrupted():
                break
        checkpoints.append(measure(state.params, step=done + len(losses)))
        require_finite(done, [*map(float, losses), checkpoints[-1].train_loss], options)
        report(checkpoints[-1])
    return Training(state.params, checkpoints)


def evaluate(params: Params, data: Digits, dtype: str, apply: Apply, step: int) -> Checkpoint:
    """Cross-entropy and accuracy on all training and all test images."""
    parts = ((data.X_train, data.y_train), (data.X_test, data.y_test))
    measures = jax.device_get(_evaluate(params, parts, dtype=dtype, apply=apply))
    (train_loss, train_accuracy), (test_loss, test_accuracy) = measures
    return Checkpoint(step, *map(float, (train_loss, test_loss, train_accuracy, test_accuracy)))


@functools.partial(jax.jit, static_argnames=("dtype", "apply"))
def _evaluate(
    params: Params, parts: tuple[tuple[Array, Array], ...], *, dtype: str, apply: Apply
) -> list[tuple[Array, Array]]:
    measures = []
    for X, y in parts:
        Z = logits(params, X, dtype=dtype, apply=apply)
        losses = optax.softmax_cross_entropy_with_integer_labels(Z, y)
        measures.append((losses.mean(), (Z.argmax(axis=-1) == y).mean()))
    return measures
