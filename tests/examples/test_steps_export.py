"""Both training steps, optimizer and all, are lowered for every platform, laid out over eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax.examples.digits import options as digits_options
from adjax.examples.digits import train as digits_train
from adjax.examples.digits.models import network
from adjax.examples.parallel.mesh import entered, put
from adjax.examples.parallel.options import MODES, mesh
from adjax.examples.text import options as text_options
from adjax.examples.text import train as text_train
from adjax.examples.text.decoder import SPELLED
from tests.conftest import DEVICES
from tests.sharing import shared

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

PLATFORMS = "cpu", "cuda", "tpu"


@pytest.fixture(autouse=True)
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def text(**options):
    of = text_options.Options(width=16, depth=2, heads=2, context=12, batch=8, **options)
    state = jax.eval_shape(functools.partial(text_train.init_state, of, 24))
    return text_train.make_step(of, SPELLED), state, jax.ShapeDtypeStruct((8, 13), jnp.int32)


def digits(**options):
    of = digits_options.Options(batch=8, **options)
    state = jax.eval_shape(functools.partial(digits_train.init_state, of))
    images = jax.ShapeDtypeStruct((8, 64), jnp.float32)
    return digits_train.make_step(of, network(of.model).spelled), state, images, jax.ShapeDtypeStruct((8,), jnp.int32)


STEPS = {
    "text": text,
    "text, bfloat16, remat": functools.partial(text, dtype="bfloat16", remat=True),
    "digits": digits,
    "digits, cnn": functools.partial(digits, model="cnn"),
}


@pytest.mark.parametrize("name", STEPS)
def test_export_for_every_platform(name):
    step, state, *batch = STEPS[name]()
    mesh = jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2)

    def placed(x, *axes):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P(*axes)))

    columns = lambda x: placed(x, *[None] * (x.ndim - 1), "model") if x.ndim and x.shape[-1] % 2 == 0 else placed(x)
    args = jax.tree.map(columns, state), *(placed(x, "data") for x in batch)
    exported = jax.export.export(step, platforms=PLATFORMS)(*args)
    assert exported.platforms == PLATFORMS
    assert exported.nr_devices == 8
    assert [x.shape for x in exported.out_avals[:-1]] == [x.shape for x in jax.tree.leaves(state)]
    layouts = exported.in_shardings_jax(mesh)
    expected = [x.sharding for x in jax.tree.leaves(args)]
    assert all(a.is_equivalent_to(b, x.ndim) for a, b, x in zip(layouts, expected, exported.in_avals, strict=True))


@pytest.mark.parametrize("mode", shared(MODES, name=str))
def test_export_as_the_program_lays_it_out(mode):
    axes = mesh("fsdp=2,sequence=2,model=2")
    of = text_options.Options(width=16, depth=2, heads=2, context=12, batch=8, mesh=axes, mode=mode)
    with entered(of):
        state, ids = text_train.init_state(of, 24), put(of, np.zeros((8, 13), np.int32))
        exported = jax.export.export(text_train.make_step(of, SPELLED), platforms=PLATFORMS)(state, ids)
    assert exported.nr_devices == 8
    layouts = exported.in_shardings_jax(ids.sharding.mesh)
    given = zip(jax.tree.leaves((state, ids)), layouts, strict=True)
    assert all(x.sharding.is_equivalent_to(layout, x.ndim) for x, layout in given)
    assert "collective_permute" in exported.mlir_module()
