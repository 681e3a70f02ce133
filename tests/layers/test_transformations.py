"""The matrix: every transformation of every layer against plain autodiff of its reference.

Two numbers decide. In float64 the two agree to 1e-12 of the largest entry. In a narrower dtype the layer is compared
with its reference in float64 on the same numbers, to `STEPS` roundings of the largest entry: a handful of operations lie
between argument and result (at most three products and the sines and cosines of a third derivative), whatever the size.
"""

import jax
import jax.numpy as jnp
import pytest

from tests.cases import AFFINE, CASES, as_dtype, assert_close, assert_same_types, normal_like
from tests.layers.rows import ROWS, Problem

STEPS = 16.0


def problem(case, key, dtype):
    keys = jax.random.split(key, 7)
    args = case.arguments(keys[0], dtype)
    stacked = [case.arguments(k, dtype) for k in jax.random.split(keys[5], 6)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *stacked[:2])
    grid = jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 3, *x[0].shape), *stacked)
    y = jax.eval_shape(case.reference, *args)
    directions = normal_like(keys[1], args), normal_like(keys[2], args), normal_like(keys[3], y)
    return Problem(args, *directions, batch, grid, case.linear_in)


def run(row, f, at, jitted=False):
    values, linear_in = at[:-1], at.linear_in
    call = lambda *values: row(f, Problem(*values, linear_in))
    return (jax.jit(call) if jitted else call)(*values)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_float64(case, row, jitted, key):
    at = problem(case, key, jnp.float64)
    got, want = run(ROWS[row], case.function, at, jitted), run(ROWS[row], case.reference, at, True)
    assert_same_types(got, want)
    assert_close(got, want, 1e-12)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_narrow(dtype, row, key):
    at = problem(AFFINE, key, dtype)
    exact = Problem(*as_dtype(at[:-1], jnp.float64), at.linear_in)
    got, want = run(ROWS[row], AFFINE.function, at, True), run(ROWS[row], AFFINE.reference, exact, True)
    assert all(x.dtype == dtype for x in jax.tree.leaves(got))
    assert_close(got, want, STEPS * float(jnp.finfo(dtype).eps))
