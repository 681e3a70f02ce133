"""Checkpoints: what is read is what was saved, on any mesh; what is damaged or of another run is found."""

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from adjax.__main__ import main
from adjax.examples import extras
from adjax.examples.checkpoints import KEPT, Checkpoints, NotSaved, fingerprint
from adjax.examples.digits import data as digits_data
from adjax.examples.digits import options as digits
from adjax.examples.digits import train as digits_train
from adjax.examples.readers import BadOption
from adjax.examples.text import resume
from adjax.examples.text.data import load
from adjax.examples.text.options import Options
from adjax.examples.text.train import train

TOOL = Path(__file__).parents[2] / "tools" / "crash.py"
RUN = {"--width": 3, "--learning-rate": 4e-3}
TRAIN = ("train", "text", "--width", "8", "--depth", "1", "--heads", "1", "--context", "8", "--batch", "2")

pytestmark = [
    pytest.mark.shared,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # orbax, of damaged arrays
]


def state_of(key):
    a, b = jax.random.split(key)
    weights = [jax.random.normal(a, (8, 6), jnp.float32), jax.random.normal(b, (7,)).astype(jnp.bfloat16)]
    return {"weights": weights, "key": jax.random.fold_in(key, 1), "count": jnp.asarray(3, jnp.int32)}


def zeros_like(state):
    return jax.eval_shape(lambda: state)


def bits(state):
    data = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(data)]


def saved(folder, *states):
    with Checkpoints(folder, RUN, every=1) as checkpoints:
        for step, state in enumerate(states, 1):
            checkpoints.save(step, state)
    return folder


@pytest.fixture
def three(tmp_path, key):
    """A folder with checkpoints of three states, and the states."""
    states = [state_of(k) for k in jax.random.split(key, 3)]
    return saved(tmp_path / "three", *states), states


def test_what_is_read_is_what_was_saved(three):
    folder, states = three
    said = []
    with Checkpoints(folder, RUN, every=1, say=said.append) as checkpoints:
        step, state = checkpoints.latest(zeros_like(states[0]))
        assert bits(checkpoints.read(1, zeros_like(states[0]))) == bits(states[0])
    assert step == 3
    assert bits(state) == bits(states[2])
    assert jax.tree.structure(state) == jax.tree.structure(states[2])
    assert said == [f"goes on after 3 steps, from {folder}"]


def test_a_state_may_be_donated_while_it_is_saved(tmp_path):
    step = jax.jit(lambda x: x * 1.5 + 1, donate_argnums=0)
    x, expected = jnp.ones((300, 500), jnp.float32), []
    with Checkpoints(tmp_path, RUN, every=1) as checkpoints:
        for done in range(3):
            x = step(x)
            expected.append(np.array(x))
            checkpoints.save(done, x)
            for _ in range(3):
                x = step(x)
    for done in range(3):
        assert bits(Checkpoints(tmp_path, RUN, every=1).read(done, x)) == bits(expected[done])


def test_the_last_few_are_kept(tmp_path, key):
    saved(tmp_path, *[state_of(key)] * (KEPT + 2))
    assert sorted(os.listdir(tmp_path)) == ["3", "4", "5"]
    assert [Checkpoints(tmp_path, RUN, every=4).due(step) for step in (3, 4, 6, 8)] == [False, True, False, True]


def test_a_state_that_is_saved_is_not_saved_again(three):
    folder, states = three
    before = (folder / "3").stat().st_mtime_ns
    with Checkpoints(folder, RUN, every=1) as checkpoints:
        checkpoints.save(3, states[2])
    assert (folder / "3").stat().st_mtime_ns == before


def test_nothing_saved_begins_at_the_beginning(tmp_path, key):
    state = state_of(key)
    step, same = Checkpoints(tmp_path, RUN, every=1).latest(state)
    assert step == 0
    assert same is state


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_state_moves_to_another_mesh(tmp_path, key, kind):
    def laid_out(x, spec, shape, names):
        mesh = jax.make_mesh(shape, names, axis_types=(kind,) * len(shape), devices=jax.devices()[: np.prod(shape)])
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    x = jax.random.normal(key, (8, 12), jnp.float32)
    saved(tmp_path, {"W": laid_out(x, ("a", "b"), (4, 2), ("a", "b"))})
    for like in (laid_out(0 * x, (None, "c"), (3,), ("c",)), laid_out(0 * x, (), (8,), ("a",)), 0 * x):
        read = Checkpoints(tmp_path, RUN, every=1).read(1, {"W": like})
        assert bits(read["W"]) == bits(x)
        assert read["W"].sharding == like.sharding


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


