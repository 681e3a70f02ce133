"""What pooling says about bad input: the whole text, at trace time, whichever transformation is around it."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from adjax import avg_pool, global_avg_pool, max_pool


def ones(*shape, dtype=jnp.float64):
    return jnp.ones(shape, dtype)


X = ones(2, 5, 4, 3)
RANK = "{} must be a positive integer, or one for each of the {} spatial axes, got {}"
PADDING = (
    'padding must be "SAME", "VALID", an integer, or a pair (low, high) for each of the {} spatial axes, got {}'
)
BAD_VALUES = {
    "a vector of channels": (
        ones(2, 3), (2,), {},
        "x must have the axes (n, *s, c) with 1 to 3 spatial axes s, got shape (2, 3); where there are other leading "
        "axes, give a window size for each spatial axis",
    ),
    "four spatial axes": (
        ones(1, 2, 2, 2, 2, 3), (2,), {},
        "x must have the axes (n, *s, c) with 1 to 3 spatial axes s, got shape (1, 2, 2, 2, 2, 3); where there are "
        "other leading axes, give a window size for each spatial axis",
    ),
    "no channels": (ones(5, 4), ((2, 2),), {}, "x must have 2 spatial axes and channels after them, got shape (5, 4)"),
    "a window of 4 axes": (
        ones(2, 2, 2, 2, 2, 2), ((1, 1, 1, 1),), {},
        "window must be a positive integer, or one for each of 1 to 3 axes, got (1, 1, 1, 1)",
    ),
    "an empty window": (X, ((),), {}, "window must be a positive integer, or one for each of 1 to 3 axes, got ()"),
    "a broken window": (X, (2.5,), {}, "window must be a positive integer, or one for each of 1 to 3 axes, got 2.5"),
    "a window of 0": (X, (0,), {}, RANK.format("window", 2, 0)),
    "a negative window": (X, ((2, -1),), {}, RANK.format("window", 2, (2, -1))),
    "a stride of 0": (X, (2,), {"stride": 0}, RANK.format("stride", 2, 0)),
    "three strides": (X, (2,), {"stride": (1, 1, 1)}, RANK.format("stride", 2, (1, 1, 1))),
    "an unknown padding": (X, (2,), {"padding": "FULL"}, PADDING.format(2, "'FULL'")),
    "circular padding": (X, (2,), {"padding": "CIRCULAR"}, PADDING.format(2, "'CIRCULAR'")),
    "one pair for two axes": (X, (2,), {"padding": ((1, 1),)}, PADDING.format(2, "((1, 1),)")),
    "negative padding": (
        X, (2,), {"padding": ((0, 0), (-1, 1))}, "padding must not be negative, got ((0, 0), (-1, 1))",
    ),
    "too large a window": (
        X, ((7, 2),), {"padding": ((1, 0), (0, 0))},
        "the window (7, 2) is larger than the padded input, (6, 4) "
        "(x has shape (2, 5, 4, 3), padding ((1, 0), (0, 0)))",
    ),
    "no elements": (
        ones(2, 0, 3), (2,), {},
        "the window (2,) is larger than the padded input, (0,) (x has shape (2, 0, 3), padding ((0, 0),))",
    ),
    "in the padding below": (
        X, (2,), {"padding": ((2, 0), (0, 0))},
        "with window (2, 2), stride (2, 2) and padding ((2, 0), (0, 0)), some windows lie wholly in the padding of x "
        "(shape (2, 5, 4, 3))",
    ),
    "in the padding above": (
        ones(2, 3, 1), (1,), {"stride": 3, "padding": ((0, 1),)},
        "with window (1,), stride (3,) and padding ((0, 1),), some windows lie wholly in the padding of x "
        "(shape (2, 3, 1))",
    ),
    "in the padding of both axes": (
        ones(2, 1, 1, 1), (1,), {"stride": 1, "padding": 1},
        "with window (1, 1), stride (1, 1) and padding ((1, 1), (1, 1)), some windows lie wholly in the padding of x "
        "(shape (2, 1, 1, 1))",
    ),
}  # fmt: skip
BAD_TYPES = {
    "a list": ([[[1.0]]], (1,), {}, "x must be an array with the axes (n, *s, c), got list"),
    "nothing": (None, (1,), {}, "x must be an array with the axes (n, *s, c), got NoneType"),
}
BAD = {k: (ValueError, *v) for k, v in BAD_VALUES.items()} | {k: (TypeError, *v) for k, v in BAD_TYPES.items()}
AROUND = {
    "eager": lambda f, x: f(x),
    "jit": lambda f, x: jax.jit(f)(x),
    "grad": lambda f, x: jax.grad(lambda s: jnp.sum(f(x) * s))(1.0),
    "jvp": lambda f, x: jax.jvp(lambda s: f(x) * s, (1.0,), (1.0,)),
}


@pytest.mark.parametrize("layer", [max_pool, avg_pool], ids=lambda f: f.__name__)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named(bad, around, layer):
    kind, x, args, options, text = BAD[bad]
    with pytest.raises(kind) as error:
        AROUND[around](lambda x: layer(x, *args, **options), x)
    assert str(error.value) == f"{layer.__name__}: {text}"


DTYPES = {
    "max_pool of complex": (max_pool, jnp.complex64, "x must be real floating or integer, got dtype complex64"),
    "max_pool of bool": (max_pool, bool, "x must be real floating or integer, got dtype bool"),
    "avg_pool of int": (avg_pool, jnp.int32, "x must be floating, got dtype int32"),
    "avg_pool of bool": (avg_pool, bool, "x must be floating, got dtype bool"),
}


@pytest.mark.parametrize("bad", DTYPES)
def test_dtypes_that_have_no_pooling_are_named(bad):
    layer, dtype, text = DTYPES[bad]
    with pytest.raises(TypeError) as error:
        layer(ones(2, 5, 4, 3, dtype=dtype), 2)
    assert str(error.value) == f"{layer.__name__}: {text} (shape (2, 5, 4, 3))"


GLOBAL = {
    "no spatial axis": (
        ValueError, ones(2, 3), "x must have the axes (n, *s, c), one s at least, got shape (2, 3)",
    ),
    "an empty axis": (ValueError, ones(2, 0, 4, 3), "there is no mean of no elements, got shape (2, 0, 4, 3)"),
    "integers": (TypeError, ones(2, 3, 4, dtype=int), "x must be floating, got dtype int64 (shape (2, 3, 4))"),
    "a list": (TypeError, [1.0], "x must be an array with the axes (n, *s, c), got list"),
}  # fmt: skip


@pytest.mark.parametrize("bad", GLOBAL)
def test_bad_input_of_the_average_over_everything(bad):
    kind, x, text = GLOBAL[bad]
    with pytest.raises(kind) as error:
        global_avg_pool(x)
    assert str(error.value) == f"global_avg_pool: {text}"


def test_options_are_keywords():
    for layer in (max_pool, partial(avg_pool)):
        with pytest.raises(TypeError, match="positional argument"):
            layer(X, 2, 2)
