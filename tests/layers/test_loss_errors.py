"""What cross_entropy and linear_cross_entropy say about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import cross_entropy, linear_cross_entropy


def ones(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


Z, Y = ones(2, 3, 5), ones(2, 3, dtype=jnp.int32)
W, B, X = ones(4, 5), ones(5), ones(2, 3, 4)


def loss(logits=Z, labels=Y, **options):
    return lambda: cross_entropy(logits, labels, **options)


def linear(params=(W, B), x=X, labels=Y, **options):
    return lambda: linear_cross_entropy(params, x, labels, **options)


MASK = "where must broadcast to the rows (shape (2, 3)), got shape"
VALUES = {
    "logits a scalar": (loss(ones()), "cross_entropy: logits must have at least one class, got shape ()"),
    "no class": (loss(ones(2, 3, 0)), "cross_entropy: logits must have at least one class, got shape (2, 3, 0)"),
    "labels too short": (
        loss(labels=Y[:, :2]),
        "cross_entropy: integer labels must have shape (2, 3) to fit logits, got shape (2, 2)"),
    "distributions of other classes": (
        loss(labels=ones(2, 3, 4)),
        "cross_entropy: distributions must have shape (2, 3, 5) to fit logits, got shape (2, 3, 4)"),
    "labels that do not fit x": (
        linear(labels=Y[0]),
        "linear_cross_entropy: integer labels must have shape (2, 3) to fit x and W, got shape (3,)"),
    "distributions that do not fit W": (
        linear(labels=ones(2, 3, 4)),
        "linear_cross_entropy: distributions must have shape (2, 3, 5) to fit x and W, got shape (2, 3, 4)"),
    "mask of the classes": (loss(where=ones(2, 3, 5, dtype=bool)), f"cross_entropy: {MASK} (2, 3, 5)"),
    "mask of another size": (linear(where=ones(2, dtype=bool)), f"linear_cross_entropy: {MASK} (2,)"),
    "smoothing too large": (loss(label_smoothing=1.5), "cross_entropy: label_smoothing must be in [0, 1], got 1.5"),
    "smoothing negative": (
        linear(label_smoothing=-0.5), "linear_cross_entropy: label_smoothing must be in [0, 1], got -0.5"),
    "z_loss negative": (loss(z_loss=-1.0), "cross_entropy: z_loss must be a number ≥ 0, got -1.0"),
    "z_loss no number": (
        linear(z_loss=float("nan")), "linear_cross_entropy: z_loss must be a number ≥ 0, got nan"),
    "reduction": (loss(reduction="max"), """cross_entropy: reduction must be "mean", "sum" or "none", got 'max'"""),
    "reduction None": (
        linear(reduction=None), """linear_cross_entropy: reduction must be "mean", "sum" or "none", got None"""),
    "ignored distributions": (
        loss(labels=Z, ignore_label=-1), "cross_entropy: ignore_label=-1 is for integer labels, got dtype float32"),
    "no W": (
        linear((ones(4, 0), None)),
        "linear_cross_entropy: W must have the axes (d, v) and at least one class, got shape (4, 0)"),
    "W a vector": (
        linear((B, None)), "linear_cross_entropy: W must have the axes (d, v) and at least one class, got shape (5,)"),
    "x of other features": (
        linear(x=ones(2, 3, 6)),
        "linear_cross_entropy: x has d=6 features (shape (2, 3, 6)) but W expects d=4 (shape (4, 5))"),
    "x a scalar": (
        linear(x=ones()), "linear_cross_entropy: x has no axis (shape ()) but W expects d=4 (shape (4, 5))"),
    "b too short": (
        linear((W, ones(4))),
        "linear_cross_entropy: b must have shape (v,) = (5,) to fit W (shape (4, 5)), got shape (4,)"),
}  # fmt: skip
TYPES = {
    "integer logits": (loss(ones(2, 5, dtype=jnp.int32)),
                       "cross_entropy: logits must be floating, got dtype int32 (shape (2, 5))"),
    "complex logits": (loss(ones(2, 5, dtype=jnp.complex64)),
                       "cross_entropy: logits must be real, got dtype complex64 (shape (2, 5))"),
    "logits a list": (loss([1.0]), "cross_entropy: logits must be an array with the axes (..., v), got list"),
    "boolean labels": (
        loss(labels=ones(2, 3, dtype=bool)),
        "cross_entropy: labels must be integers or real floating, got dtype bool (shape (2, 3))"),
    "complex labels": (
        linear(labels=ones(2, 3, 5, dtype=jnp.complex64)),
        "linear_cross_entropy: labels must be integers or real floating, got dtype complex64 (shape (2, 3, 5))"),
    "labels a number": (
        loss(labels=3), "cross_entropy: labels must be an array with the axes (...) or (..., v), got int"),
    "mask of integers": (loss(where=Y), "cross_entropy: where must be boolean, got dtype int32 (shape (2, 3))"),
    "mask a bool": (linear(where=True), "linear_cross_entropy: where must be an array with the axes (...), got bool"),
    "ignored float": (loss(ignore_label=1.0), "cross_entropy: ignore_label must be an integer, got float"),
    "ignored bool": (linear(ignore_label=True), "linear_cross_entropy: ignore_label must be an integer, got bool"),
    "two mesh axes": (
        loss(axis_name=("a", "b")), "cross_entropy: axis_name must be the name of one mesh axis, got ('a', 'b')"),
    "W alone": (
        linear(W), "linear_cross_entropy: params must be AffineParams(W, b) or a tuple (W, b), "
                   "got an array of shape (4, 5)"),
    "integer W": (linear((ones(4, 5, dtype=jnp.int32), None)),
                  "linear_cross_entropy: W must be floating, got dtype int32 (shape (4, 5))"),
    "integer x": (linear(x=ones(2, 4, dtype=jnp.int32)),
                  "linear_cross_entropy: x must be floating, got dtype int32 (shape (2, 4))"),
    "integer b": (linear((W, ones(5, dtype=jnp.int32))),
                  "linear_cross_entropy: b must be floating, got dtype int32 (shape (5,))"),
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


@pytest.mark.parametrize("around", [jax.jit, jax.grad, jax.linearize], ids=["jit", "grad", "linearize"])
def test_at_trace_time(around):
    f = lambda x: linear_cross_entropy((W, B), x, Y[0])
    with pytest.raises(ValueError, match=r"integer labels must have shape \(2, 3\) to fit x and W, got shape \(3,\)"):
        around(f, X) if around is jax.linearize else around(f)(X)
