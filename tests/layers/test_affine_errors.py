"""What affine says about bad input: the whole text, at trace time, whichever transformation is around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import affine


def ones(*shape, dtype=jnp.float64):
    return jnp.ones(shape, dtype)


W, B, X = ones(5, 3), ones(3), ones(4, 5)
PAIR = "affine: params must be AffineParams(W, b) or a tuple (W, b), got "

BAD_VALUES = {
    "feature axes": ((W, B), ones(4, 3), "affine: X has d=3 features (shape (4, 3)) but W expects d=5 (shape (5, 3))"),
    "transposed W": ((W.T, None), X, "affine: X has d=5 features (shape (4, 5)) but W expects d=3 (shape (3, 5))"),
    "X a scalar": ((W, B), ones(), "affine: X must have a feature axis d=5, got a scalar (shape ())"),
    "W a vector": ((B, B), X, "affine: W must have the axes (d, p), got shape (3,)"),
    "W a stack": ((ones(2, 5, 3), B), X, "affine: W must have the axes (d, p), got shape (2, 5, 3)"),
    "b too long": ((W, ones(5)), X, "affine: b must have shape (p,) = (3,) to fit W (shape (5, 3)), got shape (5,)"),
    "b of size 1": ((W, ones(1)), X, "affine: b must have shape (p,) = (3,) to fit W (shape (5, 3)), got shape (1,)"),
    "b a row": ((W, ones(1, 3)), X, "affine: b must have shape (p,) = (3,) to fit W (shape (5, 3)), got shape (1, 3)"),
    "b a scalar": ((W, ones()), X, "affine: b must have shape (p,) = (3,) to fit W (shape (5, 3)), got shape ()"),
}  # fmt: skip
BAD_TYPES = {
    "one parameter": ((W,), X, PAIR + "tuple of 1"),
    "three parameters": ((W, B, B), X, PAIR + "tuple of 3"),
    "dict": ({"W": W, "b": B}, X, PAIR + "dict"),
    "no parameters": (None, X, PAIR + "NoneType"),
    "W a ragged list": (([[1.0, 2.0], [3.0]], B), X, "affine: W must be an array with the axes (d, p), got list"),
    "W a pair": (((W, B), B), X, "affine: W must be an array with the axes (d, p), got tuple"),
    "W missing": ((None, B), X, "affine: W must be an array with the axes (d, p), got NoneType"),
    "X a list": ((W, B), [[1.0] * 5], "affine: X must be an array with the axes (..., d), got list"),
    "X missing": ((W, B), None, "affine: X must be an array with the axes (..., d), got NoneType"),
    "integer X": ((W, B), ones(4, 5, dtype=jnp.int32), "affine: X must be floating, got dtype int32 (shape (4, 5))"),
    "boolean X": ((W, B), ones(4, 5, dtype=bool), "affine: X must be floating, got dtype bool (shape (4, 5))"),
    "integer W": ((ones(5, 3, dtype=jnp.int32), B), X, "affine: W must be floating, got dtype int32 (shape (5, 3))"),
    "integer b": ((W, ones(3, dtype=jnp.int8)), X, "affine: b must be floating, got dtype int8 (shape (3,))"),
}  # fmt: skip
BAD = {k: (ValueError, v) for k, v in BAD_VALUES.items()} | {k: (TypeError, v) for k, v in BAD_TYPES.items()}

AROUND = {
    "eager": lambda params, X: affine(params, X),
    "jit": lambda params, X: jax.jit(affine)(params, X),
    "grad": lambda params, X: jax.grad(lambda p: jnp.sum(affine(p, X)), allow_int=True)(params),
    "jvp": lambda params, X: jax.jvp(lambda s: affine(params, X) * s, (1.0,), (1.0,)),
    "eval_shape": lambda params, X: jax.eval_shape(affine, params, X),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named(bad, around):
    kind, (params, X, text) = BAD[bad]
    with pytest.raises(kind) as error:
        AROUND[around](params, X)
    assert str(error.value) == text


@pytest.mark.parametrize("around", AROUND)
def test_an_array_for_the_parameters(around):
    with pytest.raises(TypeError, match=f"^{PAIR}".replace("(", r"\(").replace(")", r"\)")):
        AROUND[around](W, X)


RAGGED = np.array([[1, 2], [3]], object)
NO_ARRAYS = {                                                       # jit and grad refuse these themselves
    "W a string": (("W", B), X, "affine: params[0] must be an array, got str"),
    "b a string": ((W, "b"), X, "affine: params[1] must be an array, got str"),
    "X a string": ((W, B), "X", "affine: X must be an array, got str"),
    "W ragged": ((RAGGED, B), X, "affine: params[0] must be a numeric array, got dtype object"),
    "W a number": ((2.0, B), X, "affine: W must be an array with the axes (d, p), got float"),
    "b a number": ((W, 2.0), X, "affine: b must be an array with the axes (p,), got float"),
    "X a number": ((W, B), 2.0, "affine: X must be an array with the axes (..., d), got float"),
}  # fmt: skip


@pytest.mark.parametrize("bad", NO_ARRAYS)
def test_what_is_no_array_is_named(bad):
    params, X, text = NO_ARRAYS[bad]
    with pytest.raises(TypeError) as error:
        affine(params, X)
    assert str(error.value) == text


CALLS = {
    "nothing": ((), {}, "affine: missing a required argument: 'params'"),
    "no X": (((W, B),), {}, "affine: missing a required argument: 'X'"),
    "too many": (((W, B), X, X), {}, "affine: too many positional arguments"),
    "unknown": (((W, B), X), {"bias": B}, "affine: got an unexpected keyword argument 'bias'"),
}


@pytest.mark.parametrize("call", CALLS)
def test_bad_calls_are_named(call):
    args, kwargs, text = CALLS[call]
    with pytest.raises(TypeError) as error:
        affine(*args, **kwargs)
    assert str(error.value) == text


def test_a_bad_example_inside_vmap_is_named_by_its_own_shape():
    with pytest.raises(ValueError, match=r"X has d=3 features \(shape \(3,\)\) but W expects d=5"):
        jax.vmap(affine, (None, 0))((W, B), ones(4, 3))
