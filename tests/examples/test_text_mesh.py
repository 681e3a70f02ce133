"""The decoder on meshes of eight devices: the gradients of one, and no more said between devices than must be."""

import re
from functools import cache

import jax
import numpy as np
import pytest

from adjax.__main__ import main
from adjax.examples.parallel.mesh import entered, put
from adjax.examples.parallel.options import MODES, mesh
from adjax.examples.text.data import batches
from adjax.examples.text.decoder import SPELLED, Block, init
from adjax.examples.text.options import Options
from adjax.examples.text.plain import PLAIN
from adjax.examples.text.train import init_state, loss_and_gradient, make_step
from adjax.layers import loss_linear
from tests.conftest import DEVICES
from tests.examples.collectives import collectives
from tests.sharing import LATER, every_other

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

SMALL = Options(width=16, depth=2, heads=4, context=8, batch=8)
LAYERS = {"spelled": SPELLED, "plain": PLAIN}
ROUNDING = {"float32": 2e-6, "bfloat16": 3e-2, "float16": 4e-3}

MESHES = {                         # characters, which over two devices do not always divide
    "data=8":         13,
    "model=4":        16,
    "fsdp=8":         16,
    "data=4,model=2": 13,
    "sequence=4":     16,
    "fsdp=2,sequence=2,model=2": 13,
}  # fmt: skip
CASES = every_other([(mode, axes, characters) for axes, characters in MESHES.items() for mode in MODES])
COMPARED = "fsdp=8", "data=4,model=2"
MODE = "shard_map" if LATER else "explicit"


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@cache
def run(options, vocabulary, layers="spelled", turns=False):
    """The loss and its gradient, the layouts of the gradient and of the parameters, and what the program says."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (SMALL.batch, SMALL.context + 1), np.int32)
    with entered(options):
        params = init_state(options, vocabulary).params
        f = jax.jit(lambda params, ids: loss_and_gradient(params, ids, options, LAYERS[layers]))
        program = f.lower(params, put(options, ids)).compile()
        value, gradient = program(params, put(options, ids))
    layouts = [(g.sharding, p.sharding, g.ndim) for g, p in zip(*map(jax.tree.leaves, (gradient, params)), strict=True)]
    return jax.device_get((value, gradient)), layouts, collectives(program, turns)


def on(axes, mode, **change):
    return SMALL._replace(mesh=mesh(axes), mode=mode, **change)


HALF = [(MODE, "data=2,fsdp=2,model=2", 13, "bfloat16")]


@pytest.mark.parametrize(("mode", "axes", "vocabulary", "dtype"), [*((*case, "float32") for case in CASES), *HALF])
def test_the_gradient_is_that_of_one_device(mode, axes, vocabulary, dtype):
    (value, gradient), layouts, _ = run(on(axes, mode, dtype=dtype), vocabulary)
    (want_value, want), *_ = run(SMALL, vocabulary)
    assert value == pytest.approx(want_value, rel=ROUNDING[dtype])
    for a, b in zip(*map(jax.tree.leaves, (gradient, want)), strict=True):
        assert np.linalg.norm(a - b) < ROUNDING[dtype] * np.linalg.norm(b)
    assert all(of_gradient.is_equivalent_to(of_params, rank) for of_gradient, of_params, rank in layouts)


ROWS = SMALL.batch * SMALL.context                              # characters of a batch
WHOLE = 4 * ROWS * SMALL.width                                  # bytes of x, of which all devices have the same


def parameters(vocabulary):
    return jax.tree.leaves(jax.eval_shape(lambda: init(jax.random.key(0), SMALL, vocabulary)))


@pytest.mark.parametrize(("mode", "axes", "vocabulary"), [case for case in CASES if case[1] in COMPARED])
def test_no_more_is_said_than_by_plain_autodiff(mode, axes, vocabulary):
    """In number and in bytes."""
    *_, ours = run(on(axes, mode), vocabulary)
    *_, plain = run(on(axes, mode), vocabulary, "plain")
    assert ours.count.total() <= plain.count.total()
    assert ours.bytes.total() <= plain.bytes.total()


@pytest.mark.parametrize("mode", [case[0] for case in CASES if case[1] == "data=8"])
def test_over_examples_only_gradients_are_summed(mode):
    """Once where the program says so; where the compiler does, at most once a parameter, and the loss."""
    *_, said = run(on("data=8", mode), 13)
    assert set(said.count) == {"all-reduce"}
    assert said.count.total() <= (1 if mode == "shard_map" else len(parameters(13)) + 1)
    assert said.bytes.total() <= 4 * sum(p.size for p in parameters(13)) + 4


@pytest.mark.parametrize("mode", [case[0] for case in CASES if case[1] == "model=4"])
def test_over_features_a_half_of_a_block_sums_once_forward_and_once_backward(mode):
    """And so do embedding, forward, and the loss, backward, which merges three numbers of each row besides."""
    *_, said = run(on("model=4", mode), 16)
    assert set(said.count) == {"all-reduce"}
    halves, ends, numbers = 2 * 2, 1 + 1, 3
    assert said.count.total() <= halves + ends + (2 if mode == "shard_map" else numbers)
    assert said.bytes.total() <= (halves + ends) * WHOLE + numbers * 4 * ROWS


@pytest.mark.parametrize("mode", [case[0] for case in CASES if case[1] == "fsdp=8"])
def test_parameters_are_gathered_when_they_are_needed(mode):
    """Each once forward, the matrices of a block again backward instead of being kept; then gradients are summed."""
    *_, said = run(on("fsdp=8", mode), 16)
    of_all, of_block = len(parameters(16)), len(Block._fields) - 2
    assert of_all < said.count["all-gather"] <= of_all + of_block
    assert said.count["reduce-scatter"] + said.count["all-reduce"] <= of_all + 1


@pytest.mark.parametrize("mode", [case[0] for case in CASES if case[1] == "sequence=4"])
def test_over_characters_keys_and_values_go_round(mode):
    """And the ids of the next characters move by one, where the compiler splits them; then gradients are summed."""
    *_, said = run(on("sequence=4", mode), 16)
    assert set(said.count) == {"collective-permute", "all-reduce"}
    assert said.count["all-reduce"] <= (1 if mode == "shard_map" else len(parameters(16)) + 1)
    assert said.bytes["all-reduce"] <= 4 * sum(p.size for p in parameters(16)) + 4


def test_a_loss_in_blocks_sums_its_gradients_once(monkeypatch):
    """Four blocks of rows: autodiff sums no less, and from block to block nothing is said."""
    monkeypatch.setattr(loss_linear, "BLOCK", 2 * 4 * 13)
    monkeypatch.setattr(loss_linear, "FEWEST_ROWS", 2)
    *_, said = run(on("data=8", "auto" if MODE == "shard_map" else MODE), 13, turns=True)
    assert set(said.count) == {"all-reduce"}
    assert said.count.total() <= len(parameters(13)) + 1
    assert said.bytes.total() <= 4 * sum(p.size for p in parameters(13)) + 4


def test_steps_on_a_mesh_are_those_on_one_device():
    """In micro-batches, with float16 and its loss scale: the losses of float32, and a state that stays where it is."""
    options, one = on("data=2,fsdp=2,model=2", MODE, dtype="float16", accumulate=2, steps=4), SMALL._replace(steps=4)
    stays = lambda x, layout: x.sharding.is_equivalent_to(layout, x.ndim)
    ids = np.random.default_rng(0).integers(0, 13, 1000, np.int32)
    losses = {}
    for at in (options, one):
        with entered(at):
            state, step = init_state(at, 13), make_step(at, SPELLED)
            layouts = jax.tree.map(lambda x: x.sharding, state)
            losses[at] = []
            for _ in range(at.steps):
                state, value = step(state, put(at, next(batches(at, ids))))
                losses[at].append(float(value))
        assert all(jax.tree.leaves(jax.tree.map(stays, state, layouts)))
    assert losses[options] == pytest.approx(losses[one], rel=5e-3)
    assert losses[one][-1] < 0.98 * losses[one][0]


def test_the_program_on_a_mesh(capsys, monkeypatch, tmp_path):
    """Held-out text that does not divide over the devices, characters that do not, and a sample from one device."""
    monkeypatch.setattr("adjax.examples.text.program.side_by_side", lambda *arguments: "")
    (tmp_path / "text").write_text("the quick brown fox jumps over the lazy dog" * 9)
    small = "--width 16 --depth 1 --heads 2 --context 12 --batch 8 --steps 2 --sample 5 --dtype bf16"
    where = f"--mesh data=4,model=2 --mode {MODE}"
    assert main(["train", "text", "--file", str(tmp_path / "text"), *f"{small} {where}".split()]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"8 × 12 characters a step    on data=4,model=2, {MODE}" in out
    assert re.search(r"Held out  \d\.\d+ bits per character    36 characters", out)
