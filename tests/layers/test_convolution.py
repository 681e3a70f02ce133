"""conv and conv_transpose: every option against JAX's convolution, the adjoint identity, edges, what is kept."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import ConvParams, conv, conv_transpose
from adjax.certify.quick import quick_options
from adjax.layers import convolution_cpu, convolution_definition, convolution_native
from adjax.layers.convolution_geometry import Geometry
from tests.cases import assert_close, normal
from tests.layers.families.convolution import plain_conv

pytestmark = pytest.mark.shared

SHAPES = [((7,), (3,)), ((5, 4), (3, 2)), ((2, 3), (4, 5)), ((3, 4, 2), (2, 3, 1))]          # s, k
ALL = itertools.product((1, 3), ("SAME", "CIRCULAR", 4), (1, 2), (1, 2, 4))
OPTIONS = [dict(zip(("stride", "padding", "dilation", "groups"), values, strict=True)) for values in list(ALL)[::5]]


def both_layers(params, x, dY, given):
    """conv and conv_transpose of the same kernel, the gradients of conv, and what they should be."""
    without = ConvParams(params.W, None)
    got, want = ((y, pull(dY)) for y, pull in (jax.vjp(partial(f, **given), params, x) for f in (conv, plain_conv)))
    there, back = conv(without, x, **given), conv_transpose(without, dY, size=x.shape[1:-1], **given)
    return got, want, (there, back)


@pytest.mark.parametrize(("s", "k"), SHAPES)
def test_every_option(s, k, rng):
    """Values and gradients are those of JAX's convolution; conv_transpose is the adjoint, to rounding."""
    for options in OPTIONS:
        groups = options["groups"]
        params = ConvParams(normal(rng, *k, 4 // groups, 8), normal(rng, 8))
        x = normal(rng, 2, *s, 4)
        given = options | {"padding": [(4, 3)] * len(s)} if options["padding"] == 4 else options
        dY = normal(rng, *jax.eval_shape(partial(plain_conv, **given), params, x).shape)
        f = jax.jit(partial(both_layers, given=given), compiler_options=quick_options())
        got, want, (there, back) = f(params, x, dY)
        assert_close(got, want, 1e-12)
        scale = float(jnp.linalg.norm(there) * jnp.linalg.norm(dY))
        assert abs(float(jnp.vdot(there, dY) - jnp.vdot(x, back))) <= 1e-14 * scale, options


GEOMETRIES = [
    Geometry((1, 2), ((1, 0), (2, 1)), (2, 1), 1),
    Geometry((2, 1), ((0, 1), (1, 1)), (1, 2), 2),
    Geometry((3, 3), ((1, 1), (0, 0)), (1, 1), 4),
]


@pytest.mark.parametrize("formulation", [convolution_cpu, convolution_native], ids=["cpu", "native"])
@pytest.mark.parametrize("g", GEOMETRIES, ids=repr)
def test_formulations_agree_with_the_definition(formulation, g, rng):
    s, k = (6, 5), (3, 2)
    x, W = normal(rng, 2, *s, 4), normal(rng, *k, 4 // g.groups, 8)
    dY = normal(rng, 2, *g.out(s, k), 8)
    for name, operands, rest in (
        ("forward", (x, W), ()), ("adjoint_x", (dY, W), (s,)), ("adjoint_W", (x, dY), (k,)),
    ):  # fmt: skip
        got, want = (getattr(module, name)(*operands, g, *rest) for module in (formulation, convolution_definition))
        assert_close(got, want, 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_narrow_dtypes(dtype, rng):
    params = ConvParams(normal(rng, 3, 3, 4, dtype=dtype), normal(rng, 4, dtype=dtype))
    x = normal(rng, 2, 9, 3, dtype=dtype)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x))
    (Y, pull), (Y_wide, pull_wide) = (jax.vjp(f, *at) for f, at in ((conv, (params, x)), (plain_conv, wide)))
    dY = normal(rng, *Y.shape, dtype=dtype)
    got, want = (Y, pull(dY)), (Y_wide, pull_wide(dY.astype(jnp.float64)))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    assert_close(got, want, 4 * float(jnp.finfo(dtype).eps))


def test_half_precision_accumulates_in_float32():
    """A bfloat16 accumulator of ones stops at 256."""
    ones = partial(jnp.ones, dtype=jnp.bfloat16)
    for f in (conv, conv_transpose):
        Y, pull = jax.vjp(f, ConvParams(ones((3, 1, 1)), ones(1)), ones((1, 4098, 1)))
        assert pull(jnp.ones_like(Y))[0].b.tolist() == [4096.0]
        assert pull(jnp.ones_like(Y))[0].W[1, 0, 0] == 4096.0


@pytest.mark.parametrize("lead", [(), (2, 3), (0,), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("f", [conv, conv_transpose], ids=["conv", "conv_transpose"])
def test_leading_axes(f, lead, rng):
    params = ConvParams(normal(rng, 3, 2, 2), normal(rng, 2))
    x = normal(rng, *lead, 5, 2)
    Y, pull = jax.vjp(f, params, x)
    flat, pull_flat = jax.vjp(f, params, x.reshape(-1, 5, 2))
    dY = normal(rng, *Y.shape)
    assert Y.shape == (*lead, 5, 2)
    assert_close(Y, flat.reshape(Y.shape), 1e-14)
    got, want = pull(dY), pull_flat(dY.reshape(flat.shape))
    assert_close(got, (want[0], want[1].reshape(x.shape)), 1e-14)


@pytest.mark.parametrize(("c", "o"), [(0, 3), (3, 0)])
def test_no_channels(c, o, rng):
    params, x = ConvParams(normal(rng, 3, c, o), normal(rng, o)), normal(rng, 2, 5, c)
    Y, pull = jax.vjp(conv, params, x)
    assert_close(Y, jnp.broadcast_to(params.b, (2, 5, o)), 0)
    dY = normal(rng, *Y.shape)
    assert_close(pull(dY), (ConvParams(jnp.zeros_like(params.W), dY.sum((0, 1))), jnp.zeros_like(x)), 1e-14)


def test_residuals_are_W_and_x_and_only_where_needed(rng):
    params, x = ConvParams(normal(rng, 3, 2, 4), normal(rng, 4)), normal(rng, 3, 7, 2)
    kept = lambda f, *args: sorted(r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1]))
    assert kept(conv, params, x) == sorted([params.W.shape, x.shape])
    assert kept(lambda params: conv(params, x), params) == [x.shape]
    assert kept(lambda x: conv(params, x), x) == [params.W.shape]


@pytest.mark.parametrize(("n", "s", "c"), [(0, 5, 2), (2, 0, 2), (2, 5, 0)], ids=str)
@pytest.mark.parametrize("f", [conv, conv_transpose], ids=["conv", "conv_transpose"])
def test_nothing_to_go_around(f, n, s, c, rng):
    W = normal(rng, 3, *((c, 2) if f is conv else (2, c)))
    x = normal(rng, n, s, c)
    Y, pull = jax.vjp(partial(f, padding="CIRCULAR"), ConvParams(W, None), x)
    params, dx = pull(normal(rng, n, s, 2))
    assert Y.shape == (n, s, 2) and not Y.any()
    assert params.W.shape == W.shape and not params.W.any() and dx.shape == x.shape


def test_circular_padding_keeps_x_and_not_what_it_becomes(rng):
    params, x = ConvParams(normal(rng, 3, 2, 4), None), normal(rng, 3, 7, 2)
    kept = lambda f, *args: sorted(r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1]))
    assert kept(partial(conv, padding="CIRCULAR"), params, x) == sorted([params.W.shape, x.shape])


