"""A probe changes nothing, and reports what passes forward and back, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import probe, record_probes
from tests.cases import assert_close, assert_same_types, normal


def f(x, seen=lambda name, x: x):
    h = seen("h", jnp.sin(x))
    return jnp.sum(h**3)


TRANSFORMATIONS = {
    "value": lambda f, x, v: f(x),
    "grad": lambda f, x, v: jax.grad(f)(x),
    "jit": lambda f, x, v: jax.jit(jax.value_and_grad(f))(x),
    "jvp": lambda f, x, v: jax.jvp(f, (x,), (v,)),
    "hessian": lambda f, x, v: jax.hessian(f)(x),
    "reverse over reverse": lambda f, x, v: jax.jacrev(jax.grad(f))(x),
    "vmap of grad": lambda f, x, v: jax.vmap(jax.grad(f))(jnp.stack([x, v])),
    "checkpoint": lambda f, x, v: jax.grad(jax.checkpoint(f))(x),
    "scan": lambda f, x, v: jax.grad(lambda x: jax.lax.scan(lambda c, t: (c + f(c * x), None), 1.0, v)[0])(x),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_nothing_changes(name, rng):
    x, v = normal(rng, 5), normal(rng, 5)
    with record_probes() as seen:
        got = TRANSFORMATIONS[name](lambda x: f(x, probe), x, v)
    want = TRANSFORMATIONS[name](f, x, v)
    assert_same_types(got, want)
    assert_close(got, want, 1e-14)
    assert seen["h"].value.entries > 0


def test_statistics(rng):
    x = normal(rng, 3, 4, dtype=jnp.float32).at[0, :2].set(0)
    u = normal(rng, 3, 4, dtype=jnp.float32)
    with record_probes() as seen:
        jax.jit(jax.grad(lambda x: jnp.sum(u * probe("x", x))))(x)
    for sums, array in ((seen["x"].value, x), (seen["x"].cotangent, u)):
        assert (sums.entries, sums.zeros, sums.finite) == (12, np.sum(np.asarray(array) == 0), 12)
        rms = np.sqrt(np.mean(np.square(array)))
        np.testing.assert_allclose((sums.mean, sums.rms), (np.mean(array), rms), rtol=1e-6)
        np.testing.assert_allclose(sums.largest, np.max(np.abs(array)), rtol=1e-7)


def test_reports_of_a_scan_and_of_a_vmap_add_up(rng):
    x = normal(rng, 4, 3)

    def loss(x):
        return jnp.sum(jax.lax.scan(lambda c, _: (probe("step", jnp.sin(c)), None), x, None, length=5)[0])

    with record_probes() as seen:
        jax.jit(jax.vmap(jax.grad(loss)))(x)
    assert seen["step"].value.entries == seen["step"].cotangent.entries == 4 * 3 * 5


def test_recorders_that_have_seen_the_same_are_told_apart():
    with record_probes() as outer:
        with record_probes() as inner:
            pass
        probe("x", jnp.ones(2))
    assert list(outer) == ["x"] and not inner


def test_half_precision_and_what_is_not_finite():
    x = jnp.array([1e30, jnp.inf, jnp.nan, 1], jnp.bfloat16)
    with record_probes() as seen:
        y = probe("x", x)
    assert y.dtype == x.dtype and seen["x"].value.finite == 2 and seen["x"].cotangent.entries == 0


def test_who_records_gets_what_happens_meanwhile():
    step = jax.jit(lambda x: probe("x", x))
    step(jnp.ones(2))                                               # compiled, and heard by nobody
    with record_probes() as outer:
        step(jnp.ones(2))
        with record_probes() as inner:
            step(jnp.ones(2))
    step(jnp.ones(2))
    jax.effects_barrier()
    assert (outer["x"].value.entries, inner["x"].value.entries) == (4, 2)
    assert list(inner) == ["x"] and len(inner) == 1
    assert str(inner).splitlines()[1].split() == ["x", "value", "2", "1", "1", "1", "0%", "100%"]


@pytest.mark.parametrize(("name", "x", "message"), [
    (3, np.ones(2, np.float32), "name must be a string, got int"),
    ("n", np.arange(2), r"'n' must be real floating, got dtype int64 \(shape \(2,\)\)"),
    ("z", np.ones(2, complex), "'z' must be real floating, got dtype complex128"),
])  # fmt: skip
def test_bad_input(name, x, message):
    with pytest.raises(TypeError, match=f"probe: {message}"):
        probe(name, x)
