"""The matrix: every transformation of a layer against plain autodiff of its reference.

In float64 the two agree to 1e-12 of the largest entry. In a narrower dtype the layer is compared with its reference in
float64 on the same numbers, to `STEPS` roundings of the largest entry: about that many operations lie between argument
and result (up to three derivatives of a sine of a product, and a sum), whatever the size.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from adjax.certify.quick import quick_options
from tests.cases import as_dtype, assert_close, assert_same_types, normal, normal_like
from tests.layers.families import FAMILIES, MAIN, VARIANTS
from tests.layers.rows import ROWS, Problem
from tests.sharing import ours, shared

STEPS = 16
AFFINE = FAMILIES["affine"].CASES[0]
DTYPES = [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16]
DIFFERS_BY_SHAPE = [
    "grad of each subset", "jvp of each subset", "linear_transpose", "transpose of linearize", "jacfwd of jacrev",
    "vmap, first axis", "vmap, last axis", "vmap, nested", "vmap of grad", "checkpoint",
]  # fmt: skip
ON_BOTH = ["value", "vjp", "jvp", "linearize", "linear_transpose", "hvp, forward over reverse", "vmap of grad", "scan"]
EAGER = [
    "value", "grad of each subset", "value_and_grad", "vjp", "jvp of each subset", "linearize", "linear_transpose",
    "transpose of linearize", "jacfwd", "jacrev", "hvp, forward over reverse", "hvp, reverse over forward",
    "hvp, reverse over reverse", "vmap, nested", "vmap of grad", "checkpoint, only these names",
]  # fmt: skip


@functools.cache
def problem(case, row):
    """Where a row is evaluated, in float64; the same numbers for every dtype."""
    rng = np.random.default_rng(zlib.crc32(f"{case} {row}".encode()))
    args = case.arguments(rng)
    stacked = [case.arguments(rng) for _ in range(6)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *stacked[:2])
    grid = jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 3, *x[0].shape), *stacked)
    u = normal_like(rng, jax.eval_shape(case.reference, *args))
    return Problem(args, normal_like(rng, args), normal_like(rng, args), u, batch, grid, case.linear_in)


@functools.cache
def expected(case, row):
    return jax.jit(on(row, case.reference, case), compiler_options=quick_options())(*problem(case, row)[:-1])


def on(row, f, case):
    return lambda *values: ROWS[row](f, Problem(*values, case.linear_in))


def dtypes_of(case, row):
    """All for affine, the layer the foundation was built with.

    The others have both float64 and one of the narrow ones in a row. The two Pythons that CI runs share the rows, but
    for those of ON_BOTH.
    """
    if case is AFFINE:
        return DTYPES
    if not ours(f"{case} {row}"):
        return [jnp.float64] if row in ON_BOTH else []
    return [jnp.float64, DTYPES[1 + zlib.crc32(f"{case} {row}".encode()) % 3]]


MATRIX = [(case, row, dtype) for case in MAIN for row in ROWS for dtype in dtypes_of(case, row)]
IN_VARIANTS = shared([(case, row) for case in VARIANTS for row in DIFFERS_BY_SHAPE], name="{0[0]} {0[1]}".format)


def label(value):
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("case", "row", "dtype"), MATRIX, ids=label)
def test_jit(case, row, dtype):
    at = as_dtype(problem(case, row)[:-1], dtype)
    options = None if case is AFFINE and dtype == jnp.float64 else quick_options()
    got = jax.jit(on(row, case.function, case), compiler_options=options)(*at)
    assert_same_types(got, as_dtype(expected(case, row), dtype))
    assert_close(got, expected(case, row), 1e-12 if dtype == jnp.float64 else STEPS * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("row", EAGER)
def test_eager(row):
    got = on(row, AFFINE.function, AFFINE)(*problem(AFFINE, row)[:-1])
    assert_same_types(got, expected(AFFINE, row))
    assert_close(got, expected(AFFINE, row), 1e-12)


@pytest.mark.parametrize(("case", "row"), IN_VARIANTS, ids=label)
def test_variants(case, row):
    got = jax.jit(on(row, case.function, case), compiler_options=quick_options())(*problem(case, row)[:-1])
    assert_same_types(got, expected(case, row))
    assert_close(got, expected(case, row), 1e-12)


def test_every_row_says_something():
    """No row is empty, not even one over the arguments in which the layer is linear."""
    for row in ROWS:
        result = jax.eval_shape(on(row, AFFINE.reference, AFFINE), *problem(AFFINE, row)[:-1])
        assert jax.tree.leaves(result), row


@pytest.mark.parametrize("policy", ["named", "dots", "nothing"])
def test_checkpoint_keeps_and_recomputes_what_it_does_in_plain_jax(policy):
    """Residuals between two layers, and products in the compiled program: no name is lost, nothing runs twice."""
    keep = {
        "named": jax.checkpoint_policies.save_only_these_names("h"),
        "dots": jax.checkpoint_policies.dots_saveable,
        "nothing": jax.checkpoint_policies.nothing_saveable,
    }[policy]
    rng = np.random.default_rng(0)
    first, X = AFFINE.arguments(rng)
    second = normal(rng, 3, 7), normal(rng, 7)

    def measured(f):
        def two_layers(first, second, X):
            h = checkpoint_name(f(first, X), "h")
            return jnp.sum(jnp.sin(f(second, jnp.sin(h))))

        L = jax.checkpoint(two_layers, policy=keep)
        kept = jax.tree.leaves(jax.vjp(L, first, second, X)[1])
        program = jax.jit(jax.grad(L, (0, 1, 2))).lower(first, second, X).compile().as_text()
        return sorted(r.shape for r in kept if r.ndim), program.count(" dot(")

    (kept, products), (plain_kept, plain_products) = measured(AFFINE.function), measured(AFFINE.reference)
    assert kept == plain_kept and products <= plain_products
