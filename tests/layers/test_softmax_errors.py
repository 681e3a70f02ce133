"""What softmax and log_softmax say about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import log_softmax, softmax

X = jnp.ones((2, 3), jnp.float32)
MASK = jnp.ones(3, bool)
VALUES = {
    "no such axis": (lambda: softmax(X, axis=2), "softmax: x has no axis 2 (shape (2, 3))"),
    "no such axis from the end": (lambda: log_softmax(X, axis=(0, -3)), "log_softmax: x has no axis -3 (shape (2, 3))"),
    "a scalar": (lambda: softmax(X[0, 0]), "softmax: x has no axis -1 (shape ())"),
    "an axis twice": (
        lambda: softmax(X, axis=(1, -1)), "softmax: axis must name at least one axis and none twice, got (1, -1)"),
    "no axis": (
        lambda: log_softmax(X, axis=()), "log_softmax: axis must name at least one axis and none twice, got ()"),
    "mask of another size": (
        lambda: softmax(X, where=MASK[:2]), "softmax: where must broadcast to x (shape (2, 3)), got shape (2,)"),
    "mask of too many axes": (
        lambda: log_softmax(X[0], where=MASK[None]),
        "log_softmax: where must broadcast to x (shape (3,)), got shape (1, 3)"),
}  # fmt: skip
TYPES = {
    "integer x": (
        lambda: softmax(jnp.ones(3, jnp.int32)), "softmax: x must be floating, got dtype int32 (shape (3,))"),
    "complex x": (
        lambda: log_softmax(jnp.ones(3, jnp.complex64)),
        "log_softmax: x must be real, got dtype complex64 (shape (3,))"),
    "x a list": (lambda: softmax([1.0]), "softmax: x must be an array with the axes (..., v), got list"),
    "axis a float": (
        lambda: softmax(X, axis=1.0), "softmax: axis must be an integer or a tuple of them, got float"),
    "axis a bool": (
        lambda: softmax(X, axis=(True,)), "softmax: axis must be an integer or a tuple of them, got bool"),
    "axis None": (
        lambda: log_softmax(X, axis=None), "log_softmax: axis must be an integer or a tuple of them, got NoneType"),
    "mask of floats": (
        lambda: softmax(X, where=X), "softmax: where must be boolean, got dtype float32 (shape (2, 3))"),
    "mask a list": (
        lambda: softmax(X, where=[True]), "softmax: where must be an array with the axes (...), got list"),
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


@pytest.mark.parametrize("around", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_at_trace_time(around):
    with pytest.raises(ValueError, match=r"softmax: x has no axis 4"):
        around(lambda x: softmax(x, axis=4))(X)
