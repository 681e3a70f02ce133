"""affine itself: every dtype, every edge of its domain, every word it says about bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import AffineParams, affine
from tests.cases import as_dtype, assert_close, assert_same_types, normal, normal_like
from tests.layers.families.affine import plain_affine

NARROW = [jnp.float32, jnp.bfloat16, jnp.float16]


def values(rng, n=7, d=37, p=11, dtype=jnp.float64):
    """params, X and a cotangent of Y."""
    params = AffineParams(normal(rng, d, p, dtype=dtype), normal(rng, p, dtype=dtype))
    return params, normal(rng, n, d, dtype=dtype), normal(rng, n, p, dtype=dtype)


def forward_and_backward(f, params, X, dY):
    Y, back = jax.vjp(f, params, X)
    return Y, *back(dY)


# Accuracy: entry by entry, the bound of the rounding analysis

def rounding(dtype, terms, magnitude, roundings):
    """Of a sum of products: `terms` roundings in the accumulator, some in the result's dtype. Both first order."""
    accumulator = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
    unit = lambda t: float(jnp.finfo(t).eps) / 2
    return (terms * unit(accumulator) + roundings * unit(dtype)) * magnitude * 1.01


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [jnp.float64, *NARROW], ids=lambda t: t.__name__)
def test_every_entry_is_within_the_rounding_bound(dtype, jitted, rng):
    exact = values(rng)
    run = partial(forward_and_backward, affine)
    got = (jax.jit(run) if jitted else run)(*as_dtype(exact, dtype))
    (W, b), X, dY = jax.tree.map(np.asarray, exact)
    W_, X_, dY_ = np.abs(W), np.abs(X), np.abs(dY)
    n, d, p = *X.shape, len(b)
    want = [
        (got[0], X @ W + b, rounding(dtype, d + 1, X_ @ W_ + np.abs(b), 2)),       # one for X W, one for + b
        (got[1].W, X.T @ dY, rounding(dtype, n + 1, X_.T @ dY_, 1)),
        (got[1].b, dY.sum(0), rounding(dtype, n + 1, dY_.sum(0), 1)),
        (got[2], dY @ W.T, rounding(dtype, p + 1, dY_ @ W_.T, 1)),
    ]
    for value, truth, bound in want:
        assert value.dtype == dtype
        assert np.all(np.abs(np.asarray(value, np.float64) - truth) <= bound)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_half_precision_accumulates_in_float32(dtype, jitted):
    """A bfloat16 accumulator stops at 256, a float16 one at 2048; the first is the number in the README."""
    n, total = (100_000, 100_000) if dtype == jnp.bfloat16 else (50_000, 50_000)
    params = AffineParams(jnp.ones((1, 1), dtype), jnp.zeros((1,), dtype))
    ones = jnp.ones((n, 1), dtype)
    back = lambda params, X, dY: jax.vjp(affine, params, X)[1](dY)
    dparams, _ = (jax.jit(back) if jitted else back)(params, ones, ones)
    rounded = np.asarray(total).astype(dtype)                       # 99840 in bfloat16, 50016 in float16
    assert dparams.b[0] == rounded and dparams.W[0, 0] == rounded
    Y = affine(AffineParams(jnp.ones((n, 1), dtype), None), ones.T)
    assert Y[0, 0] == rounded
    tangent = jax.jvp(lambda W: affine(AffineParams(W, None), ones.T), (ones,), (ones,))[1]
    assert tangent[0, 0] == rounded


@pytest.mark.parametrize("dtype", NARROW, ids=lambda t: t.__name__)
def test_linear_transpose_in_every_dtype(dtype, rng):
    (W, _), X, dY = exact = values(rng)
    (w, _), x, dy = as_dtype(exact, dtype)
    dX = jax.linear_transpose(lambda x: affine((w, None), x), x)(dy)[0]
    dW = jax.linear_transpose(lambda w: affine((w, None), x), w)(dy)[0]
    assert dX.dtype == dW.dtype == dtype
    assert_close((dX, dW), (dY @ W.T, X.T @ dY), 2 * float(jnp.finfo(dtype).eps))


# Complex numbers

@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128], ids=lambda t: t.__name__)
def test_complex_cotangents_are_transposed_not_conjugated(dtype, rng):
    real, imaginary = values(rng, 4, 5, 3), values(rng, 4, 5, 3)
    params, X, dY = as_dtype(jax.tree.map(jax.lax.complex, real, imaginary), dtype)
    Y, dparams, dX = forward_and_backward(affine, params, X, dY)
    rtol = 1e-12 if dtype == jnp.complex128 else 16 * float(jnp.finfo(dtype).eps)
    assert_close((dparams, dX), (AffineParams(X.T @ dY, dY.sum(0)), dY @ params.W.T), rtol)
    assert np.abs(dparams.W - X.conj().T @ dY).max() > 0.1
    assert_close((Y, dparams, dX), forward_and_backward(plain_affine, params, X, dY), rtol)
    tangents = params, X
    pushed = [jax.jvp(f, (params, X), tangents)[1] for f in (affine, plain_affine)]
    assert_close(*pushed, rtol)
    holomorphic = [jax.jacfwd(lambda x, f=f: f(params, x), holomorphic=True)(X[0]) for f in (affine, plain_affine)]
    assert_close(*holomorphic, rtol)


def test_real_parameters_of_complex_data_have_real_cotangents(rng):
    """Promotion from real to complex is an implicit conversion; its adjoint is the real part."""
    params, X, dY = values(rng, 4, 5, 3)
    X, dY = jax.lax.complex(X, X[::-1]), jax.lax.complex(dY, -dY[::-1])
    with jax.numpy_dtype_promotion("standard"):
        got = forward_and_backward(affine, params, X, dY)
        want = forward_and_backward(plain_affine, params, X, dY)
    assert_same_types(got, want)
    assert_close(got, want, 1e-12)


