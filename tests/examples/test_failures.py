"""A loss that is no number is explained, and a thousand steps leave nothing behind."""

import ctypes
import gc
import re
from pathlib import Path

import jax
import pytest

from adjax.examples.finite import NonFiniteLoss
from adjax.examples.text import diagnosis, resume
from adjax.examples.text.data import load
from adjax.examples.text.options import Options
from adjax.examples.text.train import init_state, train

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
    done, state = diagnosis.last_finite(TINY._replace(learning_rate=1e30), text, 6, None)
    assert 0 < done < 6
    assert diagnosis.finite(state.params)


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
