"""The losses where they could go wrong: labels, rows that do not count, saturation, infinities, axes of size 0 and 1.

Each law holds of `cross_entropy` and of `linear_cross_entropy`, which gets its logits from the identity.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import AffineParams, cross_entropy, linear_cross_entropy
from tests.cases import assert_close, normal
from tests.layers.families.loss import EVERYTHING, distribution, plain_cross_entropy

pytestmark = pytest.mark.shared

NAN, INF = np.nan, np.inf


def of_identity(logits, labels, **options):
    """`linear_cross_entropy` as a function of its logits."""
    return linear_cross_entropy((jnp.eye(logits.shape[-1], dtype=logits.dtype), None), logits, labels, **options)


BOTH = pytest.mark.parametrize("loss", [cross_entropy, of_identity], ids=["cross_entropy", "linear_cross_entropy"])
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def value_and_gradient(loss, Z, *labels, **options):
    """Of the sum over all rows."""
    L, back = jax.vjp(partial(loss, **options) if len(labels) == 0 else lambda Z: loss(Z, *labels, **options), Z)
    return L, back(jnp.ones_like(L))[0]


def shapes_kept(f, *args):
    return sorted(r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1]) if np.shape(r))


def test_residuals_are_the_operands_and_two_statistics(rng):
    Z, y, keep = normal(rng, 2, 3, 5), jnp.ones((2, 3), int), jnp.arange(3) < 2
    rows = (2, 3)
    f = partial(cross_entropy, reduction="none")
    assert shapes_kept(lambda Z: f(Z, y), Z) == sorted([Z.shape, *[rows] * 3])
    assert shapes_kept(lambda Z: f(Z, y, where=keep), Z) == sorted([Z.shape, *[rows] * 4])
    assert shapes_kept(f, Z, distribution(rng, *Z.shape)) == sorted([Z.shape, Z.shape, *[rows] * 3])


def test_residuals_of_linear_cross_entropy(rng):
    """Of every loss alone the operands and two statistics; of the mean the gradients that are asked for."""
    params, x, y = AffineParams(normal(rng, 4, 5), normal(rng, 5)), normal(rng, 2, 3, 4), jnp.ones((2, 3), int)
    each = partial(linear_cross_entropy, reduction="none")
    assert shapes_kept(lambda p, x: each(p, x, y), params, x) == sorted([(4, 5), (5,), x.shape, *[(2, 3)] * 3])
    mean = lambda p, x: linear_cross_entropy(p, x, y)
    assert shapes_kept(mean, params, x) == sorted([(4, 5), (5,), x.shape])
    assert shapes_kept(lambda x: mean(params, x), x) == [x.shape]
    assert shapes_kept(lambda W: mean(AffineParams(W, params.b), x), params.W) == [(4, 5)]


@BOTH
def test_the_saturated_true_class_is_not_rounded_before_the_subtraction(loss):
    """P = 1 − 2⁻¹³ or so, which bfloat16 rounds to 1."""
    Z, y = jnp.array([[9.0, 0.0, -1.0]], jnp.bfloat16), jnp.array([0])
    _, dZ = value_and_gradient(loss, Z, y)
    _, want = value_and_gradient(plain_cross_entropy, Z.astype(jnp.float64), y)
    assert dZ.dtype == jnp.bfloat16 and dZ[0, 0] != 0
    np.testing.assert_allclose(dZ.astype(jnp.float64), want, rtol=float(jnp.finfo(jnp.bfloat16).eps))


@BOTH
@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_label_out_of_range_is_nan_in_its_row_alone(loss, label, rng):
    Z = normal(rng, 2, 3)
    L, dZ = value_and_gradient(loss, Z, jnp.array([label, 1]), reduction="none")
    assert np.isnan(L).tolist() == [True, False]
    assert np.isnan(dZ).tolist() == [[True] * 3, [False] * 3]


@BOTH
@REDUCTIONS
def test_rows_that_do_not_count_are_nothing_whatever_they_hold(loss, reduction, rng):
    Z = normal(rng, 4, 3)
    bad, y = Z.at[1].set(NAN).at[3].set(INF), jnp.array([0, 1, 2, -100])
    L, dZ = value_and_gradient(
        loss, bad, y, reduction=reduction, where=jnp.array([True, False, True, True]), ignore_label=-100, **EVERYTHING
    )
    rest = jnp.array([0, 2])
    want, want_dZ = value_and_gradient(plain_cross_entropy, Z[rest], y[rest], reduction=reduction, **EVERYTHING)
    assert (dZ[jnp.array([1, 3])] == 0).all()
    assert_close((L[rest] if reduction == "none" else L, dZ[rest]), (want, want_dZ), 1e-13)
    assert reduction != "none" or L[1] == L[3] == 0


@BOTH
@REDUCTIONS
def test_no_row_that_counts(loss, reduction):
    L, dZ = value_and_gradient(loss, jnp.full((2, 3), NAN), jnp.array([5, 5]), reduction=reduction, ignore_label=5)
    assert (L == 0).all() and (dZ == 0).all()


@BOTH
@REDUCTIONS
def test_no_rows(loss, reduction):
    L, dZ = value_and_gradient(loss, jnp.zeros((0, 3)), jnp.zeros(0, int), reduction=reduction)
    assert (L == 0).all() and dZ.shape == (0, 3)


@BOTH
def test_one_class_and_one_row(loss):
    L, dZ = value_and_gradient(loss, jnp.full((1, 1), 7.0), jnp.array([0]))
    assert L == 0 and dZ.tolist() == [[0.0]]


@BOTH
def test_a_row_without_leading_axes(loss, rng):
    Z = normal(rng, 3)
    want = value_and_gradient(plain_cross_entropy, Z, jnp.array(2))
    assert_close(value_and_gradient(loss, Z, jnp.array(2)), want, 1e-13)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_bad_logits_spoil_their_row_alone(bad):
    L, dZ = value_and_gradient(cross_entropy, jnp.array([[0.0, bad], [0.0, 0.0]]), jnp.array([0, 0]), reduction="none")
    assert np.isnan(L).tolist() == [True, False] and np.isnan(dZ[0]).all() and np.isfinite(dZ[1]).all()


def test_classes_of_probability_zero():
    """−∞ is +∞ where it is the label, and nothing elsewhere, in a distribution too."""
    Z = jnp.array([[0.0, -INF, 0.0]])
    of = lambda y: value_and_gradient(cross_entropy, Z, jnp.array(y))
    assert of([1])[0] == INF
    L, dZ = of([0])
    np.testing.assert_allclose(L, math.log(2), rtol=1e-7)
    np.testing.assert_allclose(dZ, [[-0.5, 0, 0.5]], atol=1e-7)
    L, dZ = of([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(L, math.log(2), rtol=1e-7)
    np.testing.assert_allclose(dZ, [[-0.5, 0, 0.5]], atol=1e-7)


@BOTH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_against_float64(loss, dtype, rng):
    Z, y = (4 * normal(rng, 6, 50)).astype(dtype), jnp.arange(6)
    got = value_and_gradient(loss, Z, y, **EVERYTHING)
    assert [t.dtype for t in got] == [dtype, dtype]
    want = value_and_gradient(plain_cross_entropy, Z.astype(jnp.float64), y, **EVERYTHING)
    assert_close(got, want, float(2 * jnp.finfo(dtype).eps))


@BOTH
def test_large_logits_are_exact(loss):
    """m is taken out: lse itself would round the loss away."""
    Z = jnp.array([[1e4, 1e4 + 1, 0.0]], jnp.float32)
    np.testing.assert_allclose(loss(Z, jnp.array([1])), math.log1p(math.exp(-1)), rtol=1e-6)


def test_no_array_as_large_as_the_logits_beside_their_cotangent():
    """Forward alone nothing is written but the loss; with the backward pass exp(Z − m) stands where dZ will be."""
    Z, y = jax.ShapeDtypeStruct((1024, 4096), jnp.float32), jax.ShapeDtypeStruct((1024,), jnp.int32)    # not run
    for f in (cross_entropy, jax.value_and_grad(cross_entropy)):
        memory = jax.jit(f).lower(Z, y).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 4 * Z.size / 16
