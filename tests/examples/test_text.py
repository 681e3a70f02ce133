"""Training on text: it learns, every option has an effect, every end is a clean one."""

import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.__main__ import main, parser
from adjax.examples import side_by_side
from adjax.examples.text import compare, sample
from adjax.examples.text import options as text_options
from adjax.examples.text.data import batches, load, windows
from adjax.examples.text.decoder import SPELLED, features
from adjax.examples.text.options import Options
from adjax.examples.text.train import State, evaluate, init_state, make_step, train

SMALL = Options(steps=4, width=16, depth=2, heads=2, context=12, batch=3, sample=7)
SMALL_COMMAND = ("train", "text", "--width", "16", "--depth", "1", "--heads", "2", "--context", "12", "--batch", "3")


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def text():
    return load(SMALL)


@pytest.fixture(scope="module")
def params(as_users_run_it, text):
    return init_state(SMALL, len(text.characters)).params


def test_it_learns(capsys, monkeypatch):
    """The program with small options, in a pipe: fewer bits than the entropy of single characters, 4.6."""
    monkeypatch.setattr(side_by_side, "BLOCK_SECONDS", 0.002)
    small = ("--width", "48", "--depth", "1", "--heads", "2", "--context", "32", "--batch", "16", "--steps", "200")
    assert main(["train", "text", *small, "--learning-rate", "1e-2", "--sample", "30"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert "1 blocks of 2 heads, width 48, in float32" in out
    assert float(re.search(r"Held out  ([\d.]+) bits", out)[1]) < 4.0
    assert re.search(r"step +200    train \d\.\d\d    held out \d\.\d\d bits", out)
    assert len(re.search(r"It writes\n((?:  .*\n|\n)+)\nSpelled", out)[1]) >= 30
    assert float(re.search(r"ratio +(\S+)", out)[1]) > 0
    assert float(re.search(r"gradients apart +(\S+)  at most", out)[1]) < 1e-5
    assert len(re.findall(r"[\d.]+  MB (?:spelled|autodiff)", out)) == 2


def test_the_last_tenth_is_held_out(text):
    whole = np.concatenate([text.train, text.held_out])
    assert len(whole) > 400_000
    assert len(text.held_out) == len(whole) // 10
    assert text.characters == "".join(sorted(set(text.spelled(whole))))
    assert "The \"assert\" statement" in text.spelled(whole)


def test_batches_are_windows_of_the_training_text(text):
    stream = batches(SMALL, text.train)
    first, second = next(stream), next(stream)
    assert first.shape == (3, 13)
    assert not np.array_equal(first, second)
    assert all(text.spelled(row) in text.spelled(text.train) for row in first)
    np.testing.assert_array_equal(next(batches(SMALL, text.train)), first)
    assert not np.array_equal(next(batches(SMALL._replace(seed=1), text.train)), first)


def test_windows_predict_every_character_but_the_first_once():
    ids = np.arange(30)
    cut = windows(SMALL._replace(context=7), ids)
    np.testing.assert_array_equal(cut[:, 1:].ravel(), np.arange(1, 29))
    np.testing.assert_array_equal(cut[:, 0], [0, 7, 14, 21])


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("añb" * 100, "utf-8")
    text = load(SMALL._replace(file=file))
    assert text.characters == "abñ"
    assert text.spelled(text.train[:6]) == "añbañb"
    assert (len(text.train), len(text.held_out)) == (270, 30)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (b"abc\xff", (), "--file: {file} is no text in UTF-8: invalid start byte at byte 3"),
        (b"ab" * 60, (), "--context: a tenth of the text is held out, and its 12 characters must be more than a "
                         "context of 12"),
        (b"ab", ("--heads", "3"), "--heads: a width of 16 has no 3 heads of equal, even width"),
        (b"ab", ("--heads", "16"), "--heads: a width of 16 has no 16 heads of equal, even width"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(capsys, tmp_path, content, options, said):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    assert main([*SMALL_COMMAND, "--file", str(file), *options]) == 2
    assert capsys.readouterr().err == f"adjax train text: {said.format(file=file)}\n"


def test_a_file_that_is_not_there(capsys, tmp_path):
    assert main([*SMALL_COMMAND, "--file", str(tmp_path / "none")]) == 1
    assert re.fullmatch(r"adjax train text: .*No such file.*\n", capsys.readouterr().err)


def test_the_defaults_are_those_of_the_options():
    assert text_options.chosen(parser().parse_args(["train", "text"])) == Options()


def test_nothing_is_known_of_later_characters(text, params):
    known = jax.jit(lambda params, ids: features(params, ids, SPELLED, heads=2))
    ids = next(batches(SMALL, text.train))[:, :-1]
    changed = ids.copy()
    changed[:, 8:] = 0
    before, after = known(params, ids), known(params, changed)
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert not np.allclose(before[:, 8:], after[:, 8:])


@pytest.mark.parametrize("change", [{}, {"remat": True}, {"dtype": "bfloat16"}], ids=str)
def test_the_gradient_is_that_of_autodiff(text, params, change):
    options, ids = SMALL._replace(**change), next(batches(SMALL, text.train))
    difference = compare.gradient_difference(options, params, ids)
    assert difference.norm > 0.1
    assert difference.relative < (1e-2 if change.get("dtype") else 1e-6)


def test_the_comparison_would_show_a_wrong_gradient(text, params, monkeypatch):
    wrong = SPELLED._replace(swiglu=lambda gate, up: jax.nn.silu(jax.lax.stop_gradient(gate)) * up)
    monkeypatch.setitem(compare.LAYERS, "spelled", wrong)
    assert compare.gradient_difference(SMALL, params, next(batches(SMALL, text.train))).relative > 1e-2


def test_the_parameters_stay_in_float32(text):
    options, ids = SMALL._replace(dtype="bfloat16"), next(batches(SMALL, text.train))
    state = jax.eval_shape(lambda: init_state(options, len(text.characters)))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.params)} == {"float32"}
    after, value = jax.eval_shape(make_step(options, SPELLED), state, ids)
    assert after == state
    assert value.dtype == jnp.float32


def test_a_seed_makes_the_run(text):
    first = train(SMALL, text).checkpoints
    assert train(SMALL, text).checkpoints == first
    for change in ({"seed": 1}, {"learning_rate": 1e-2}):
        assert train(SMALL._replace(**change), text).checkpoints != first


def test_the_step_donates_its_state(text):
    state = init_state(SMALL, len(text.characters))
    after, _ = make_step(SMALL, SPELLED)(state, next(batches(SMALL, text.train)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert isinstance(after, State)


def test_the_loss_is_in_bits(text, params):
    held_out = windows(SMALL, text.held_out)[:7]
    uniform = params._replace(norm=0 * params.norm)
    assert evaluate(uniform, held_out, SMALL) == pytest.approx(np.log2(len(text.characters)), rel=1e-5)


def test_it_writes_as_many_characters_as_asked(text, params):
    written = sample.write(params, text, SMALL)
    assert len(written) == 7
    assert set(written) <= set(text.characters)
    assert sample.write(params, text, SMALL) == written
    assert sample.write(params, text, SMALL._replace(seed=1, sample=40)) != written


def test_a_loss_that_is_no_number_ends_the_run(capsys):
    assert main([*SMALL_COMMAND, "--steps", "6", "--learning-rate", "1e30"]) == 1
    assert re.fullmatch(
        r"adjax train text: the loss is (nan|inf) after \d of 6 steps \(float32, learning rate 1e\+30\); "
        r"try a lower --learning-rate\. In the step after \d: the loss is .*\n",
        capsys.readouterr().err,
    )


def test_ctrl_c_ends_with_the_result_so_far(monkeypatch, capsys):
    def show(step, *words):
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("adjax.examples.progress._lines", lambda steps, terminal: show)
    assert main([*SMALL_COMMAND, "--steps", "9"]) == 130
    out, err = capsys.readouterr()
    assert err == ""
    assert "Held out" in out
    assert out.endswith("Interrupted after 4 of 9 steps: this is the result so far.\n")
