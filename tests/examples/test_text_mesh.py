"""The decoder on meshes of eight devices: the gradients of one, and no more said between devices than must be."""

from functools import cache

import jax
import numpy as np
import pytest

from adjax.examples.parallel.mesh import entered, put
from adjax.examples.parallel.options import MODES, mesh
from adjax.examples.text.decoder import SPELLED
from adjax.examples.text.options import Options
from adjax.examples.text.plain import PLAIN
from adjax.examples.text.train import init_state, loss_and_gradient
from tests.conftest import DEVICES
from tests.examples.collectives import collectives
from tests.sharing import shared

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

SMALL = Options(width=16, depth=2, heads=4, context=6, batch=8)
LAYERS = {"spelled": SPELLED, "plain": PLAIN}
ROUNDING = {"float32": 2e-6, "bfloat16": 3e-2, "float16": 4e-3}

CASES = [                          # mesh, characters, dtype
    ("data=8",                     13, "float32"),
    ("model=4",                    16, "float32"),
    ("fsdp=8",                     16, "float32"),
    ("data=4,model=2",             13, "float32"),
    ("fsdp=2,model=4",             16, "float32"),
    ("data=2,fsdp=2,model=2",      13, "bfloat16"),
]  # fmt: skip
MATRIX = shared([(mode, *case) for mode in MODES for case in CASES], str)


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@cache
def run(options, vocabulary, layers="spelled"):
    """The loss and its gradient, the layouts of the gradient and of the parameters, and what the program says."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (SMALL.batch, SMALL.context + 1), np.int32)
    with entered(options):
        params = init_state(options, vocabulary).params
        f = jax.jit(lambda params, ids: loss_and_gradient(params, ids, options, LAYERS[layers]))
        program = f.lower(params, put(options, ids)).compile()
        value, gradient = program(params, put(options, ids))
    layouts = [(g.sharding, p.sharding, g.ndim) for g, p in zip(*map(jax.tree.leaves, (gradient, params)), strict=True)]
    return jax.device_get((value, gradient)), layouts, collectives(program)


def on(axes, mode, **change):
    return SMALL._replace(mesh=mesh(axes), mode=mode, **change)


@pytest.mark.parametrize(("mode", "axes", "vocabulary", "dtype"), MATRIX)
def test_the_gradient_is_that_of_one_device(mode, axes, vocabulary, dtype):
    (value, gradient), layouts, _ = run(on(axes, mode, dtype=dtype), vocabulary)
    (want_value, want), *_ = run(SMALL, vocabulary)
    assert value == pytest.approx(want_value, rel=ROUNDING[dtype])
    for a, b in zip(*map(jax.tree.leaves, (gradient, want)), strict=True):
        assert np.linalg.norm(a - b) < ROUNDING[dtype] * np.linalg.norm(b)
    assert all(of_gradient.is_equivalent_to(of_params, rank) for of_gradient, of_params, rank in layouts)


PARAMETERS = 9                     # arrays of them
LOSS = 4                           # bytes


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("mode", "axes", "vocabulary", "dtype"), MATRIX)
def test_no_more_is_said_than_by_plain_autodiff(mode, axes, vocabulary, dtype):
    """In number and in bytes, of each kind."""
    if dtype != "float32":
        pytest.skip("our sums of half precision are float32, those of autodiff are not")
    *_, ours = run(on(axes, mode), vocabulary)
    *_, plain = run(on(axes, mode), vocabulary, "plain")
    assert ours.count.total() <= plain.count.total()
    assert ours.bytes.total() <= plain.bytes.total()
