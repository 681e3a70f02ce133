"""softmax and log_softmax where they could go wrong: masks, infinities, axes of size 0 and 1, half precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import log_softmax, softmax
from tests.cases import assert_close, normal

EACH = pytest.mark.parametrize(("layer", "of_nothing"), [(softmax, 0.0), (log_softmax, -np.inf)])
NAN, INF = np.nan, np.inf


def shapes_kept(f, *args):
    return [r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1]) if np.shape(r)]


@pytest.mark.parametrize(("layer", "rows"), [(softmax, []), (log_softmax, [(3, 1), (3, 1)])])
def test_residuals(layer, rows, rng):
    """Of softmax the result; of log_softmax x and two statistics a row; and the mask."""
    x, mask = normal(rng, 3, 5), jnp.arange(5) < 3
    assert sorted(shapes_kept(layer, x)) == sorted([(3, 5), *rows])
    assert sorted(shapes_kept(partial(layer, where=mask), x)) == sorted([(1, 5), (3, 5), *rows])


@EACH
def test_rows_of_nothing_have_no_gradient(layer, of_nothing):
    """All masked, whatever is there, and all −∞."""
    x = jnp.array([[NAN, INF], [-INF, -INF], [1.0, NAN]])
    y, back = jax.vjp(partial(layer, where=jnp.array([[False], [True], [False]])), x)
    assert (y == of_nothing).all()
    (dx,) = back(jnp.ones_like(x))
    assert (dx[jnp.array([0, 2])] == 0).all() and (layer is log_softmax or (dx == 0).all())


@EACH
def test_what_is_masked_is_never_read(layer, of_nothing, rng):
    x, u = normal(rng, 3, 4), normal(rng, 3, 4)
    mask = jnp.array([True, False, True, True])
    y, back = jax.vjp(partial(layer, where=mask), x.at[:, 1].set(NAN))
    want, back_of_the_rest = jax.vjp(layer, x[:, mask])
    (dx,) = back(u.at[:, 1].set(INF))
    assert_close((y[:, mask], dx[:, mask]), (want, back_of_the_rest(u[:, mask])[0]), 1e-14)
    assert (y[:, 1] == of_nothing).all() and (dx[:, 1] == 0).all()


@EACH
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_bad_entry_spoils_its_row_alone(layer, of_nothing, bad):
    y = layer(jnp.array([[0.0, bad], [0.0, 0.0]]))
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()


@EACH
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (3, 1)], ids=str)
def test_axes_of_size_0_and_1(layer, of_nothing, shape):
    x = jnp.full(shape, 7.0)
    y, back = jax.vjp(layer, x)
    assert y.shape == shape and (y == (1.0 if layer is softmax else 0.0)).all()
    assert (back(y + 1)[0] == jnp.zeros(shape)).all()


@EACH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_rounded_once(layer, of_nothing, dtype, rng):
    x, u = (8 * normal(rng, 4, 300)).astype(dtype), normal(rng, 4, 300).astype(dtype)
    y, back = jax.vjp(layer, x)
    want, want_back = jax.vjp(layer, x.astype(jnp.float64))
    (dx,), (want_dx,) = back(u), want_back(u.astype(jnp.float64))
    assert y.dtype == dx.dtype == dtype
    assert_close((y, dx), (want, want_dx), float(2 * jnp.finfo(dtype).eps))


def test_large_and_distant_entries():
    x = jnp.array([1e30, 0.0, -1e30], jnp.float32)
    assert softmax(x).tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(log_softmax(x), np.float32([0, -1e30, -2e30]))