def largest(folder):
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def replace_arrays(folder):
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.parents[1] / "other" / "1" / "state", folder / "state")


DAMAGES = {
    "a folder alone": (lambda at: [shutil.rmtree(at / name) for name in ("state", "run")], ".*(not found|No such).*"),
    "no options": (lambda at: (at / "run" / "metadata").unlink(), ".*not found.*"),
    "options cut off": (lambda at: (at / "run" / "metadata").write_text('{"--wid'), "Unterminated string.*"),
    "no types": (lambda at: (at / "state" / "_METADATA").unlink(), ".*does not exist.*"),
    "no arrays": (lambda at: (at / "state" / "manifest.ocdbt").unlink(), "NOT_FOUND.*"),
    "an array cut off": (lambda at: os.truncate(largest(at), 100), ".*"),
    "other arrays": (replace_arrays, ".*"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_put_aside_and_the_one_before_used(three, tmp_path, name):
    folder, states = three
    saved(tmp_path / "other", {"weights": jnp.ones(3, jnp.float32)})
    damage, reason = DAMAGES[name]
    damage(folder / "3")
    said = []
    with Checkpoints(folder, RUN, every=1, say=said.append) as checkpoints:
        step, state = checkpoints.latest(zeros_like(states[0]))
        assert (step, bits(state)) == (2, bits(states[1]))
        checkpoints.save(3, states[2])
    first, second = said
    now = "it is damaged-3 now, and the one before is used"
    assert re.fullmatch(rf"checkpoint 3 is damaged \(({reason})\); {now}", first)
    assert second.startswith("goes on after 2 steps")
    assert sorted(os.listdir(folder)) == ["1", "2", "3", "damaged-3"]
    assert len(first) < 350


def test_a_changed_bit_is_found(tmp_path):
    """orbax reads it without a word: random bits do not compress, so the flipped one is an element's."""
    states = [{"W": jax.random.normal(jax.random.key(n), (64, 64), jnp.float32)} for n in range(2)]
    saved(tmp_path, *states)
    flip(largest(tmp_path / "2"))
    said = []
    step, state = Checkpoints(tmp_path, RUN, every=1, say=said.append).latest(zeros_like(states[0]))
    assert (step, bits(state)) == (1, bits(states[0]))
    assert said[0].startswith("checkpoint 2 is damaged (its fingerprint is not that of what is in it)")


def test_all_damaged_begins_at_the_beginning(three):
    folder, states = three
    for step in "123":
        (folder / step / "run" / "metadata").unlink()
    like = zeros_like(states[0])
    assert Checkpoints(folder, RUN, every=1).latest(like) == (0, like)


def test_a_half_written_one_is_no_checkpoint(three):
    folder, states = three
    (folder / "3").rename(folder / "3.orbax-checkpoint-tmp")
    with Checkpoints(folder, RUN, every=1) as checkpoints:
        assert checkpoints.latest(zeros_like(states[0]))[0] == 2
        checkpoints.save(3, states[2])
    assert sorted(os.listdir(folder)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (RUN | {"--width": 4}, "--width 3, and this one has --width 4"),
        (RUN | {"--learning-rate": 1e-3}, "--learning-rate 0.004, and this one has --learning-rate 0.001"),
        (RUN | {"--new": 1}, "--new not known, and this one has --new 1"),
    ],
)
def test_another_run_is_refused(three, run, said):
    with pytest.raises(BadOption, match=rf"--checkpoint: {three[0]} holds a run with {said}"):
        Checkpoints(three[0], run, every=1)


def test_a_fingerprint_is_the_sum_that_its_module_says(rng):
    x = rng.normal(size=(3, 5)).astype(np.float32)
    h = x.view(np.uint32).ravel() ^ (np.arange(15, dtype=np.uint32) * np.uint32(0x9E3779B1))
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    assert fingerprint([x]) == np.sum(h ^ (h >> 16), dtype=np.uint32)


@pytest.mark.parametrize("dtype", ["bool", "int8", "bfloat16", "float16", "float32", "float64", "uint32", "complex64"])
def test_any_changed_element_changes_the_fingerprint(rng, dtype):
    x = jnp.asarray(rng.integers(0, 2, (2, 3, 2)), dtype)
    changes = jnp.eye(x.size, dtype=bool).reshape(-1, *x.shape)
    others = jax.vmap(lambda change: fingerprint([(x.astype(bool) ^ change).astype(dtype)])[0])(changes)
    assert len({int(fingerprint([x])[0]), *map(int, others)}) == 1 + x.size


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(reason="a file system of its own needs the rights to mount one")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk):
    x = jax.random.normal(jax.random.key(0), (100, 150), jnp.float32)                # 60 kB, written twice
    said = []
    saved(small_disk, x)
    with pytest.raises(NotSaved, match="No space left"), Checkpoints(small_disk, RUN, every=1, say=said.append) as some:
        (small_disk / "other").write_bytes(bytes(250_000))
        some.save(2, x)
        some.save(3, x)
    expected = "the state after {} steps is not saved (No space left on device); the last good checkpoint is 1"
    assert said == [expected.format(2), expected.format(3)]
    (small_disk / "other").unlink()
    with Checkpoints(small_disk, RUN, every=1) as some:
        assert bits(some.latest(x)[1]) == bits(x)
        some.save(4, x)
    assert sorted(os.listdir(small_disk)) == ["1", "4"]


