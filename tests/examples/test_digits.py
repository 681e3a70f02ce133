"""Training on the digits: the accuracy promised, every option with an effect, every end a clean one."""

import functools
import io
import re
import signal
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import affine
from adjax.__main__ import main, parser
from adjax.examples import side_by_side
from adjax.examples.digits import compare, mlp, model, report
from adjax.examples.digits import options as digits_options
from adjax.examples.digits.data import load
from adjax.examples.digits.models import network
from adjax.examples.digits.options import DTYPES, Options
from adjax.examples.digits.train import batches, init_state, loss_and_gradient, make_step, train
from adjax.examples.finite import NonFiniteLoss, require_finite
from adjax.examples.interrupt import Interrupt
from adjax.examples.progress import progress
from adjax.examples.terminal import Terminal

pytestmark = pytest.mark.shared

ROWS = ("tested", "correct")
SMALL = Options(steps=6, width=8, depth=1, batch=16)
SMALL_CNN = SMALL._replace(model="cnn", width=4)
BOTH = pytest.mark.parametrize("options", [SMALL, SMALL_CNN], ids=lambda options: options.model)
SMALL_COMMAND = ("train", "digits", "--width", "8", "--depth", "1", "--batch", "16")


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def data():
    return load(seed=0)


@pytest.fixture(scope="module")
def small(as_users_run_it, data):
    return train(SMALL, data)


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24]), len(content)


