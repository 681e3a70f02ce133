"""What batch_norm and group_norm say about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import BatchState, NormParams, batch_norm, group_norm


def ones(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


V, X = ones(6), ones(2, 4, 6)


def group(params=(V, V), x=X, **options):
    return lambda: group_norm(params, x, **({"groups": 3} | options))


def batch(params=(V, V), x=X, state=(V, V), **options):
    return lambda: batch_norm(params, x, state, **({"train": True} | options))


FITS = "to fit x (shape (2, 4, 6)), got shape"
MASK = "batch_norm: where must broadcast to the axes of x before c, (2, 4) (x has shape (2, 4, 6)), got shape"
VALUES = {
    "groups that do not divide": (
        group(groups=4), "group_norm: groups=4 do not divide the c=6 channels (shape (2, 4, 6))"),
    "no group": (group(groups=0), "group_norm: groups must be at least 1, got 0"),
    "scale too short": (group((ones(3), V)), f"group_norm: scale must have shape (c,) = (6,) {FITS} (3,)"),
    "bias of size 1": (batch((V, ones(1))), f"batch_norm: bias must have shape (c,) = (6,) {FITS} (1,)"),
    "mean a matrix": (batch(state=(ones(1, 6), V)),
                      f"batch_norm: state.mean must have shape (c,) = (6,) {FITS} (1, 6)"),
    "var too long": (batch(state=(V, ones(7))), f"batch_norm: state.var must have shape (c,) = (6,) {FITS} (7,)"),
    "a scalar": (group(x=ones()), "group_norm: x must have a channel axis c, got a scalar (shape ())"),
    "eps zero": (group(eps=0.0), "group_norm: eps must be positive, got 0.0"),
    "eps negative": (batch(eps=-1e-5), "batch_norm: eps must be positive, got -1e-05"),
    "eps no number": (batch(eps=float("nan")), "batch_norm: eps must be positive, got nan"),
    "momentum too large": (batch(momentum=1.5), "batch_norm: momentum must be in [0, 1], got 1.5"),
    "momentum negative": (batch(momentum=-0.1, train=False), "batch_norm: momentum must be in [0, 1], got -0.1"),
    "mask of the channels": (batch(where=ones(6, dtype=bool)), f"{MASK} (6,)"),
    "mask of too many examples": (batch(where=ones(3, 4, dtype=bool)), f"{MASK} (3, 4)"),
    "mask of rank 3": (
        batch(where=ones(2, 3, 6, dtype=bool)),
        "batch_norm: where must broadcast to x, (2, 4, 6) (x has shape (2, 4, 6)), got shape (2, 3, 6)"),
    "mask of rank 4": (batch(where=ones(1, 2, 4, 6, dtype=bool)), f"{MASK} (1, 2, 4, 6)"),
    "no channels": (lambda: NormParams.init(-1), "NormParams.init: c must not be negative, got c=-1"),
    "no state": (lambda: BatchState.init(-2), "BatchState.init: c must not be negative, got c=-2"),
}  # fmt: skip
TYPES = {
    "integer x": (group(x=ones(2, 6, dtype=jnp.int32)),
                  "group_norm: x must be floating, got dtype int32 (shape (2, 6))"),
    "complex x": (batch(x=ones(2, 6, dtype=jnp.complex64)),
                  "batch_norm: x must be real, got dtype complex64 (shape (2, 6))"),
    "x a list": (group(x=[[1.0] * 6]), "group_norm: x must be an array with the axes (..., c), got list"),
    "integer scale": (batch((ones(6, dtype=jnp.int32), V)),
                      "batch_norm: scale must be floating, got dtype int32 (shape (6,))"),
    "one parameter": (
        group((V,)), "group_norm: params must be NormParams(scale, bias) or a tuple (scale, bias), got tuple of 1"),
    "no params": (
        batch(None), "batch_norm: params must be NormParams(scale, bias) or a tuple (scale, bias), got NoneType"),
    "no state": (batch(state=None),
                 "batch_norm: state must be BatchState(mean, var) or a tuple (mean, var), got NoneType"),
    "no mean": (batch(state=(None, V)), "batch_norm: state.mean must be an array with the axes (c,), got NoneType"),
    "half state": (batch(state=(V, ones(6, dtype=jnp.bfloat16))),
                   "batch_norm: state.var must be float32 or wider, got dtype bfloat16"),
    "mask of floats": (batch(where=ones(2, 4)),
                       "batch_norm: where must be boolean, got dtype float32 (shape (2, 4))"),
    "mask a list": (batch(where=[True, False]),
                    "batch_norm: where must be an array with the axes (..., c) or (...), got list"),
    "groups a float": (group(groups=3.0), "group_norm: groups must be an integer, got float"),
    "groups a bool": (group(groups=True), "group_norm: groups must be an integer, got bool"),
}  # fmt: skip


@pytest.mark.parametrize("bad", VALUES)
def test_bad_values_are_named(bad):
    call, text = VALUES[bad]
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == text


@pytest.mark.parametrize("bad", TYPES)
def test_bad_types_are_named(bad):
    call, text = TYPES[bad]
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value) == text


@pytest.mark.parametrize("around", [jax.jit, jax.eval_shape, lambda f: jax.grad(f)], ids=["jit", "eval_shape", "grad"])
def test_at_trace_time(around):
    f = lambda x: jnp.sum(group_norm((V, V), x, groups=4))
    with pytest.raises(ValueError, match=r"groups=4 do not divide the c=6 channels \(shape \(2, 4, 6\)\)"):
        around(f)(X) if around is not jax.eval_shape else around(f, X)


def test_inside_vmap_the_shape_is_the_example_s():
    with pytest.raises(ValueError, match=r"scale must have shape \(c,\) = \(6,\) to fit x \(shape \(4, 6\)\)"):
        jax.vmap(lambda x: batch_norm((ones(4), V), x, (V, V), train=True))(X)
