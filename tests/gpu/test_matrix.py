"""The matrix of layers and transformations on a GPU, against plain autodiff of the references on the host in float64.

Products of float32 are those of float32 and not of TF32 (`highest`), so the bounds are those of the tests on CPU: 1e-12
of the largest entry in float64, `STEPS` roundings of it in a narrower dtype. Every row is here in a narrow dtype, also
where a sum of little comes of large terms: there a layer may be as far off as its reference is on the same device.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import as_dtype, assert_same_types
from tests.gpu.accelerator import DEVICE, HOST, WHY_NOT
from tests.layers.families import MAIN, VARIANTS
from tests.layers.rows import ROWS
from tests.layers.test_transformations import DIFFERS_BY_SHAPE, STEPS, expected, label, on, problem

pytestmark = pytest.mark.skipif(DEVICE is None, reason=WHY_NOT)
HALF = jnp.bfloat16, jnp.float16
ALLOWED = 4                             # times the reference's error


def dtypes_of(case, row):
    """Both wide ones, and one of the narrow ones."""
    return jnp.float64, jnp.float32, HALF[zlib.crc32(f"{case} {row}".encode()) % 2]


EVERY = [(case, row, dtype) for case in MAIN for row in ROWS for dtype in dtypes_of(case, row)]
SHAPES = [(case, row, jnp.float32) for case in VARIANTS for row in DIFFERS_BY_SHAPE]
MATRIX = EVERY + SHAPES if DEVICE else EVERY[:1]                # one line where all of it is skipped


def errors(got, want):
    """Of every leaf: the largest error, and the largest entry that should be there."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
        a, b = np.asarray(a).astype(wide), np.asarray(b).astype(wide)
        yield np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)


@pytest.mark.parametrize(("case", "row", "dtype"), MATRIX, ids=label)
def test_matrix(case, row, dtype):
    with jax.default_device(HOST):
        want, at = expected(case, row), as_dtype(problem(case, row)[:-1], dtype)

    def run(f):
        with jax.default_device(DEVICE), jax.default_matmul_precision("highest"):
            return jax.jit(on(row, f, case))(*jax.device_put(at, DEVICE))

    got = run(case.function)
    assert {device for leaf in jax.tree.leaves(got) for device in leaf.devices()} <= {DEVICE}
    assert_same_types(got, as_dtype(want, dtype))
    rtol = 1e-12 if dtype == jnp.float64 else STEPS * float(jnp.finfo(dtype).eps)
    if not all(error <= rtol * scale for error, scale in errors(got, want)):
        pairs = zip(errors(got, want), errors(run(case.reference), want), strict=True)
        for (error, scale), (of_reference, _) in pairs:
            assert error <= max(rtol * scale, ALLOWED * of_reference)
