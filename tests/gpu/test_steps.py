"""Both training steps on a GPU: the losses of a few steps are those on the host."""

import functools

import jax
import numpy as np
import pytest

from adjax.examples.digits import options as digits_options
from adjax.examples.digits import train as digits
from adjax.examples.digits.models import network
from adjax.examples.text import options as text_options
from adjax.examples.text import train as text
from adjax.examples.text.decoder import SPELLED
from tests.gpu.accelerator import DEVICE, HOST, WHY_NOT

pytestmark = pytest.mark.skipif(DEVICE is None, reason=WHY_NOT)
STEPS = 5
APART = {"float32": 1e-4, "bfloat16": 3e-2}                     # of the loss, after as many updates


@pytest.fixture(autouse=True)
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def text_losses(device, **options):
    of = text_options.Options(steps=STEPS, width=32, depth=2, heads=2, context=40, batch=4, **options)
    ids = np.random.default_rng(0).integers(0, 50, (STEPS, 4, 41)).astype(np.int32)
    return losses(device, text.make_step(of, SPELLED), functools.partial(text.init_state, of, 50), [(x,) for x in ids])


def digits_losses(device, **options):
    of = digits_options.Options(steps=STEPS, batch=16, **options)
    rng = np.random.default_rng(0)
    batches = [(rng.random((16, 64), np.float32), rng.integers(0, 10, 16).astype(np.int32)) for _ in range(STEPS)]
    step = digits.make_step(of, network(of.model).spelled)
    return losses(device, step, functools.partial(digits.init_state, of), batches)


def losses(device, step, init, batches):
    with jax.default_device(HOST):
        state = jax.device_get(init())
    values, state = [], jax.device_put(state, device)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        for batch in batches:
            state, value = step(state, *jax.device_put(batch, device))
            assert value.devices() == {device}
            values.append(float(value))
    return np.array(values)


PROGRAMS = {
    "text": (text_losses, {}),
    "text, remat": (text_losses, {"remat": True}),
    "text, bfloat16": (text_losses, {"dtype": "bfloat16"}),
    "digits": (digits_losses, {}),
    "digits, cnn": (digits_losses, {"model": "cnn"}),
    "digits, cnn, bfloat16": (digits_losses, {"model": "cnn", "dtype": "bfloat16"}),
}


@pytest.mark.parametrize("name", PROGRAMS if DEVICE else list(PROGRAMS)[:1])
def test_losses_are_those_on_the_host(name):
    run, options = PROGRAMS[name]
    there, here = run(DEVICE, **options), run(HOST, **options)
    assert np.isfinite(here).all() and len(set(here)) > 1
    np.testing.assert_allclose(there, here, rtol=APART[options.get("dtype", "float32")])
