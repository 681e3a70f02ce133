"""The matrix of layers and transformations on a GPU, against plain autodiff of the references on the host in float64.

Products of float32 are those of float32 and not of TF32 (`highest`). The bounds are 1e-12 of the largest entry in
float64, and in a narrower dtype `ROUNDINGS` of it: four times as many as on CPU, as a GPU's sines and exponentials are a
few roundings off, and every row is here, also where a sum of little comes of terms that are large.
"""

import zlib

import jax
import jax.numpy as jnp
import pytest

from tests.cases import as_dtype, assert_close, assert_same_types
from tests.gpu.accelerator import DEVICE, HOST, WHY_NOT
from tests.layers.families import MAIN, VARIANTS
from tests.layers.rows import ROWS
from tests.layers.test_transformations import DIFFERS_BY_SHAPE, STEPS, expected, label, on, problem

pytestmark = pytest.mark.skipif(DEVICE is None, reason=WHY_NOT)
HALF, ROUNDINGS = (jnp.bfloat16, jnp.float16), 4 * STEPS


def dtypes_of(case, row):
    """Both wide ones, and one of the narrow ones."""
    return jnp.float64, jnp.float32, HALF[zlib.crc32(f"{case} {row}".encode()) % 2]


EVERY = [(case, row, dtype) for case in MAIN for row in ROWS for dtype in dtypes_of(case, row)]
SHAPES = [(case, row, jnp.float32) for case in VARIANTS for row in DIFFERS_BY_SHAPE]
MATRIX = EVERY + SHAPES if DEVICE else EVERY[:1]                # one line where all of it is skipped


@pytest.mark.parametrize(("case", "row", "dtype"), MATRIX, ids=label)
def test_matrix(case, row, dtype):
    with jax.default_device(HOST):
        want, at = expected(case, row), as_dtype(problem(case, row)[:-1], dtype)
    with jax.default_device(DEVICE), jax.default_matmul_precision("highest"):
        got = jax.jit(on(row, case.function, case))(*jax.device_put(at, DEVICE))
    assert {device for leaf in jax.tree.leaves(got) for device in leaf.devices()} == {DEVICE}
    assert_same_types(got, as_dtype(want, dtype))
    assert_close(got, want, 1e-12 if dtype == jnp.float64 else ROUNDINGS * float(jnp.finfo(dtype).eps))