def test_a_later_checkpoint_makes_up_for_one_not_saved(tmp_path, key, monkeypatch):
    """The writer itself says that the disk is full, once."""
    def full(*args, **options):
        monkeypatch.undo()
        raise OSError(28, "whatever")

    said = []
    with Checkpoints(tmp_path, RUN, every=1, say=said.append) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", full)
        checkpoints.save(1, state_of(key))
        checkpoints.save(2, state_of(key))
    assert said == ["the state after 1 steps is not saved (No space left on device); there is no checkpoint yet"]
    assert os.listdir(tmp_path) == ["2"]


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    crash = SimpleNamespace(**runpy.run_path(str(TOOL), run_name="crash")).crash
    outcome = crash(kills=2, seed=3, folder=tmp_path, steps=30)
    assert outcome.kills == 2
    assert outcome.same


@pytest.fixture
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_the_program_goes_on(as_users_run_it, tmp_path, capsys):
    """A run that Ctrl-C ends and that is started again has the parameters of one that went through, to the last bit."""
    options = Options(steps=7, width=8, depth=1, heads=1, context=8, batch=2, checkpoint=tmp_path, checkpoint_every=3)
    text, at = load(options), []
    whole = train(options, text)
    first = resume.train(options, text, lambda point: at.append(point.step), lambda: len(at) >= 4)
    assert sorted(os.listdir(tmp_path)) == ["3", "4"]
    second = resume.train(options, text, lambda point: None, lambda: False)
    assert sorted(os.listdir(tmp_path)) == ["4", "6", "7"]
    assert (first.first, second.first) == (0, 4)
    assert bits(second.params) == bits(whole.params)
    assert [*first.checkpoints, *second.checkpoints] == whole.checkpoints
    assert capsys.readouterr().err == f"adjax train text: goes on after 4 steps, from {tmp_path}\n"
    assert main([*TRAIN, "--checkpoint", str(tmp_path), "--seed", "1", "--steps", "7"]) == 2
    refused = f"adjax train text: --checkpoint: {tmp_path} holds a run with --seed 0, and this one has --seed 1\n"
    assert capsys.readouterr().err == refused


def test_the_digits_go_on_too(as_users_run_it, tmp_path, capsys):
    options = digits.Options(steps=7, width=8, depth=1, batch=16, checkpoint=tmp_path, checkpoint_every=3)
    data, at = digits_data.load(options.seed), []
    run = lambda: Checkpoints(tmp_path, {"width": 8}, every=3)
    whole = digits_train.train(options, data)
    with run() as saved:
        digits_train.train(options, data, lambda point: at.append(point.step), lambda: len(at) >= 4, saved)
    with run() as saved:
        second = digits_train.train(options, data, saved=saved)
    assert second.checkpoints[0].step == 4 and sorted(os.listdir(tmp_path)) == ["4", "6", "7"]
    assert bits(second.params) == bits(whole.params)
    command = ("train", "digits", "--steps", "7", "--width", "8", "--depth", "1", "--batch", "16")
    assert main([*command, "--checkpoint", str(tmp_path)]) == 2
    assert "holds a run with" in capsys.readouterr().err


def test_without_the_extra_the_message_names_it(tmp_path, capsys, monkeypatch):
    def absent(module):
        raise ModuleNotFoundError("No module named 'orbax'", name="orbax") if "orbax" in module else None

    monkeypatch.setattr(extras.importlib, "import_module", lambda module: "orbax" in module and absent(module))
    assert main([*TRAIN, "--checkpoint", str(tmp_path)]) == 2
    expected = "adjax train text: needs orbax-checkpoint (not installed): pip install 'adjax[train]'\n"
    assert capsys.readouterr().err == expected
