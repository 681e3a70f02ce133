"""Every layer's derivatives are lowered for every platform, go through a file, and come back the same on this one."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import as_dtype, assert_close, normal_like
from tests.layers.families import MAIN, VARIANTS

pytestmark = pytest.mark.shared


def programs(case, u):
    """Forward and backward, and forward mode."""
    return {
        "reverse": lambda *args: jax.vjp(case.function, *args)[1](u),
        "forward": lambda *args: jax.jvp(case.function, args, args),
    }


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("case", [*MAIN, *VARIANTS], ids=repr)
def test_export_for_every_platform(case, mode):
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    args = as_dtype(case.arguments(rng), jnp.float32)
    u = normal_like(rng, jax.eval_shape(case.function, *args))
    program = jax.jit(programs(case, u)[mode])
    leaves, tree = jax.tree.flatten(args)                       # our NamedTuples are unknown to the file's reader
    flat = jax.jit(lambda *leaves: jax.tree.leaves(program(*tree.unflatten(leaves))))
    exported = jax.export.export(flat, platforms=["cpu", "cuda", "tpu"])(*leaves)
    again = jax.export.deserialize(exported.serialize())
    assert again.platforms == ("cpu", "cuda", "tpu")
    assert_close(again.call(*leaves), flat(*leaves), 1e-5)
