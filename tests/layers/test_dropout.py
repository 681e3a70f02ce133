"""dropout: one mask everywhere, its distribution, keys old and new, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from adjax import dropout
from tests.cases import assert_close, normal
from tests.conftest import DEVICES
from tests.layers.families.dropout import plain_dropout

NEW = {impl: jax.random.key(3, impl=impl) for impl in ("threefry2x32", "rbg")}
KEYS = {**NEW, "old": jax.random.PRNGKey(3)}
each_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


@each_key
def test_same_mask_forwards_backwards_and_for_tangents(key, rng):
    x, u = normal(rng, 6, 7), normal(rng, 6, 7)
    y, back = jax.vjp(lambda x: dropout(key, x, 0.4), x)
    M = plain_dropout(key, jnp.ones_like(x), 0.4)
    assert 0 < np.count_nonzero(M) < M.size
    assert_close((y, back(u)[0]), (M * x, M * u), 1e-15)
    assert_close(jax.jvp(lambda x: dropout(key, x, 0.4), (x,), (u,)), (M * x, M * u), 1e-15)
    assert_close(jax.linear_transpose(lambda x: dropout(key, x, 0.4), x)(u)[0], M * u, 1e-15)


@each_key
def test_the_key_is_an_argument_like_any_other(key, rng):
    """Under jit, grad of x with the key traced, remat, and scan over keys."""
    x = normal(rng, 5)
    L = lambda key, x: jnp.sum(jnp.sin(dropout(key, x, 0.5)))
    plain = lambda key, x: jnp.sum(jnp.sin(plain_dropout(key, x, 0.5)))
    grads = (jax.jit(jax.grad(f, 1)) for f in (L, jax.checkpoint(L)))
    for grad in grads:
        assert_close(grad(key, x), jax.grad(plain, 1)(key, x), 1e-12)
    keys = jax.random.split(key, 3)
    total = lambda f: lambda x: jax.lax.scan(lambda s, k: (s + f(k, x), None), jnp.zeros((), x.dtype), keys)[0]
    assert_close(jax.hessian(total(L))(x), jax.hessian(total(plain))(x), 1e-12)


@pytest.mark.parametrize("key", [NEW["threefry2x32"], KEYS["old"]], ids=["new", "old"])
def test_vmap_over_keys(key, rng):
    """One mask an example where the keys are batched, one for all where they are not."""
    keys, x = jax.random.split(key, 4), normal(rng, 4, 9)
    for axes, at in [((0, 0), (keys, x)), ((0, None), (keys, x[0])), ((None, 0), (key, x))]:
        losses = (lambda k, x, f=f: jnp.sum(jnp.sin(f(k, x, 0.5))) for f in (dropout, plain_dropout))
        got, want = (jax.vmap(jax.value_and_grad(L, 1), axes)(*at) for L in losses)
        assert_close(got, want, 1e-12)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95])
def test_as_many_fall_as_the_rate_says_and_the_mean_stays(rate):
    """Within five standard deviations."""
    n = 200_000
    y = np.asarray(dropout(KEYS["threefry2x32"], jnp.ones(n, jnp.float32), rate))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - rate))}
    assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)


def test_scaling_in_half_precision_is_rounded_once():
    """1/0.9 in bfloat16 would be off by 1/500 for all entries alike."""
    x = jnp.full(4096, 9, jnp.bfloat16)
    y = dropout(KEYS["old"], x, 0.1)
    assert set(np.unique(np.asarray(y, np.float32))) == {0.0, 10.0}


def test_rates_at_the_ends():
    x = jnp.ones(1000, jnp.float32)
    assert bool((dropout(KEYS["old"], x, 0.0) == x).all()) and bool((dropout(KEYS["old"], x, 0) == x).all())
    nearly_all = dropout(KEYS["old"], x, 1 - 2**-40)
    assert np.isfinite(nearly_all).all() and np.count_nonzero(nearly_all) == 0


def test_residuals():
    x = jnp.ones((50, 20), jnp.float32)
    for key in (NEW["threefry2x32"], KEYS["old"]):
        kept = jax.tree.leaves(jax.vjp(lambda x, key=key: dropout(key, x, 0.5), x)[1])
        assert [(r.shape, r.dtype.name) for r in kept] == [((2,), "uint32")]


@pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")
@pytest.mark.parametrize("check_vma", [True, False])
def test_a_mask_of_its_own_on_every_device(check_vma, rng):
    x, key = normal(rng, 8, 6), NEW["threefry2x32"]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def on_device(x):
        return dropout(jax.random.fold_in(key, jax.lax.axis_index("data")), x, 0.5)

    whole = jax.shard_map(on_device, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=check_vma)
    plain = lambda x: jnp.concatenate([plain_dropout(jax.random.fold_in(key, i), x[i : i + 1], 0.5) for i in range(8)])
    run = lambda f: (f(x), jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))(x))
    assert_close(run(jax.jit(whole)), run(plain), 1e-12)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 1)])
def test_sizes(shape):
    y, back = jax.vjp(lambda x: dropout(KEYS["old"], x, 0.5), jnp.ones(shape, jnp.float32))
    assert y.shape == back(y)[0].shape == shape
