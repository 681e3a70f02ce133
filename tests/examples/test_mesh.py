"""The options of a mesh, micro-batches, and the loss scale: what the programs share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.__main__ import main
from adjax.examples.parallel import mesh
from adjax.examples.parallel.gradients import MOST_SCALE, LossScale, accumulated, unless_overflown
from adjax.examples.parallel.options import Axes

BOTH = pytest.mark.parametrize("program", ["text", "digits"])


def misuse(capsys, *arguments):
    """The one line on stderr of a command that must exit with status 2, before it prints anything."""
    try:
        status = main(["train", *arguments])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--mesh data", "argument --mesh: must be axes and their sizes like data=4,model=2, got 'data'"),
        ("--mesh data=0", "argument --mesh: must be axes and their sizes like data=4,model=2, got 'data=0'"),
        ("--mesh data=-2", "argument --mesh: must be axes and their sizes like data=4,model=2, got 'data=-2'"),
        ("--mesh data=2,", "argument --mesh: must be axes and their sizes like data=4,model=2, got 'data=2,'"),
        ("--mesh tensor=2", "argument --mesh: there is no axis 'tensor', only data, fsdp, model"),
        ("--mesh data=2,data=2", "argument --mesh: the axis data is given twice in 'data=2,data=2'"),
        ("--mode pmap", "argument --mode: invalid choice: 'pmap'"),
        ("--mode explicit", "--mode: explicit is of a mesh, and no --mesh is given"),
        ("--mesh data=64 --batch 64",
         "--mesh: data=64 has 64 devices, and there are 8; --devices 64 simulates them on CPU"),
        ("--mesh data=3", "--mesh: a batch of 16 does not divide over the 3 devices of data=3 that split it"),
        ("--mesh data=2,fsdp=3", "--mesh: a batch of 16 does not divide over the 6 devices of data=2,fsdp=3"),
        ("--accumulate 3", "--accumulate: a batch of 16 has no 3 equal micro-batches"),
        ("--accumulate 0", "argument --accumulate: must be an integer of at least 1, got 0"),
        ("--accumulate 4 --mesh data=8", "--mesh: a micro-batch of 4 does not divide over the 8 devices of data=8"),
        ("--devices 5", "--devices: JAX already runs on 8, got 5"),
        ("--devices 0", "argument --devices: must be an integer of at least 1 and at most 1024, got 0"),
        ("--dtype fp8", "argument --dtype: invalid choice: 'fp8'"),
    ],
)  # fmt: skip
@BOTH
def test_misuse_is_one_clear_line(capsys, program, options, said):
    batch = () if "--batch" in options else ("--batch", "16")
    assert said in misuse(capsys, program, *batch, *options.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--mesh model=8", "--mesh: 4 heads do not divide over the 8 devices of model"),
        ("--mesh model=5 --heads 5 --width 20", "--mesh: 56 features of swiglu do not divide over the 5 devices of"),
        ("--mesh sequence=3", "--mesh: 256 characters do not divide over the 3 devices of sequence"),
        ("--mesh fsdp=8 --heads 2 --width 20", "--mesh: 20 features do not divide over the 8 devices of fsdp and"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_divide_is_refused(capsys, options, said):
    assert said in misuse(capsys, "text", *options.split())


def test_images_are_no_sequences(capsys):
    said = misuse(capsys, "digits", "--mesh", "sequence=2")
    assert "there is no axis 'sequence', only data, fsdp, model (see" in said


def test_micro_batches_make_the_gradient_of_the_batch(rng):
    """In float64, where nothing is lost; a wrong weight of a part would show."""
    loss = lambda W, X: jnp.mean(jnp.sin(X @ W) ** 2)
    W, X = rng.normal(size=(5, 3)), rng.normal(size=(12, 5))
    want = jax.value_and_grad(loss)(W, X)
    for count in (1, 2, 3, 12):
        for times, weight in ((1, ()), (8, (jnp.float64(8),))):
            got = accumulated(loss, W, X, count, *weight)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(a, times * b, rtol=1e-12)


def test_the_sum_of_micro_batches_is_in_the_dtype_of_the_parameters():
    loss = lambda w, x: jnp.sum(w.astype(jnp.bfloat16) * x).astype(jnp.float32)
    w, x = jnp.ones((), jnp.float32), jnp.full((2**10, 1), 1.0, jnp.bfloat16)
    _, gradient = accumulated(loss, w, x, 2**10, jnp.float32(2**10))
    assert gradient == 2**10                                        # bfloat16 would stop at 256


def test_the_loss_scale_halves_doubles_and_stays_within_bounds():
    scale, states = LossScale(jnp.float32(4), jnp.int32(98)), []
    for slope in (1.0, np.nan, 1.0, np.inf):
        state, scale = unless_overflown(scale, {"w": jnp.float32(slope)}, jnp.float32(1), jnp.float32(0))
        states.append((float(state), float(scale.factor), int(scale.steps)))
    assert states == [(1, 4, 99), (0, 2, 0), (1, 2, 1), (0, 1, 0)]
    for start, slope, end in ((1.0, np.inf, 1.0), (MOST_SCALE, 1.0, MOST_SCALE), (4.0, 1.0, 8.0)):
        _, after = unless_overflown(LossScale(jnp.float32(start), jnp.int32(99)), jnp.float32(slope), 1.0, 0.0)
        assert (float(after.factor), int(after.steps)) == (end, 0)


def test_layouts_name_only_the_axes_of_the_mesh():
    axes: Axes = (("data", 2), ("model", 4))
    on = mesh.Placement(mesh._mesh(axes, "auto"), "auto")
    P = jax.sharding.PartitionSpec
    assert on.spec(("data", "fsdp"), None, ("model", "fsdp")) == P("data", None, "model")
    assert on.spec("fsdp", ("data", "model"), without=("data",)) == P(None, "model")
    assert (on.batch, on.size("data", "fsdp"), on.size("model")) == (("data",), 2, 4)
    assert (on.batch_spec(6), on.batch_spec(7)) == (P("data"), P())
