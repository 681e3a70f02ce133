"""cotangent_like, sum_leading and contract: the adjoints of implicit conversions, and their numerics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import contract, cotangent_like, like, sum_leading

HALF = [jnp.bfloat16, jnp.float16]


def normal(seed, *shape, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


BROADCASTS = [((), (2, 3)), ((3,), (2, 3)), ((1, 3), (2, 3)), ((2, 1), (4, 2, 3)), ((0,), (2, 0))]


@pytest.mark.parametrize("primal, ct", BROADCASTS)
def test_adjoint_of_a_broadcast_is_a_sum(primal, ct):
    x, dy = normal(0, *primal), normal(1, *ct)
    want = jax.linear_transpose(lambda x: jnp.broadcast_to(x, ct), x)(dy)[0]
    np.testing.assert_allclose(cotangent_like(x, dy), want, rtol=1e-14, atol=1e-15)
    assert cotangent_like(like(x), dy).shape == primal


def test_adjoint_of_a_cast_is_a_cast_back():
    dy = normal(0, 3)
    assert cotangent_like(jnp.zeros(3, jnp.bfloat16), dy).dtype == jnp.bfloat16
    z = dy.astype(jnp.complex128) * (1 + 2j)
    got = cotangent_like(dy, z)
    np.testing.assert_array_equal(got, jax.linear_transpose(lambda x: x.astype(jnp.complex128), dy)(z)[0])


def test_none_is_zero_and_impossible_shapes_are_named():
    assert cotangent_like(normal(0, 2, 3), None).tolist() == [[0.0] * 3] * 2
    for shape in [(2,), (3, 2), ()]:
        with pytest.raises(ValueError, match=r"cannot belong to a primal of shape \(2, 3\)"):
            cotangent_like(normal(0, 2, 3), normal(1, *shape))


@pytest.mark.parametrize("dtype", HALF)
def test_sums_accumulate_in_float32(dtype):
    ones = jnp.ones((5000, 2), dtype)
    for total in (sum_leading(ones, jnp.zeros(2, dtype)), cotangent_like(jnp.zeros(2, dtype), ones)):
        assert total.dtype == dtype and total.tolist() == [float(jnp.asarray(5000, dtype))] * 2


SPECS = {
    "nd,np->dp": ((5, 3), (5, 4)),
    "nd,dp->np": ((5, 3), (3, 4)),
    "np,dp->nd": ((5, 4), (3, 4)),
    "...d,dp->...p": ((2, 5, 3), (3, 4)),
    "...d,...p->dp": ((2, 5, 3), (2, 5, 4)),
    "...p,dp->...d": ((2, 5, 4), (3, 4)),
    "bhqd,bhkd->bhqk": ((2, 3, 4, 5), (2, 3, 6, 5)),
    "bthd,bshd->bhts": ((2, 4, 3, 5), (2, 6, 3, 5)),
    "i,j->ji": ((2,), (3,)),
    "i,i->": ((4,), (4,)),
    ",ij->ji": ((), (2, 3)),
    "...i,...i->...": ((2, 3, 4), (2, 3, 4)),
    "ij,jk->ki": ((0, 3), (3, 2)),
}


EXPANDED = {"...d,...p->dp": "ynd,ynp->dp"}  # numpy sums no ellipsis


@pytest.mark.parametrize("spec", SPECS)
def test_contract_is_einsum(spec):
    a, b = (normal(i, *shape) for i, shape in enumerate(SPECS[spec]))
    want = np.einsum(EXPANDED.get(spec, spec), a, b)
    np.testing.assert_allclose(contract(spec, a, b), want, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", HALF)
def test_contract_rounds_once(dtype):
    a, b = normal(0, 4000, 2, dtype=dtype), normal(1, 4000, 3, dtype=dtype)
    exact = np.einsum("nd,np->dp", np.asarray(a, np.float64), np.asarray(b, np.float64))
    scale = np.einsum("nd,np->dp", np.abs(np.asarray(a, np.float64)), np.abs(np.asarray(b, np.float64)))
    error = np.abs(np.asarray(contract("nd,np->dp", a, b), np.float64) - exact)
    # one rounding of the result; what float32 accumulation adds is bounded by its own eps times Σ|a||b|
    assert np.all(error <= jnp.finfo(dtype).eps * np.abs(exact) + 64 * np.finfo(np.float32).eps * scale)
    assert contract("nd,np->dp", a, b, like=jnp.zeros((2, 3), jnp.float32)).dtype == jnp.float32


BAD = {
    ("nd,np", (2, 3), (2, 4)): "expected a spec of two operands and an output like 'nd,np->dp', got 'nd,np'",
    ("nd->dn", (2, 3), (2, 4)): "expected a spec of two operands",
    ("nd,np->dp", (2, 3), (5, 4)): r"axis 'n' of 'nd,np->dp' is 2 in the first operand \(shape \(2, 3\)\) but 5",
    ("nd,np->dp", (2, 3, 4), (2, 4)): "'nd' in 'nd,np->dp' does not fit an operand of rank 3",
    ("nn,np->np", (2, 2), (2, 4)): "'nn' in 'nn,np->np' does not fit an operand of rank 2 with distinct axes",
    ("nd,np->p", (2, 3), (2, 4)): "sums an axis that only one operand has",
    ("nd,np->dpq", (2, 3), (2, 4)): "names one that none has",
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_contract_names_what_does_not_fit(case):
    spec, a, b = case
    with pytest.raises(ValueError, match="contract: .*" + BAD[case]):
        contract(spec, jnp.zeros(a), jnp.zeros(b))
