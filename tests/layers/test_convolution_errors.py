"""What conv and conv_transpose say of bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import conv, conv_transpose


def ones(*shape, dtype=jnp.float64):
    return jnp.ones(shape, dtype)


W, B, X = ones(3, 2, 4), ones(4), ones(5, 7, 2)
BAD = {
    "channels": (conv, (W, B), ones(5, 7, 3), {},
                 "conv: x has c=3 channels (shape (5, 7, 3)) but W expects c=2 (shape (3, 2, 4), groups=1)"),
    "channels by group": (conv, (W, B), X, {"groups": 2},
                          "conv: x has c=2 channels (shape (5, 7, 2)) but W expects c=4 (shape (3, 2, 4), groups=2)"),
    "groups do not divide": (conv, (W, B), ones(5, 7, 6), {"groups": 3},
                             "conv: W has o=4 channels out (shape (3, 2, 4)), no multiple of groups=3"),
    "no groups": (conv, (W, B), X, {"groups": 0}, "conv: groups must be a positive integer, got 0"),
    "b": (conv, (W, ones(2)), X, {},
          "conv: b must have shape (o,) = (4,) to fit W (shape (3, 2, 4), groups=1), got shape (2,)"),
    "b of the transpose": (conv_transpose, (W, B), ones(5, 7, 4), {},
                           "conv_transpose: b must have shape (c,) = (2,) to fit W (shape (3, 2, 4), groups=1), "
                           "got shape (4,)"),
    "W a matrix": (conv, (ones(2, 4), B), X, {},
                   "conv: W must have the axes (*k, c/g, o) with 1 to 3 kernel axes k, got shape (2, 4)"),
    "no kernel": (conv, (ones(0, 2, 4), B), X, {}, "conv: W has a kernel of size 0 (shape (0, 2, 4))"),
    "too few axes": (conv, (W, B), ones(2), {}, "conv: x must have 1 spatial axes and channels c, got shape (2,)"),
    "zero stride": (conv, (W, B), X, {"stride": 0},
                    "conv: stride must be a positive integer, or one for each of the 1 spatial axes, got 0"),
    "dilations": (conv, (W, B), X, {"dilation": (1, 2)},
                  "conv: dilation must be a positive integer, or one for each of the 1 spatial axes, got (1, 2)"),
    "negative padding": (conv, (W, B), X, {"padding": ((-1, 0),)},
                         "conv: padding must not be negative, got ((-1, 0),)"),
    "unknown padding": (conv, (W, B), X, {"padding": "FULL"},
                        'conv: padding must be "SAME", "VALID", "CIRCULAR", an integer, or a pair (low, high) for each '
                        "of the 1 spatial axes, got 'FULL'"),
    "kernel too large": (conv, (W, B), ones(5, 4, 2), {"padding": "VALID", "dilation": 2},
                         "conv: the kernel of W (shape (3, 2, 4), dilation (2,)) spans (5,), more than the padded "
                         "input (x has shape (5, 4, 2), padding ((0, 0),))"),
    "size": (conv_transpose, (W, None), ones(5, 7, 4), {"stride": 2, "size": 16},
             "conv_transpose: a conv of spatial sizes (16,) with the kernel of W (shape (3, 2, 4)) and these options "
             "gives (8,), not the sizes (7,) of y (shape (5, 7, 4))"),
}  # fmt: skip
BAD_TYPES = {
    "one parameter": (conv, (W,), X, "conv: params must be ConvParams(W, b) or a tuple (W, b), got tuple of 1"),
    "W a list": (conv, ([1.0], B), X, "conv: W must be an array with the axes (*k, c/g, o), got list"),
    "integer x": (conv, (W, B), ones(5, 7, 2, dtype=jnp.int32),
                  "conv: x must be floating, got dtype int32 (shape (5, 7, 2))"),
    "complex x": (conv, (W, B), ones(5, 7, 2, dtype=jnp.complex128),
                  "conv: x must be real, got dtype complex128 (shape (5, 7, 2))"),
    "y missing": (conv_transpose, (W, None), None,
                  "conv_transpose: y must be an array with the axes (n, *s, o), got NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_values(name):
    f, params, x, options, text = BAD[name]
    with pytest.raises(ValueError) as error:
        jax.eval_shape(lambda params, x: f(params, x, **options), params, x)
    assert str(error.value) == text


@pytest.mark.parametrize("name", BAD_TYPES)
def test_bad_types(name):
    f, params, x, text = BAD_TYPES[name]
    with pytest.raises(TypeError) as error:
        f(params, x)
    assert str(error.value) == text
