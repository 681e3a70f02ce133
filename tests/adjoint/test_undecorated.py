"""Custom rules are opened at every depth, and derivatives withheld one equation at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import any_mode
from adjax.adjoint.undecorated import equations, narrowest, undecorated, withheld


def wrong(x):
    """x² with a derivative of 7."""
    return x * x


wrong = jax.custom_vjp(wrong)
wrong.defvjp(lambda x: (x * x, None), lambda _, u: (7.0 * u,))


@jax.custom_jvp
def wrong_jvp(x):
    return x * x


wrong_jvp.defjvp(lambda x, v: (x[0] * x[0], 7.0 * v[0]))


def branch(f, x):
    return jax.lax.cond(x.sum() > 0, f, lambda x: x, x)


def loop(f, x):
    return jax.lax.scan(lambda c, t: (c + f(t), f(c)), jnp.asarray(0.5, x.dtype), x)


PLACES = {
    "alone": lambda f, x: f(x),
    "jit": lambda f, x: jax.jit(f)(x),
    "scan": loop,
    "cond": branch,
    "remat": lambda f, x: jax.checkpoint(f)(x),
    "vmap": lambda f, x: jax.vmap(f)(x),
    "while": lambda f, x: jax.lax.fori_loop(0, 3, lambda _, c: f(c), x),
    "nested": lambda f, x: jax.jit(lambda x: loop(lambda t: jax.checkpoint(f)(t), x))(x),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rule", [wrong, wrong_jvp, any_mode(wrong)], ids=["custom_vjp", "custom_jvp", "any_mode"])
def test_rules_are_opened_wherever_they_stand(place, rule, rng):
    x = jnp.asarray(rng.uniform(0.5, 1.0, 4), jnp.float32)

    def total(f):
        return lambda x: sum(jnp.sum(y) for y in jax.tree.leaves(PLACES[place](f, x)))

    want = jax.grad(total(lambda x: x * x))(x)
    got = jax.grad(undecorated(total(rule)))(x)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(undecorated(total(rule)))(x), total(lambda x: x * x)(x), rtol=1e-6)
    assert not np.allclose(jax.grad(total(rule))(x), want)


def test_python_values_stay_python_values():
    f = undecorated(lambda n, x: sum(wrong(x) for _ in range(n)))
    assert float(jax.grad(f, 1)(3, 2.0)) == 12.0


def test_a_derivative_is_withheld(rng):
    x = jnp.asarray(rng.standard_normal(5), jnp.float32)
    names, stopped = withheld(lambda x: x * jax.nn.sigmoid(x), x)
    assert names == ["logistic", "mul"]
    np.testing.assert_allclose(jax.jacobian(lambda x: stopped(0, x))(x), np.diag(jax.nn.sigmoid(x)), rtol=1e-6)
    assert not jax.jacobian(lambda x: stopped(1, x))(x).any()
    np.testing.assert_array_equal(stopped(0, x), x * jax.nn.sigmoid(x))


def test_the_narrowest_dtype_is_found_inside_loops():
    def f(x):
        return jax.lax.scan(lambda c, t: (c + t.astype(jnp.float16).astype(c.dtype), None), x[0], x)[0]

    x = jnp.ones(3, jnp.float64)
    assert narrowest(f, x) == float(jnp.finfo(jnp.float16).eps)
    assert narrowest(jnp.sin, x) == float(jnp.finfo(jnp.float64).eps)
    assert narrowest(lambda x: x > 0, x) == 0.0
    assert {e.primitive.name for e in equations(jax.make_jaxpr(f)(x))} >= {"scan", "convert_element_type", "add"}
