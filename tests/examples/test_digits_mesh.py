"""The networks of the digits on meshes of eight devices: the gradients of one device, in every mode."""

from functools import cache

import jax
import numpy as np
import pytest

from adjax.__main__ import main
from adjax.examples.digits.data import load
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.digits.train import batches, init_state, loss_and_gradient, train
from adjax.examples.parallel.mesh import entered, put
from adjax.examples.parallel.options import MODES, mesh
from tests.conftest import DEVICES
from tests.examples.collectives import collectives
from tests.sharing import ALL, LATER, every_other

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

SMALL = Options(steps=4, width=8, depth=2, batch=16)
CASES = [                          # network, mesh, depth
    ("mlp", "data=8",                2),
    ("mlp", "model=8",               1),
    ("mlp", "data=2,model=4",        3),
    ("mlp", "data=2,fsdp=2,model=2", 2),
    ("cnn", "data=4,fsdp=2",         1),
    ("cnn", "data=4,model=2",        3),
]  # fmt: skip
ALL_AXES = [(mode, "cnn", "data=2,fsdp=2,model=2", 3) for mode in MODES] if LATER or ALL else []
MATRIX = [*every_other([(mode, *case) for case in CASES for mode in MODES]), *ALL_AXES]


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@cache
def run(options, layers="spelled"):
    """The loss and its gradient, where the gradient and the parameters lie, and what the program says."""
    apply, batch = getattr(network(options.model), layers), next(batches(options, load(0)))
    with entered(options):
        params = init_state(options).params
        f = jax.jit(lambda params, X, y: loss_and_gradient(params, X, y, options, apply))
        program = f.lower(params, *put(options, batch)).compile()
        value, gradient = program(params, *put(options, batch))
    layouts = [(g.sharding, p.sharding, g.ndim) for g, p in zip(*map(jax.tree.leaves, (gradient, params)), strict=True)]
    return jax.device_get((value, gradient)), layouts, collectives(program)


@pytest.mark.parametrize(("mode", "model", "axes", "depth"), MATRIX)
def test_the_gradient_is_that_of_one_device(mode, model, axes, depth):
    one = SMALL._replace(model=model, depth=depth)
    (value, gradient), layouts, said = run(one._replace(mesh=mesh(axes), mode=mode, accumulate=2))
    (want_value, want), *_ = run(one)
    assert value == pytest.approx(want_value, rel=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (gradient, want)), strict=True):
        assert np.linalg.norm(a - b) < 2e-6 * np.linalg.norm(b)
    assert all(of_gradient.is_equivalent_to(of_params, rank) for of_gradient, of_params, rank in layouts)
    assert said.count.total() > 0


def test_a_perceptron_over_two_devices_sums_once_forward_and_once_backward():
    """Each device has its features between two layers: Y is summed, and dX, which nobody asks for, is not."""
    _, _, said = run(SMALL._replace(depth=1, mesh=mesh("model=2"), mode="shard_map"))
    assert dict(said.count) == {"all-reduce": 1}
    assert said.bytes["all-reduce"] == SMALL.batch * 10 * 4


def of_cnn(axes):
    """The modes and options in which this Python has it on these axes."""
    cases = [case for case in MATRIX if case[1:3] == ("cnn", axes)]
    return [(mode, SMALL._replace(model="cnn", depth=depth, mesh=mesh(axes), mode=mode, accumulate=2))
            for mode, _, _, depth in cases]  # fmt: skip


@pytest.mark.parametrize(("mode", "options"), of_cnn("data=4,model=2"))
def test_two_convolutions_over_two_devices_sum_once(mode, options):
    """In every mode: each device has its channels between two of three blocks. All gradients are summed at once."""
    (_, gradient), _, said = run(options)
    assert dict(said.count) == {"all-reduce": 2}
    images, pixels, channels = options.batch // 2 // 4, 4 * 4, 2 * options.width
    first, second, *_ = gradient[0]
    halves = first.norm.scale.size + first.norm.bias.size + first.conv.W.size + second.conv.W.size
    of_gradients = sum(g.size for g in jax.tree.leaves(gradient)) - halves // 2
    assert said.bytes["all-reduce"] <= 4 * (images * pixels * channels + of_gradients + 1)


@pytest.mark.parametrize(("mode", "options"), [case for case in of_cnn("data=4,model=2") if case[0] == "auto"])
def test_no_more_is_said_than_by_plain_autodiff(mode, options):
    """In number and in bytes."""
    *_, ours = run(options)
    *_, plain = run(options, "autodiff")
    assert ours.count.total() <= plain.count.total()
    assert ours.bytes.total() <= plain.bytes.total()


def test_a_run_on_a_mesh_is_that_on_one_device():
    data = load(0)
    options = SMALL._replace(mesh=mesh("data=2,model=2"), accumulate=2)
    for a, b in zip(train(options, data).checkpoints, train(SMALL, data).checkpoints, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--width 6 --mesh model=4", "--mesh: 6 features do not divide over the 4 devices of model"),
        ("--model cnn --width 6 --mesh model=4", "--mesh: 6 channels do not divide over the 4 devices of model"),
        (
            "--model cnn --width 24 --mesh model=3",
            "--mesh: 8 groups of channels do not divide over the 3 devices of model",
        ),
        (
            "--model cnn --depth 1 --mesh model=2",
            "--mesh: model splits the channels between two blocks of cnn, and --depth is 1",
        ),
    ],
)
def test_a_network_that_does_not_divide_is_refused(capsys, options, said):
    assert main(["train", "digits", *options.split()]) == 2
    assert capsys.readouterr().err == f"adjax train digits: {said}\n"
