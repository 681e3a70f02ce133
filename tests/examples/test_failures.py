"""A loss that is no number is explained, and a thousand steps leave nothing behind."""

import ctypes
import gc
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.examples import diagnosis
from adjax.examples.diagnosis import Replay, explained
from adjax.examples.digits import data as digits_data
from adjax.examples.digits import options as digits_options
from adjax.examples.digits import resume as digits_resume
from adjax.examples.digits import train as digits_train
from adjax.examples.digits.models import network
from adjax.examples.finite import NonFiniteLoss
from adjax.examples.parallel.mesh import entered
from adjax.examples.parallel.options import mesh
from adjax.examples.text import resume
from adjax.examples.text.data import load
from adjax.examples.text.options import Options
from adjax.examples.text.train import init_state, train
from tests.conftest import DEVICES

pytestmark = pytest.mark.shared

TINY = Options(steps=6, width=8, depth=1, heads=1, context=8, batch=2, checkpoint_every=1)
MEMORY = Path("/proc/self/statm")
PAGE = 4096
LIBC = ctypes.CDLL(None)


@pytest.fixture(autouse=True)
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def text():
    return load(TINY)


def failure(options, text):
    with pytest.raises(NonFiniteLoss) as failed:
        resume.train(options, text, lambda at: None, lambda: False)
    return failed.value


def test_the_layer_where_a_loss_breaks_is_named_and_the_state_before_saved(text, tmp_path):
    options = TINY._replace(learning_rate=1e15, checkpoint=tmp_path)
    error = failure(options, text)
    assert re.fullmatch(
        r"the loss is nan after (\d) of 6 steps \(float32, learning rate 1e\+15\); try a lower --learning-rate\. "
        r"In the step after \1: the loss is nan: the first value that is not finite comes from scan after "
        r"\.blocks\.down\.W; the state before it is checkpoint \1",
        str(error),
    )
    with resume.opened(options, text) as saved:
        step, state = saved.latest(init_state(options, len(text.characters)))
    assert step == error.step
    assert diagnosis.finite(state)
    assert str(failure(options, text)) == str(error)


def test_parameters_that_broke_first_are_found_one_step_earlier(text):
    """The loss is nan in the step after the one whose gradient was."""
    options = TINY._replace(learning_rate=1e30)
    done, state = diagnosis.last_finite(options, resume.replay(options, text), 6, None)
    assert 0 < done < 6
    assert diagnosis.finite(state.params)


# The digits

SMALL = digits_options.Options(steps=6, width=8, depth=1, batch=16, checkpoint_every=1)
BROKEN = {
    "mlp, float16": (SMALL._replace(dtype="float16", learning_rate=1e3), r"convert_element_type after \[1\]\.W"),
    "cnn": (
        SMALL._replace(model="cnn", learning_rate=1e30, mesh=mesh("data=2,fsdp=2"), mode="explicit"),
        r"square after \[0\]\[0\]\.conv\.W",
    ),
}


def failure_of_digits(options):
    with pytest.raises(NonFiniteLoss) as failed:
        digits_resume.train(options, digits_data.load(0), lambda at: None, lambda: False)
    return failed.value


@pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")
@pytest.mark.parametrize("name", BROKEN)
def test_the_layer_of_the_digits_is_named_and_the_state_before_saved(name, tmp_path):
    options, where = BROKEN[name][0]._replace(checkpoint=tmp_path), BROKEN[name][1]
    error = failure_of_digits(options)
    assert re.fullmatch(
        r"the loss is (nan|inf) after 1 of 6 steps \([^;]+\); try a lower --learning-rate\. In the step after 1: "
        rf"the loss is \1: the first value that is not finite comes from {where}; the state before it is checkpoint 1",
        str(error),
    )
    with digits_resume.opened(options) as saved, entered(options):
        step, state = saved.latest(digits_train.init_state(options))
    assert step == error.step == 1
    assert diagnosis.finite(state)
    assert str(failure_of_digits(options)) == str(error)


def test_a_gradient_that_overflows_in_float16_is_no_failure():
    """The step is skipped, and the scale of the loss halved."""
    options = SMALL._replace(dtype="float16")
    state, step = digits_train.init_state(options), digits_train.make_step(options, network("mlp").spelled)
    state = state._replace(scale=state.scale._replace(factor=jnp.float32(2**24)))
    before = jax.device_get(state)
    after, value = step(state, *next(digits_train.batches(options, digits_data.load(0))))
    jax.tree.map(np.testing.assert_array_equal, before.params, jax.device_get(after.params))
    assert np.isfinite(value)
    assert after.scale.factor == 2**23


# Steps made up

class Made(NamedTuple):
    """A state of parameters alone."""

    params: Any


def made(loss, W, X, update=lambda W, dW: W, measured=()):
    """Steps of one matrix."""
    step = lambda state, X: (Made(update(state.params, jax.grad(loss)(state.params, X))), None)
    return Replay(lambda: Made(W), step, lambda step: (X,), loss, tuple((X,) for X in measured))


def linear(W, X):
    return jnp.sum(X @ W)


def norm(W, X):
    return jnp.linalg.norm(X @ W)


W, X = (np.random.default_rng(i).standard_normal((3, 3), np.float32) for i in range(2))
MADE = {
    "the batch": (made(linear, 1e38 * W, 1e38 * X), 2, "the loss is (nan|inf|-inf): .* comes from dot_general .*"),
    "the images that are measured": (
        made(linear, 1e20 * W, X, measured=(X, 1e38 * X)), 2, "the loss is (nan|inf|-inf): .* comes from dot_general .*"
    ),
    "rounding on a mesh": (made(linear, W, X), 2, "on one device, which rounds otherwise, the loss is a number"),
    "the gradient": (
        made(norm, 0 * W, X, lambda W, dW: W - dW), 0, "the loss is finite and gradients are not: they break .*"
    ),
    "the update": (
        made(linear, W, X, lambda W, dW: jnp.float32(1e30) * W), 1, "the update of the parameters overflows"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_the_cause_is_looked_for_where_the_loss_broke(name):
    replay, done, why = MADE[name]
    error = explained(NonFiniteLoss("the loss is nan", 2), SMALL, replay, None)
    assert re.fullmatch(rf"the loss is nan\. In the step after {done}: {why}", str(error))
    assert error.step == 2


# What a run leaves


@pytest.mark.skipif(not MEMORY.exists() or not hasattr(LIBC, "malloc_trim"), reason="Linux and its C library tell")
def test_a_thousand_steps_leave_nothing(text):
    arrays, resident = [], []

    def look(at):
        gc.collect()
        LIBC.malloc_trim(0)                                                          # or a leak hides in what is free
        arrays.append(len(jax.live_arrays()))
        resident.append(int(MEMORY.read_text().split()[1]) * PAGE)

    train(TINY._replace(steps=1000), text, look)
    print("MB", [round(r / 1e6, 2) for r in resident])
    warm = 5                                                                         # of 20 looks
    assert len(arrays) == 20
    assert set(arrays[warm:]) == {arrays[warm]}
    assert max(resident[warm:]) - resident[warm] < 2e6
