"""layer_norm and rms_norm: accuracy in every dtype, far from zero, edges, what is kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import NormParams, layer_norm, rms_norm
from tests.cases import as_dtype, assert_close, assert_same_types, normal
from tests.layers.families.layer_norm import plain_layer_norm, plain_rms_norm
from tests.layers.families.normalization import arguments

pytestmark = pytest.mark.shared

LAYERS = {"layer_norm": (layer_norm, plain_layer_norm), "rms_norm": (rms_norm, plain_rms_norm)}
each = pytest.mark.parametrize("layer", LAYERS)


def both_modes(f, params, x, u):
    y, back = jax.vjp(f, params, x)
    return y, back(u), jax.jvp(f, (params, x), (params, x))[1]


@each
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_every_dtype_against_the_formula_in_float64(layer, dtype, rng):
    """Two roundings of the results; the reference sees the same numbers."""
    ours, plain = LAYERS[layer]
    at = *arguments(7, 19)(rng), normal(rng, 7, 19)
    got, want = jax.jit(partial(both_modes, ours))(*as_dtype(at, dtype)), jax.jit(partial(both_modes, plain))(*at)
    assert_same_types(got, as_dtype(want, dtype))
    assert_close(got, want, 1e-12 if dtype == jnp.float64 else 4 * float(jnp.finfo(dtype).eps))


def test_an_offset_a_hundred_thousand_deviations_large(rng):
    """Every digit of x counts: x − x₀ is exact, E[X²] − E[X]² would have no digit left."""
    params = NormParams(normal(rng, 50, dtype=jnp.float32), None)
    x = jnp.asarray(1e3 + 1e-2 * rng.standard_normal((4, 50)), jnp.float32)
    u = normal(rng, 4, 50, dtype=jnp.float32)
    f, plain = (partial(f, eps=1e-12) for f in LAYERS["layer_norm"])
    y, back = jax.vjp(f, params, x)
    want, plain_back = jax.vjp(plain, *as_dtype((params, x), jnp.float64))
    assert_close(y, want, 0.01)
    assert_close(back(u), plain_back(as_dtype(u, jnp.float64)), 0.02)


def test_an_outlier_first_in_its_row(rng):
    """The entry the mean is summed relative to is the worst one."""
    x = jnp.asarray(rng.standard_normal((2, 400)), jnp.float32).at[:, 0].set(1e4)
    want = plain_layer_norm((None, None), as_dtype(x, jnp.float64))
    assert_close(layer_norm((None, None), x), want, 1e-5)


@each
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_half_precision_sums_in_float32(layer, dtype):
    """A bfloat16 sum of ones stops at 256, a float16 one at 2048."""
    x = jnp.ones((5000, 1), dtype) * jnp.array([-1, 1], dtype)
    (dscale, dbias), _ = jax.vjp(LAYERS[layer][0], NormParams.init(2, dtype), x)[1](x * x)
    assert np.all(dbias == np.asarray(5000).astype(dtype))
    assert np.all(np.abs(np.asarray(dscale, np.float32) - np.array([-5000, 5000])) <= 32)


@each
def test_large_and_small_rows(layer):
    """bfloat16 and float32 squares stay finite where the statistics do; zero rows give the bias and no NaN."""
    f = LAYERS[layer][0]
    x = jnp.array([[1e15, -1e15, 3e15], [0, 0, 0], [1e-30, 0, 0]], jnp.float32)
    params = NormParams(None, jnp.array([1, 2, 3], jnp.float32))
    y, back = jax.vjp(lambda x: f(params, x), x)
    assert np.isfinite(y).all() and np.isfinite(back(y)[0]).all() and y[1].tolist() == [1.0, 2.0, 3.0]


@each
def test_one_feature_no_feature_no_row(layer):
    f, params = LAYERS[layer][0], NormParams.init(1)
    y = f(NormParams(params.scale, params.bias + 2), jnp.full((3, 1), 5, jnp.float32))
    assert_close(y, jnp.full((3, 1), 2 if layer == "layer_norm" else 3, jnp.float32), 1e-6)
    for shape in ((3, 0), (0, 3), (0,)):
        params, x = NormParams.init(shape[-1]), jnp.ones(shape, jnp.float32)
        y, back = jax.vjp(f, params, x)
        dparams, dx = back(y)
        assert (y.shape, dx.shape) == (shape, shape)
        assert not any(np.any(d) for d in dparams)


def test_residuals():
    x, params = jnp.ones((4, 2, 3), jnp.bfloat16), NormParams.init(3, jnp.bfloat16)
    rows, row = ((4, 2, 3), "bfloat16"), ((4, 2, 1), "float32")
    kept = lambda f, *args: [(r.shape, r.dtype.name) for r in jax.tree.leaves(jax.vjp(f, *args)[1])]
    assert kept(layer_norm, params, x) == [((3,), "bfloat16"), rows, row, row]
    assert kept(rms_norm, params, x) == [((3,), "bfloat16"), rows, row]
    assert kept(lambda b: layer_norm((params.scale, b), x), params.bias) == []
    assert kept(lambda s: rms_norm((s, None), x), params.scale) == [rows, row]


@each
def test_no_array_as_large_as_x_beside_arguments_and_results(layer):
    """Forward and backward in one program; of rms_norm at most dY X, where the compiler puts it beside dX."""
    f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    x = f32(4096, 1024)                                             # compiled, not run

    def both(params, x, u):
        y, back = jax.vjp(LAYERS[layer][0], params, x)
        return y, back(u)

    memory = jax.jit(both).lower(NormParams(f32(1024), f32(1024)), x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * x.size * (0.25 if layer == "layer_norm" else 1.25)


@each
def test_parameters_of_another_dtype(layer, rng):
    ours, plain = LAYERS[layer]
    params, x = arguments(5, 6)(rng)
    u = normal(rng, 5, 6)
    with jax.numpy_dtype_promotion("standard"):
        y, back = jax.vjp(ours, as_dtype(params, jnp.float32), as_dtype(x, jnp.bfloat16))
        dparams, dx = back(as_dtype(u, jnp.bfloat16))
    want, plain_back = jax.vjp(plain, params, x)
    assert y.dtype == dx.dtype == jnp.bfloat16 and dparams.scale.dtype == jnp.float32
    assert_close((y, dx), (want, plain_back(u)[1]), 4 * float(jnp.finfo(jnp.bfloat16).eps))
    assert_close(dparams, plain_back(u)[0], 1e-6)
