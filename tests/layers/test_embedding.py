"""embed: repeated ids, ids out of range, ids of every type, tied weights, a table in parts, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from adjax import einsum, embed
from tests.cases import assert_close, normal
from tests.conftest import DEVICES
from tests.layers.families.embedding import IDS, plain_embed


def test_repeated_ids_add_their_cotangents(rng):
    table, ids, u = normal(rng, 5, 3), jnp.asarray(rng.integers(0, 5, (4, 6))), normal(rng, 4, 6, 3)
    got = jax.vjp(lambda t: embed(t, ids), table)[1](u)[0]
    want = np.zeros((5, 3))
    np.add.at(want, np.asarray(ids), np.asarray(u))
    assert_close(got, want, 1e-14)


TYPES = [jnp.int8, jnp.uint8, jnp.int16, jnp.int32, jnp.uint32, jnp.int64, jnp.uint64]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.__name__)
def test_out_of_range_is_zero_and_has_no_gradient(dtype, rng):
    """Negative ids do not count from the end, and large ones do not wrap; a table longer than int8 counts."""
    info = jnp.iinfo(dtype)
    ids = jnp.asarray(np.array([0, info.min, 3, 3, info.max, min(2**32 + 1, info.max)], dtype))
    table, u = normal(rng, 4, 2), normal(rng, 6, 2)
    y, back = jax.vjp(lambda t: embed(t, ids), table)
    inside = np.array([True, info.min == 0, True, True, False, False])
    where = np.where(inside, np.asarray(ids).astype(np.int64), 0)
    assert_close(y, np.where(inside[:, None], np.asarray(table)[where], 0), 0)
    want = np.zeros((4, 2))
    np.add.at(want, where, np.where(inside[:, None], np.asarray(u), 0))
    assert_close(back(u)[0], want, 1e-14)
    long = jnp.zeros((300, 2), jnp.float32).at[100].set(1)
    assert embed(long, jnp.array([100], dtype)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_half_precision_sums_in_float32(dtype):
    """A bfloat16 sum of ones stops at 256, a float16 one at 2048."""
    table, ids = jnp.zeros((3, 2), dtype), jnp.ones(5000, jnp.int32)
    dE = jax.vjp(lambda t: embed(t, ids), table)[1](jnp.ones((5000, 2), dtype))[0]
    assert dE.dtype == dtype and dE.astype(jnp.float32).tolist() == [[0, 0], [float(dtype(5000))] * 2, [0, 0]]


def test_tied_weights(rng):
    """The table is the first layer and the last: its cotangent is the sum of both."""
    table = normal(rng, 5, 4)

    def logits(embed, project):
        return lambda table: jnp.sum(jnp.sin(project(jnp.tanh(embed(table, IDS)), table)))

    ours = logits(embed, lambda h, table: einsum("btd,vd->btv", h, table))
    plain = logits(plain_embed, lambda h, table: h @ table.T)
    assert_close(jax.grad(ours)(table), jax.grad(plain)(table), 1e-12)
    assert_close(jax.hessian(ours)(table), jax.hessian(plain)(table), 1e-12)


@pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")
@pytest.mark.parametrize("check_vma", [True, False])
def test_every_device_has_a_part_of_the_vocabulary(check_vma, rng):
    table, ids = normal(rng, 16, 3), jnp.asarray(rng.integers(0, 16, 7), jnp.int32)
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))

    def part(table):
        return jax.lax.psum(embed(table, ids - 2 * jax.lax.axis_index("model").astype(ids.dtype)), "model")

    whole = jax.shard_map(part, mesh=mesh, in_specs=P("model"), out_specs=P(), check_vma=check_vma)
    at = lambda f: (f(table), jax.grad(lambda t: jnp.sum(jnp.sin(f(t))))(table))
    assert_close(at(jax.jit(whole)), at(lambda t: plain_embed(t, ids)), 1e-12)


def test_vmap_over_tables_and_ids(rng):
    tables, ids = normal(rng, 3, 5, 2), jnp.asarray(rng.integers(-1, 6, (3, 4)))
    for axes in ((0, 0), (None, 0), (0, None)):
        args = [v if a == 0 else v[0] for v, a in zip((tables, ids), axes, strict=True)]
        ours, plain = (jax.jacrev(jax.vmap(f, axes)) for f in (embed, plain_embed))
        assert_close(ours(*args), plain(*args), 1e-12)


def test_residuals():
    table = jnp.ones((5, 3), jnp.float32)
    kept = jax.tree.leaves(jax.vjp(embed, table, IDS)[1])
    assert [(r.shape, r.dtype) for r in kept] == [(IDS.shape, IDS.dtype)]


@pytest.mark.parametrize(("V", "d", "n"), [(0, 3, (2,)), (0, 3, ()), (4, 0, (2,)), (1, 1, ()), (4, 3, (2, 0, 2))])
def test_sizes(V, d, n):
    f, table = lambda t: embed(t, jnp.zeros(n, jnp.int32)), jnp.ones((V, d), jnp.float32)
    y, back = jax.vjp(f, table)
    assert bool((jax.jvp(f, (table,), (table,))[1] == y).all())
    assert y.shape == (*n, d) and back(y)[0].shape == (V, d) and bool((y == float(V > 0)).all())