# Edges of the domain

SHAPES = [
    ((), 5, 3), ((1,), 5, 3), ((4,), 1, 3), ((4,), 5, 1), ((1,), 1, 1), ((2, 1, 4), 5, 3), ((2, 3, 2, 1), 5, 3),
    ((0,), 5, 3), ((4,), 0, 3), ((4,), 5, 0), ((0,), 0, 0), ((2, 0, 4), 5, 3), ((), 0, 3),
]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False], ids=["b", "no b"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(shape, bias, rng):
    leading, d, p = shape
    params = AffineParams(normal(rng, d, p), normal(rng, p) if bias else None)
    X, dY = normal(rng, *leading, d), normal(rng, *leading, p)
    tangents = normal_like(rng, params), normal_like(rng, X)

    def both_modes(f):
        return forward_and_backward(f, params, X, dY), jax.jvp(f, (params, X), tangents)[1]

    got, want = both_modes(affine), both_modes(plain_affine)
    assert_same_types(got, want)
    assert_close(got, want, 1e-12)


def test_without_a_bias_there_is_no_cotangent_of_it(rng):
    (W, _), X, _ = values(rng)
    grads = jax.grad(lambda params: jnp.sum(affine(params, X)))(AffineParams(W, None))
    assert isinstance(grads, AffineParams) and grads.b is None


@pytest.mark.parametrize("make", [tuple, list, lambda params: AffineParams(*params)], ids=["tuple", "list", "named"])
def test_cotangents_have_the_structure_of_the_parameters(make, rng):
    params, X, _ = values(rng)
    grads = jax.grad(lambda params: jnp.sum(jnp.sin(affine(params, X))))(make(params))
    assert type(grads) is type(make(params))
    assert_close(grads, jax.grad(lambda params: jnp.sum(jnp.sin(plain_affine(params, X))))(make(params)), 1e-12)


def test_numpy_arrays_and_keywords(rng):
    params, X, _ = values(rng)
    got = affine(X=np.asarray(X), params=tuple(map(np.asarray, params)))
    assert isinstance(got, jax.Array)
    assert_close(got, plain_affine(params, X), 1e-12)


def test_no_implicit_rank_promotion(rng):
    at = values(rng)
    both_modes = lambda f: (forward_and_backward(f, *at), jax.jvp(f, at[:2], at[:2])[1])
    want = both_modes(plain_affine)
    with jax.numpy_rank_promotion("raise"):
        assert_close(both_modes(affine), want, 1e-12)


MIXED = [(jnp.float32, jnp.float64, jnp.float64), (jnp.float64, jnp.float64, jnp.float32),
         (jnp.bfloat16, jnp.float32, jnp.float32), (jnp.bfloat16, jnp.float32, jnp.bfloat16)]  # fmt: skip


@pytest.mark.parametrize("dtypes", MIXED, ids=lambda ts: ",".join(t.__name__ for t in ts))
def test_mixed_dtypes_promote_and_their_cotangents_are_cast_back(dtypes, rng):
    (W, b), X, dY = values(rng, 4, 5, 3)
    W, b, X = (x.astype(t) for x, t in zip((W, b, X), dtypes, strict=True))
    with jax.numpy_dtype_promotion("standard"):
        dY = dY.astype(jnp.result_type(W, b, X))
        got = forward_and_backward(affine, (W, b), X, dY)
        want = forward_and_backward(plain_affine, (W, b), X, dY)
    assert_same_types(got, want)
    assert_close(got, want, 2 * max(float(jnp.finfo(t).eps) for t in dtypes))


def test_non_finite_values_go_where_they_go_in_plain_jax(rng):
    params, X, dY = values(rng, 4, 5, 3)
    X = X.at[1, 2].set(jnp.nan).at[3, 0].set(jnp.inf)
    for a, b in zip(*(forward_and_backward(f, params, X, dY) for f in (affine, plain_affine)), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), a, b)


# Fresh parameters

def test_init(key):
    W, b = AffineParams.init(key, 400, 300)
    assert (W.shape, b.shape, W.dtype, b.dtype) == ((400, 300), (300,), jnp.float32, jnp.float32)
    assert np.all(b == 0) and abs(float(W.mean())) < 0.001
    assert abs(float(W.var()) * 400 - 1) < 0.02                     # LeCun: variance 1/d
    assert AffineParams.init(key, 5, 3, bias=False).b is None
    assert AffineParams.init(key, 5, 3, dtype=jnp.bfloat16).W.dtype == jnp.bfloat16
    assert AffineParams.init(key, 0, 3).W.shape == (0, 3) and AffineParams.init(key, 5, 0).b.shape == (0,)
    again, other = AffineParams.init(key, 400, 300), AffineParams.init(jax.random.fold_in(key, 1), 400, 300)
    assert np.array_equal(W, again.W) and not np.array_equal(W, other.W)


def test_init_with_other_initializers(key):
    given = {"kernel_init": jax.nn.initializers.ones, "bias_init": jax.nn.initializers.constant(2.0)}
    W, b = jax.jit(lambda key: AffineParams.init(key, 5, 3, **given))(key)
    assert np.all(W == 1) and np.all(b == 2)


@pytest.mark.parametrize(("d", "p"), [(-1, 3), (5, -2)])
def test_init_refuses_negative_sizes(d, p, key):
    with pytest.raises(ValueError) as error:
        AffineParams.init(key, d, p)
    assert str(error.value) == f"AffineParams.init: d and p must not be negative, got d={d}, p={p}"
