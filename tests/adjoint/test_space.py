"""Inner products, norms, probes, and the transpose of a linear function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjax

TREE = {"a": jnp.arange(3.0), "i": jnp.arange(2), "none": None}


def test_inner_and_norm():
    assert float(adjax.inner(TREE, TREE)) == 5.0 and float(adjax.norm(TREE)) == 5.0**0.5
    z = jnp.array([1 + 2j, 3j])
    assert complex(adjax.inner(z, z)) == (1 + 2j) ** 2 + (3j) ** 2
    np.testing.assert_allclose(float(adjax.norm(z)), 14**0.5, rtol=1e-15)
    ones = jnp.ones(5000, jnp.bfloat16)
    assert float(adjax.inner(ones, ones)) == 5000.0
    with pytest.raises(ValueError, match="structures differ"):
        adjax.inner(TREE, (1.0,))
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        adjax.inner(jnp.ones(3), jnp.ones(2))


def test_probes_and_zeros_live_in_the_space():
    probe, zero = adjax.random_like(jax.random.key(0), TREE), adjax.zeros_like(TREE)
    for v in (probe, zero):
        assert jax.tree.structure(v) == jax.tree.structure(TREE)
        assert v["a"].dtype == TREE["a"].dtype and v["i"].dtype == jax.dtypes.float0
    assert float(adjax.norm(zero)) == 0.0
    big = adjax.random_like(jax.random.key(1), jnp.zeros(1000))
    assert (big < 0).sum() > 400 and abs(float(adjax.norm(big)) - 1000**0.5) < 3


def test_transpose_and_adjoint():
    A = jax.random.normal(jax.random.key(0), (4, 3), jnp.complex128)
    x, y = jax.random.normal(jax.random.key(1), (3,), jnp.complex128), jnp.asarray([0 + 1j, 1 + 1j, 2 + 1j, 3 + 1j])
    np.testing.assert_allclose(adjax.transpose(lambda x: A @ x, x)(y), A.T @ y, rtol=1e-13)
    np.testing.assert_allclose(adjax.adjoint(lambda x: A @ x, x)(y), A.conj().T @ y, rtol=1e-13)
    hermitian = jnp.vdot(A @ x, y), jnp.vdot(x, adjax.adjoint(lambda x: A @ x, x)(y))
    np.testing.assert_allclose(*hermitian, rtol=1e-13)
    tree = {"a": jnp.ones(3), "b": jnp.ones(2)}
    got = adjax.transpose(lambda t: 2 * t["a"].sum() + t["b"], tree)(jnp.array([1.0, 2.0]))
    assert got["a"].tolist() == [6.0] * 3 and got["b"].tolist() == [1.0, 2.0]
    shape_only = adjax.transpose(lambda x: A.real @ x, jax.ShapeDtypeStruct((3,), jnp.float64))
    np.testing.assert_allclose(shape_only(y.real), A.real.T @ y.real, rtol=1e-13)


W = jnp.ones((3, 2))
NOT_LINEAR = {
    "an affine map": (lambda x: adjax.affine((W, jnp.ones(2)), x), "`add` adds to it"),
    "a square": (lambda x: x * x, "`mul` multiplies it by itself"),
    "a sine": (jnp.sin, "'sin' not implemented"),
    "a rectifier": (jax.nn.relu, "'max' not implemented"),
    "a constant": (lambda x: jnp.ones(2), "output 0 does not vanish with it"),
}


@pytest.mark.parametrize("what", NOT_LINEAR)
@pytest.mark.parametrize("of", [adjax.transpose, adjax.adjoint], ids=["transpose", "adjoint"])
def test_what_is_not_linear_has_no_transpose(what, of):
    f, reason = NOT_LINEAR[what]
    with pytest.raises(TypeError, match="is not linear in its argument") as caught:
        of(f, jnp.ones(3))
    assert reason in str(caught.value)