def test_the_promise(capsys, tmp_path):
    """The defaults: at least 97 % of the test images, in a pipe."""
    assert main(["train", "digits", "--plot", str(tmp_path / "curve.png")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("  plot ")) <= 80
    assert float(re.search(r"Test accuracy  ([\d.]+)%", out)[1]) >= 97
    tested, correct = (sum(map(int, re.search(rf"^  {row} +([\d ]+)$", out, re.M)[1].split())) for row in ROWS)
    assert tested == 360
    assert f"{correct} of 360 images" in out
    assert all(float(rate) > 0 for rate in re.findall(r"(\d+)  (?:spelled|autodiff)", out))
    assert re.search(r"ratio +\d+\.\d\d  half of the pairs in \d", out)
    assert float(re.search(r"gradients apart +(\S+)  at most", out)[1]) < 1e-6
    (width, height), size = png_size(tmp_path / "curve.png")
    assert width >= 1000
    assert height >= 500
    assert size > 20_000


def test_the_convolutional_network(capsys, tmp_path, monkeypatch):
    """The same program; after few steps already far better than chance."""
    monkeypatch.setattr(side_by_side, "BLOCK_SECONDS", 0.002)
    command = ["train", "digits", "--model", "cnn", "--width", "8", "--steps", "80"]
    assert main([*command, "--learning-rate", "2e-2", "--plot", str(tmp_path / "curve.png")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(len(line) for line in out.splitlines() if not line.startswith("  plot ")) <= 80
    assert "8×8×1 → 4×4×8 → 2×2×16 → 10" in out
    assert "adjax.conv, group_norm, max_pool, affine in float32, 1922 parameters" in out
    assert "autodiff of lax.conv" in out
    assert float(re.search(r"Test accuracy  ([\d.]+)%", out)[1]) >= 90
    assert float(re.search(r"ratio +(\S+)", out)[1]) > 0
    assert float(re.search(r"gradients apart +(\S+)  at most", out)[1]) < 1e-5
    assert png_size(tmp_path / "curve.png")[1] > 20_000


@pytest.mark.parametrize(
    ("width", "depth", "shapes"),
    [(5, 1, [(3, 3, 1, 5), (80, 10)]), (4, 3, [(3, 3, 1, 4), (3, 3, 4, 8), (3, 3, 8, 16), (16, 10)])],
)
def test_width_and_depth_shape_the_convolutional_network(width, depth, shapes):
    options = SMALL_CNN._replace(width=width, depth=depth)
    blocks, last = jax.eval_shape(lambda: init_state(options).params)
    assert [block.conv.W.shape for block in blocks] + [last.W.shape] == shapes
    assert [block.norm.scale.shape for block in blocks] == [shape[-1:] for shape in shapes[:-1]]
    for apply in (network("cnn").spelled, network("cnn").autodiff):
        assert jax.eval_shape(apply, (blocks, last), jnp.zeros((6, 64))).shape == (6, 10)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--depth", "4"), "--depth: cnn halves 8 × 8 images at most 3 times, got 4"),
        (("--width", "1025"), "--width: the first block of cnn has at most 1024 channels, got 1025"),
    ],
)
def test_a_convolutional_network_that_cannot_be_is_refused(capsys, option, text):
    assert main(["train", "digits", "--model", "cnn", *option]) == 2
    assert capsys.readouterr().err == f"adjax train digits: {text}\n"


def test_width_and_learning_rate_are_the_networks_own_unless_given():
    read = lambda *options: digits_options.chosen(parser().parse_args(["train", "digits", *options]))
    assert read() == Options() == Options(model="mlp", width=256, learning_rate=3e-3)
    assert read("--model", "cnn") == Options(model="cnn", width=32, learning_rate=1e-2)
    assert read("--model", "cnn", "--width", "7", "--depth", "3").width == 7
    assert read("--width", "8192", "--depth", "100").depth == 100


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_convolutional_network_trains_in_half_precision(data, dtype):
    checkpoints = train(SMALL_CNN._replace(dtype=dtype, steps=20, batch=128, learning_rate=1e-2), data).checkpoints
    assert checkpoints[-1].train_loss < checkpoints[0].train_loss - 0.3


def test_the_split_is_stratified_and_made_by_the_seed(data):
    assert (data.X_train.shape, data.X_test.shape, data.images.shape) == ((1437, 64), (360, 64), (360, 8, 8))
    for labels, share in ((data.y_train, 0.8), (data.y_test, 0.2)):
        everything = np.bincount(np.concatenate([data.y_train, data.y_test]))
        np.testing.assert_allclose(np.bincount(labels), share * everything, atol=1)
    np.testing.assert_allclose(data.X_train.mean(axis=0), 0, atol=1e-12)
    assert np.array_equal(load(0).X_test, data.X_test)
    assert not np.array_equal(load(1).X_test, data.X_test)


def test_batches_go_through_every_image_once_an_epoch(data):
    stream = batches(Options(batch=479), data)
    X, y = (np.concatenate(part) for part in zip(*(next(stream) for _ in range(3)), strict=True))
    order = lambda A: A[np.lexsort(A.T)]
    np.testing.assert_array_equal(order(X), order(data.X_train))
    np.testing.assert_array_equal(np.bincount(y), np.bincount(data.y_train))


def test_the_step_donates_its_state_and_is_traced_once(data):
    calls = []

    def counted(params, X):
        calls.append(X.shape)
        return affine(params, X)

    step, state = make_step(SMALL, functools.partial(mlp.forward, layer=counted)), init_state(SMALL)
    stream = batches(SMALL, data)
    for _ in range(3):
        before = state
        state, value = step(state, *next(stream))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert calls == [(16, 64), (16, 8)]
    assert np.isfinite(value)


def test_a_seed_makes_a_run_and_another_makes_another(data, small):
    again, other = train(SMALL, data), train(SMALL._replace(seed=4), data)
    assert again.checkpoints == small.checkpoints
    assert other.checkpoints != small.checkpoints
    np.testing.assert_array_equal(again.params[0].W, small.params[0].W)


@pytest.mark.parametrize(
    ("change", "shapes"),
    [
        ({"width": 5}, [(64, 5), (5, 10)]),
        ({"depth": 3}, [(64, 8), (8, 8), (8, 8), (8, 10)]),
    ],
)
def test_width_and_depth_shape_the_network(change, shapes):
    params = jax.eval_shape(lambda: init_state(SMALL._replace(**change)).params)
    assert [W.shape for W, b in params] == shapes
    assert [b.shape for W, b in params] == [(p,) for d, p in shapes]


def test_steps_batch_and_learning_rate_change_the_run(data, small):
    assert [checkpoint.step for checkpoint in small.checkpoints] == [*range(7)]
    assert [checkpoint.step for checkpoint in train(SMALL._replace(steps=3), data).checkpoints] == [0, 1, 2, 3]
    for change in ({"batch": 32}, {"learning_rate": 1e-2}):
        assert train(SMALL._replace(**change), data).checkpoints[-1] != small.checkpoints[-1]


@BOTH
def test_rematerialisation_keeps_less_and_changes_nothing(data, options):
    batch = next(batches(options, data))
    params, apply = init_state(options).params, network(options.model).spelled

    def of(options):
        f = lambda params: loss_and_gradient(params, *batch, options, apply)
        return jax.jit(f)(params)[1], str(jax.make_jaxpr(f)(params))

    (gradient, program), (again, remat) = of(options), of(options._replace(remat=True))
    assert "remat" in remat and "remat" not in program
    for a, b in zip(*map(jax.tree.leaves, (gradient, again)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dtype_is_that_of_the_products_and_training_works_in_it(data, dtype):
    with jax.enable_x64(dtype == "float64"):
        options = SMALL._replace(dtype=dtype, steps=30, width=32, batch=128, learning_rate=1e-2)
        training = train(options, data)
        master = jnp.float64 if dtype == "float64" else jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(training.params)} == {jnp.dtype(master)}
        Z = model.logits(training.params, data.X_test, dtype=dtype, apply=network(options.model).spelled)
        assert Z.dtype == jnp.dtype(master)
        rounded = Z.astype(dtype).astype(master)
        np.testing.assert_array_equal(Z, rounded)                   # the last layer's result is in dtype
        assert training.checkpoints[-1].test_accuracy > 0.85


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_needs_no_implicit_promotion(data, dtype, options):
    options = options._replace(dtype=dtype)
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        params = jax.eval_shape(lambda: init_state(options).params)
        gradient_of = functools.partial(loss_and_gradient, options=options, apply=network(options.model).spelled)
        value, gradient = jax.eval_shape(gradient_of, params, *next(batches(options, data)))
        assert value.shape == ()
        assert gradient == params


def test_the_loss_scale_keeps_small_cotangents_of_float16(data, small):
    first, (W, b) = small.params
    params = [first, (1e-3 * W, b)]                                 # the cotangent of H is dZ Wᵀ, below 1e-6 here
    X, y = next(batches(SMALL._replace(batch=1000), data))

    def gradient(dtype, factor=None):
        options = SMALL._replace(dtype=dtype, batch=1000)
        of = jax.jit(functools.partial(loss_and_gradient, options=options, apply=network("mlp").spelled))
        return np.asarray(of(params, X, y, factor=factor)[1][0].W)

    def error(g):
        return np.linalg.norm(g - exact) / np.linalg.norm(exact)

    exact, scaled, unscaled = gradient("float32"), gradient("float16"), gradient("float16", 1.0)
    assert error(scaled) < 0.01 < 0.03 < error(unscaled)


def test_a_loss_that_is_no_number_ends_the_run(capsys):
    assert main([*SMALL_COMMAND, "--steps", "3", "--learning-rate", "1e30"]) == 1
    assert re.fullmatch(
        r"adjax train digits: the loss is (nan|inf) after 1 of 3 steps \(float32, learning rate 1e\+30\); "
        r"try a lower --learning-rate\. In the step after 1: .* comes from dot_general after \[1\]\.W\n",
        capsys.readouterr().err,
    )


def test_the_first_loss_that_is_no_number_is_the_one_named():
    require_finite(7, [0.5, 0.25], SMALL)
    with pytest.raises(NonFiniteLoss, match="the loss is inf after 8 of 6 steps"):
        require_finite(7, [0.5, float("inf"), float("nan")], SMALL)


def test_out_of_memory_is_one_line(monkeypatch, capsys):
    def exhausted(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes.")

    monkeypatch.setattr("adjax.examples.digits.program.train", exhausted)
    assert main(["train", "digits", "--width", "4"]) == 1
    assert capsys.readouterr().err == "adjax train digits: out of memory with --width 4 --depth 2\n"


def test_a_plot_that_fails_in_the_end_is_one_line_after_the_result(monkeypatch, capsys, tmp_path):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adjax.examples.digits.plot.draw", full)
    assert main([*SMALL_COMMAND, "--steps", "1", "--plot", str(tmp_path / "curve.png")]) == 1
    out, err = capsys.readouterr()
    assert "Test accuracy" in out
    assert err == "adjax train digits: [Errno 28] No space left on device\n"


def test_training_stops_between_two_steps(data):
    asked = iter([False] * 4 + [True] * 2)                          # before, after each of two, before, after one
    checkpoints = train(SMALL._replace(steps=100), data, interrupted=lambda: next(asked)).checkpoints
    assert checkpoints[-1].step == 3
    assert train(SMALL, data, interrupted=lambda: True).checkpoints[-1].step == 0


def test_ctrl_c_ends_with_the_result_so_far(monkeypatch, capsys, tmp_path):
    def show(step, *words):
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("adjax.examples.progress._lines", lambda steps, terminal: show)
    assert main([*SMALL_COMMAND, "--steps", "9", "--plot", str(tmp_path / "so_far.png")]) == 130
    out, err = capsys.readouterr()
    assert err == ""
    assert "Test accuracy" in out
    assert out.endswith("Interrupted after 4 of 9 steps: this is the result so far.\n")
    assert png_size(tmp_path / "so_far.png")[1] > 10_000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_ignores_interrupts_goes_on_ignoring_them():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


@BOTH
def test_the_comparison_would_show_a_wrong_gradient(data, monkeypatch, options):
    params, batch = init_state(options).params, next(batches(options, data))
    honest = compare.gradient_difference(options, params, *batch)
    assert honest.largest < 1e-5
    assert honest.relative < 1e-6
    plain = network(options.model)

    def wrong(params, X):
        first, Z = jax.tree.leaves(params)[0].sum(), plain.autodiff(params, X)
        return Z.at[:, 0].add(0.5 * (first - jax.lax.stop_gradient(first)))

    monkeypatch.setattr(f"adjax.examples.digits.{options.model}.MODEL", plain._replace(spelled=wrong))
    planted = compare.gradient_difference(options, params, *batch)
    assert planted.relative > 1e-3
    assert planted.norm > 0


def test_speed_alternates_and_can_be_interrupted(data, monkeypatch):
    params, batch = init_state(SMALL).params, next(batches(SMALL, data))
    monkeypatch.setattr(side_by_side, "BLOCK_SECONDS", 0.002)
    measured = compare.speed(SMALL, params, *batch)
    assert measured.spelled.shape == measured.autodiff.shape == (side_by_side.PAIRS,)
    assert (measured.spelled > 0).all()
    assert (measured.autodiff > 0).all()
    monkeypatch.setattr(side_by_side, "LONGEST_SECONDS", 0.0)
    assert len(compare.speed(SMALL, params, *batch).spelled) == side_by_side.FEWEST_PAIRS
    assert compare.speed(SMALL, params, *batch, interrupted=lambda: True) is None


def test_the_report_counts_and_ranks_mistakes():
    labels = np.array([0, 0, 1, 8, 8, 8, 8, 9, *range(10)])
    read = np.array([0, 6, 1, 1, 1, 3, 8, 4, *range(10)])
    counts = report.confusion(labels, read)
    assert counts[8].tolist() == [0, 2, 0, 1, 0, 0, 0, 0, 2, 0]
    assert counts.sum() == len(labels)
    text = report.accuracy(counts, Terminal(io.StringIO()))
    assert "Test accuracy  72.22%    13 of 18 images" in text
    assert "confused      8 → 1 (2)   0 → 6 (1)   8 → 3 (1)   9 → 4 (1)" in text
    everything = report.confusion(np.repeat(range(10), 100), np.tile(range(10), 100))
    assert max(map(len, report.accuracy(everything, Terminal(io.StringIO())).splitlines())) <= 80
    assert "confused      none" in report.accuracy(np.diag(np.arange(1, 11)), Terminal(io.StringIO()))


def test_the_report_gives_medians_and_says_how_far_apart():
    speed = side_by_side.Speed(spelled=np.array([110.0, 100.0, 120.0]), autodiff=np.array([100.0, 100.0, 100.0]))
    apart = side_by_side.Difference(largest=2e-7, norm=0.1)
    text = side_by_side.comparison("X @ W", apart, speed, Terminal(io.StringIO()))
    assert re.search(r"110  spelled\n +100  autodiff, medians of 3 alternating blocks", text)
    assert re.search(r"ratio +1\.10  half of the pairs in 1\.05 to 1\.15", text)
    assert "2.0e-07  at most, 2.0e-06 of the norm" in text
    without = side_by_side.comparison("X @ W", side_by_side.Difference(0.0, 0.0), None, Terminal(io.StringIO()))
    assert "steps a second" not in without
    assert "0.0e+00 of the norm" in without


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    shown = {}
    for kind, tty in (("screen", True), ("pipe", False)):
        stream = io.StringIO()
        stream.isatty = lambda tty=tty: tty
        with progress(80, Terminal(stream)) as show:
            for step in range(0, 81, 2):
                show(step, "loss 0.500", "test accuracy 87.5%")
        shown[kind] = stream.getvalue()
    assert "80/80" in shown["screen"]
    assert "━" in shown["screen"]
    assert "loss 0.500  test accuracy 87.5%" in shown["screen"]
    assert shown["pipe"].splitlines()[0] == "step     10    loss 0.500    test accuracy 87.5%"
    assert len(shown["pipe"].splitlines()) == 8