def test_sizes_of_conv_transpose(rng):
    W = normal(rng, 4, 3, 2)
    y = normal(rng, 2, 5, 2)
    size = lambda **options: conv_transpose(ConvParams(W, None), y, **options).shape
    assert size(stride=3) == (2, 15, 3)
    assert size(stride=3, padding="VALID") == (2, 16, 3)
    assert size(stride=3, padding="VALID", size=18) == (2, 18, 3)
    assert size(stride=2, padding=1, dilation=2) == (2, 13, 3)


def test_init():
    W, b = ConvParams.init(jax.random.key(0), 32, 64, (3, 5), groups=4, dtype=jnp.bfloat16)
    assert W.shape == (3, 5, 8, 64) and W.dtype == b.dtype == jnp.bfloat16
    assert abs(float(W.astype(jnp.float32).std()) * (3 * 5 * 8) ** 0.5 - 1) < 0.05 and not b.any()
    assert ConvParams.init(jax.random.key(0), 2, 2, (3,), bias=False).b is None
    assert np.shape(ConvParams.init(jax.random.key(0), 0, 2, (3,)).W) == (3, 0, 2)
    with pytest.raises(ValueError, match=r"ConvParams.init: c=3 and o=4 must be multiples of groups=2"):
        ConvParams.init(jax.random.key(0), 3, 4, (3,), groups=2)
