"""relu, silu, gelu, swiglu, geglu: accuracy in every dtype, kinks, saturation, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import geglu, gelu, relu, silu, swiglu
from tests.cases import as_dtype, assert_close, assert_same_types, normal
from tests.layers.families.activation import of_one, of_two, plain_of_one, plain_of_two

NARROW = [jnp.float32, jnp.bfloat16, jnp.float16]
ONE = {"relu": relu, "silu": silu, "gelu": gelu, "tanh gelu": lambda x: gelu(x, approximate=True)}
TWO = {"swiglu": swiglu, "geglu": geglu, "tanh geglu": lambda g, u: geglu(g, u, approximate=True)}


def pulled(f, args):
    """Values, and the cotangents of values as cotangents."""
    y, back = jax.vjp(f, *args)
    return y, back(y)


@pytest.mark.parametrize("dtype", NARROW, ids=lambda t: t.__name__)
def test_one_rounding_of_the_formula(dtype, rng):
    """Half precision is widened, computed, rounded once; the reference sees the same numbers."""
    steps = 16 if dtype == jnp.float32 else 0.6                      # e^(−x²/2) has a relative error of x² roundings
    x = 2 * normal(rng, 40)
    for f, plain, args in [(of_one, plain_of_one, (x,)), (of_two, plain_of_two, (x, x[::-1]))]:
        y = f(*as_dtype(args, dtype))
        assert_same_types(y, as_dtype(plain(*args), dtype))
        for got, want in zip(y, plain(*args), strict=True):
            scale = np.abs(np.asarray(want)) + 1e-5
            assert np.all(np.abs(np.asarray(got, np.float64) - want) <= steps * float(jnp.finfo(dtype).eps) * scale)


@pytest.mark.parametrize("name", ONE)
def test_against_jax_nn(name, rng):
    theirs = {"tanh gelu": jax.nn.gelu, "gelu": lambda x: jax.nn.gelu(x, approximate=False)}
    f, other = ONE[name], theirs.get(name) or getattr(jax.nn, name)
    x = 3 * normal(rng, 3, 5)
    assert_close(pulled(f, (x,)), pulled(other, (x,)), 1e-12)


@pytest.mark.parametrize("name", TWO)
def test_gated_against_jax_nn(name, rng):
    exact = lambda x: jax.nn.gelu(x, approximate=False)
    other = {"swiglu": jax.nn.silu, "geglu": exact, "tanh geglu": jax.nn.gelu}[name]
    args = 3 * normal(rng, 3, 5), normal(rng, 3, 5)
    assert_close(pulled(TWO[name], args), pulled(lambda gate, up: other(gate) * up, args), 1e-12)


def test_relu_at_zero_and_nan():
    x = jnp.array([0.0, -0.0, jnp.nan, 1e-45, -1e-45, jnp.inf, -jnp.inf], jnp.float32)
    for f in (relu, jax.nn.relu):
        y, back = jax.vjp(f, x)
        np.testing.assert_array_equal(y, jnp.maximum(x, jnp.float32(0)))
        np.testing.assert_array_equal(back(jnp.ones_like(x))[0][jnp.array([0, 1, 2, 5, 6])], [0, 0, 0, 1, 0])
    assert jax.jvp(relu, (x,), (jnp.ones_like(x),))[1][:3].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("dtype", [jnp.float64, *NARROW], ids=lambda t: t.__name__)
def test_far_out_the_slope_is_0_or_1(name, dtype):
    """Also where x² is infinite."""
    big = float(jnp.finfo(dtype).max) / 2
    x = jnp.asarray([-big, -1000, 1000, big], dtype)
    assert jax.grad(lambda x: ONE[name](x).sum())(x).tolist() == [0.0, 0.0, 1.0, 1.0]
    curvature = jax.grad(lambda x: jax.grad(lambda x: ONE[name](x).sum())(x).sum())(x)
    assert curvature.tolist() == [0.0] * 4


def test_gelu_keeps_its_digits_far_below_zero():
    """1 + erf would cancel to nothing; Φ(−8) = 6.2209605742717841e-16."""
    x = jnp.array(-8.0, jnp.float64)
    assert abs(gelu(x) / (-8 * 6.2209605742717841e-16) - 1) < 1e-12
    density = np.exp(-32) / np.sqrt(2 * np.pi)
    assert abs(jax.grad(gelu)(x) / (6.2209605742717841e-16 - 8 * density) - 1) < 1e-12


def kept(f, *args):
    return [(r.shape, r.dtype.name) for r in jax.tree.leaves(jax.vjp(f, *args)[1])]


def test_residuals():
    x = jnp.ones((3, 2), jnp.bfloat16)
    array = ((3, 2), "bfloat16")
    assert kept(relu, x) == [((3, 2), "bool")]
    for f in (silu, gelu):
        assert kept(f, x) == [array]
    for f in (swiglu, geglu):
        assert kept(f, x, x) == [array] * 2
        assert kept(lambda gate, f=f: f(gate, x), x) == [array] * 2
        assert kept(lambda up, f=f: f(x, up), x) == [array]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_sizes(shape):
    x = jnp.full(shape, 0.5, jnp.float32)
    for f, args in [(of_one, (x,)), (of_two, (x, x))]:
        y, dx = pulled(f, args)
        assert all(v.shape == shape for v in (*y, *dx))


def test_operands_of_two_dtypes():
    gate, up = jnp.array([0.5, -2.0], jnp.bfloat16), jnp.array([1.0, 3.0], jnp.float32)
    for f in TWO.values():
        with jax.numpy_dtype_promotion("standard"):
            y, (dgate, dup) = pulled(f, (gate, up))
        assert (y.dtype, dgate.dtype, dup.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
