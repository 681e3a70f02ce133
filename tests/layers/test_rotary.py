"""rotary: a rotation and its inverse, positions of every kind, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import rotary
from tests.cases import as_dtype, assert_close, normal
from tests.layers.families.rotary import plain_rotary


def test_pairs_are_complex_numbers_that_are_turned(rng):
    x, positions = normal(rng, 5, 2, 6), jnp.arange(5)
    y = rotary(x, positions, base=100.0)
    theta = np.arange(5)[:, None, None] * 100.0 ** (-np.arange(3) / 3)
    want = (np.asarray(x)[..., :3] + 1j * np.asarray(x)[..., 3:]) * np.exp(1j * theta)
    assert_close(y, np.concatenate([want.real, want.imag], -1), 1e-14)


def test_the_adjoint_is_the_inverse(rng):
    x, positions = normal(rng, 5, 2, 6), jnp.asarray(rng.integers(0, 1000, 5))
    y, back = jax.vjp(lambda x: rotary(x, positions), x)
    assert_close(back(y)[0], x, 1e-14)
    assert_close(back(x)[0], rotary(x, -positions), 1e-14)


def test_scores_depend_on_the_difference_of_positions(rng):
    q, k = normal(rng, 4, 1, 8), normal(rng, 4, 1, 8)
    scores = lambda first: jnp.einsum("thd,shd->ts", rotary(q, first + jnp.arange(4)), rotary(k, first + jnp.arange(4)))
    assert_close(scores(0), scores(37), 1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (2, 3)])
def test_positions_broadcast(shape, rng):
    """Integers and floating ones alike; the cotangent of the latter is un-broadcast."""
    x, u, positions = normal(rng, 2, 3, 2, 4), normal(rng, 2, 3, 2, 4), jnp.asarray(rng.integers(0, 9, shape))
    want, back = jax.vjp(plain_rotary, x, positions.astype(jnp.float64))
    assert_close(rotary(x, positions), want, 1e-12)
    y, ours = jax.vjp(rotary, x, positions.astype(jnp.float64))
    assert_close((y, ours(u)), (want, back(u)), 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_half_precision_turns_by_angles_in_float32(dtype, rng):
    """A bfloat16 position would be wrong by whole turns beyond 256."""
    x, positions = normal(rng, 3, 2, 4), jnp.array([1, 999, 4001])
    y, back = jax.vjp(lambda x: rotary(x, positions), as_dtype(x, dtype))
    assert y.dtype == dtype and back(y)[0].dtype == dtype
    tolerance = 2 * float(jnp.finfo(dtype).eps) + 4001 / 2**24
    assert_close(y, plain_rotary(x, positions), tolerance)
    assert_close(back(as_dtype(x, dtype))[0], plain_rotary(x, -positions), tolerance)


def test_residuals():
    x, whole = jnp.ones((3, 2, 4), jnp.float32), jnp.arange(3, dtype=jnp.int32)
    kept = lambda f, *args: [r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1])]
    assert kept(lambda x: rotary(x, whole), x) == [(3,)]
    assert kept(lambda x: rotary(x, whole.astype(jnp.float32)), x) == [(3,)]
    assert kept(lambda p: rotary(x, p), whole.astype(jnp.float32)) == [x.shape, (3,)]


def test_vmap_over_positions(rng):
    x, positions = normal(rng, 3, 2, 4), jnp.asarray(rng.integers(0, 9, (5, 3)))
    got = jax.vmap(rotary, (None, 0))(x, positions)
    assert_close(got, jnp.stack([plain_rotary(x, p) for p in positions]), 1e-12)


@pytest.mark.parametrize("shape", [(0, 2, 4), (3, 0, 4), (3, 2, 0), (1, 1, 2)])
def test_sizes(shape):
    x = jnp.ones(shape, jnp.float32)
    y, back = jax.vjp(lambda x: rotary(x, jnp.arange(shape[0])), x)
    assert y.shape == back(y)[0].shape == shape
