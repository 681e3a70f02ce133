"""ring_attention: the whole text of each error, before anything is compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from adjax import ring_attention

TIME = P(None, "time")
Q, K, V = jnp.zeros((2, 6, 4, 3)), jnp.zeros((2, 6, 2, 3)), jnp.zeros((2, 6, 2, 7))


def traced(*args, specs=(TIME, TIME, TIME), **options):
    """The layer on two devices, each with half of the time."""
    mesh = jax.make_mesh((2,), ("time",), axis_types=(AxisType.Auto,))
    f = partial(ring_attention, **{"axis_name": "time", **options})
    return jax.eval_shape(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=TIME), *args)


pytestmark = pytest.mark.skipif(jax.device_count() < 2, reason="needs 2 devices")


@pytest.mark.parametrize(
    ("given", "options", "text"),
    [
        ((Q, K, V), {"axis_name": "tiem"}, "axis_name='tiem' is no axis of an enclosing jax.shard_map"),
        ((Q, K, V), {"axis_name": None}, "axis_name=None is no axis of an enclosing jax.shard_map"),
        ((Q, K, V), {"axis_name": ["time", "data"]},
         "axis_name=('time', 'data') is no axis of an enclosing jax.shard_map"),
        ((Q, K, V), {"specs": (TIME, P(), P())},
         "s of k must be sharded over axis_name='time', but k (shape (2, 6, 2, 3)) is one and the same on all its "
         "devices"),
        ((Q[0], K, V), {"specs": (P(), TIME, TIME)}, "q must have the axes (b, t, h, d), got shape (6, 4, 3)"),
        ((Q, K[..., :2], V), {}, "q has d=3 features (shape (2, 3, 4, 3)) but k has d=2 (shape (2, 3, 2, 2))"),
        ((Q, K, V[:, :4]), {},
         "k has s=3 keys of g=2 heads (shape (2, 3, 2, 3)) but v has s=2 of g=2 (shape (2, 2, 2, 7))"),
        ((Q[:, :, :3], K, V), {},
         "the h=3 heads of q (shape (2, 3, 3, 3)) are no multiple of the g=2 heads of k (shape (2, 3, 2, 3))"),
        ((Q[:, :4], K, V), {"causal": True},
         "causal needs as many keys as queries on a device, got t=2 (shape (2, 2, 4, 3)) and s=3 (shape (2, 3, 2, 3))"),
        ((Q, K, V), {"softcap": 0.0}, "softcap must be positive, got 0.0"),
    ],
)  # fmt: skip
def test_values(given, options, text):
    with pytest.raises(ValueError) as error:
        traced(*given, **options)
    assert str(error.value) == f"ring_attention: {text}"


def test_outside_a_shard_map():
    with pytest.raises(ValueError) as error:
        ring_attention(Q, K, V, axis_name="time")
    assert str(error.value) == "ring_attention: axis_name='time' is no axis of an enclosing jax.shard_map"


def test_types():
    with pytest.raises(TypeError) as error:
        traced(Q, K, V.astype(jnp.int32))
    assert str(error.value) == "ring_attention: v must be floating, got dtype int32 (shape (2, 3, 2, 7))"
