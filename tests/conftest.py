"""JAX as strict as it gets, on eight simulated devices; one seed a test.

float64 is enabled, so every test names its dtypes; implicit dtype promotion raises. Implicit rank promotion stays
allowed, because the reference of the affine map is literally `X @ W + b`; that the layers themselves need none is a
test of its own.
"""

import gc
import os
import zlib

from tests.sharing import LATER, ours

os.environ.setdefault("JAX_PLATFORMS", "cpu")                     # the tests are about meaning, not about speed
if LATER:                                                         # earlier, a certificate at a saturated point differs
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import numpy as np
import pytest

DEVICES = 8

if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", DEVICES)               # child processes would inherit XLA_FLAGS
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
gc.set_threshold(50_000, 20, 100)                                   # tracing makes much garbage, and the heap is large


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests marked `shared`, this Python takes its own."""
    others = [item for item in items if item.get_closest_marker("shared") and not ours(item.nodeid)]
    config.hook.pytest_deselected(items=others)
    left_out = set(others)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Derived from the test's name: it differs from test to test and never from run to run."""
    seed = zlib.crc32(request.node.name.encode())
    print(f"seed = {seed}")                                         # pytest shows it where the test fails
    return seed


@pytest.fixture
def key(seed: int) -> jax.Array:
    """The random key of that seed."""
    return jax.random.key(seed)


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """NumPy's generator of that seed, for data: it compiles nothing."""
    return np.random.default_rng(seed)
