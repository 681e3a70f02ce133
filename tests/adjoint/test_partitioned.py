"""A convolution on a mesh with explicit axes: refused by itself, computed by `partitioned`, in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax.adjoint import layout_of, partitioned
from tests.cases import assert_close, normal
from tests.conftest import DEVICES

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")


def conv(x, W):
    return jax.lax.conv_general_dilated(x, W, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))


def loose(x, W):
    return partitioned(conv, x, W, axes=(*layout_of(x)[:-1], layout_of(W)[-1]))


@pytest.fixture
def explicit():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        yield mesh


def operands():
    rng = np.random.default_rng(0)
    return normal(rng, 8, 5, 4), normal(rng, 3, 4, 6)


def laid_out(mesh, x, W):
    put = lambda value, *names: jax.device_put(value, NamedSharding(mesh, P(*names)))
    return put(x, "data"), put(W, None, None, "model")


def test_result_has_the_layout_that_was_asked(explicit):
    x, W = laid_out(explicit, *operands())
    with pytest.raises(Exception, match="output sharding"):
        jax.jit(conv)(x, W)
    y = jax.jit(loose)(x, W)
    assert layout_of(y) == ("data", None, "model")
    assert_close(y, conv(*operands()), 1e-12)


def test_every_mode(explicit):
    at = laid_out(explicit, *operands())

    def modes(f):
        def run(x, W):
            back = jax.vjp(f, x, W)[1]
            there = jax.jvp(f, (x, W), (x, W))[1]
            return back(there), jax.vmap(f, (None, 0))(x, jnp.stack([W, -W]))

        return run

    assert_close(jax.jit(modes(loose))(*at), modes(conv)(*operands()), 1e-12)


def test_inside_a_shard_map_over_some_axes(explicit):
    x, W = laid_out(explicit, *operands())
    f = jax.shard_map(loose, in_specs=(P("data"), P()), out_specs=P("data"), axis_names={"data"})
    y = jax.jit(f)(x, W)
    assert layout_of(y) == ("data", None, "model")
    assert_close(y, conv(*operands()), 1e-12)


def test_a_mesh_axis_is_used_once(explicit):
    x, W = laid_out(explicit, *operands())
    y = jax.jit(lambda x, W: partitioned(conv, x, W, axes=("data", "data", "model")))(x, W)
    assert layout_of(y) == ("data", None, "model")


def test_like_a_primal(explicit):
    x, W = laid_out(explicit, *operands())
    y = jax.jit(lambda x, W: partitioned(lambda x, W: 2 * W, x, W, like=W))(x, W)
    assert layout_of(y) == (None, None, "model")


def test_elsewhere_it_is_a_call():
    x, W = operands()
    assert layout_of(x) == (None, None, None)
    assert (loose(x, W) == conv(x, W)).all()
