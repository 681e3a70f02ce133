"""Questions that cannot be answered are answered with what is wrong and what to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import certify
from adjax.certify import BadInput

x = np.arange(1.0, 4.0, dtype=np.float32)


def raising(x):
    raise RuntimeError("the disk is on fire")


def negated(x):
    return -x


def branching(x):
    return x if x.sum() > 0 else -x


def sized(n, x):
    return x[: int(n)]


def looping(x):
    return jax.lax.while_loop(lambda c: c[0] < 3.0, lambda c: (c[0] + 1.0, 2.0 * c[1]), (0.0, x))[1]


@pytest.mark.parametrize(
    "f, args, options, said",
    [
        (3, (x,), {}, "expected a function, got int"),
        (jnp.sin, (x,), {"reference": 3}, "reference must be a function, got int"),
        (negated, (np.arange(3),), {}, "negated has no floating argument to differentiate, got x: int64"),
        (lambda: x, (), {}, "<lambda> has no floating argument to differentiate, got no argument"),
        (raising, (x,), {}, "raising raises at the given arguments: RuntimeError: the disk is on fire"),
        (branching, (x,), {}, "branching needs the value of a traced argument (TracerBoolConversionError)"),
        (sized, (np.int32(2), x), {}, "pass that argument as a Python value"),
        (lambda x: "no array", (x,), {}, "returns something that is no array"),
        (jnp.argmax, (x,), {}, "argmax returns no floating array to differentiate, it returns i64[]"),
        (lambda x: (), (x,), {}, "<lambda> returns no floating array to differentiate, it returns nothing"),
        (jnp.sin, (np.array([1.0, np.nan], np.float32),), {}, "x is nan at [1]; give it finite values"),
        (jnp.log, (-x,), {}, "log returns NaN at the given point (output f32[3]): choose a point inside its domain"),
        (jnp.sin, (x,), {"argnums": 1}, "argnums names argument 1, but 1 arguments were given"),
        (jnp.sin, (x,), {"laws": ["truth"]}, "unknown law 'truth'; there are structure, forward, linear, adjoint"),
        (jnp.sin, (x,), {"contexts": ["pmap"]}, "unknown context 'pmap'; there are eager, jit, vmap"),
        (jnp.sin, (x,), {"waive": "all"}, "unknown law or context to waive 'all'"),
    ],
)
def test_bad_input(f, args, options, said):
    with pytest.raises(BadInput) as raised:
        certify(f, *args, **options)
    assert str(raised.value).startswith("certify: ") and said in str(raised.value)


def test_a_static_argument_may_be_bound_or_given():
    at_two = functools.partial(sized, 2)
    assert certify(at_two, x, laws=["adjoint"], contexts=[]).ok
    assert certify(sized, 2, x, laws=["adjoint"], contexts=[]).ok


def test_a_function_without_reverse_mode_is_refuted_in_the_words_of_jax():
    certificate = certify(looping, x)
    assert [f.law for f in certificate.failures] == ["structure"]
    assert "Reverse-mode differentiation does not work" in certificate.failures[0].message


def test_a_function_that_is_random_without_a_key():
    rng = np.random.default_rng(0)
    noisy = jax.custom_vjp(lambda x: x * 1.0)
    noisy.defvjp(lambda x: (x * 1.0, None), lambda _, u: (u * np.float32(rng.standard_normal()),))
    certificate = certify(noisy, x)
    assert "pure" in {f.law for f in certificate.failures}
    assert any("not deterministic" in f.diagnosis for f in certificate.failures)
