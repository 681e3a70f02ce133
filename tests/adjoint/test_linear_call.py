"""linear_call: neither map need be transposable, and the pair stays exact under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import linear_call

F64 = jnp.float64
R, X, V = (jax.random.normal(jax.random.key(i), (3,), F64) for i in range(3))


def thrice(v):
    """8 v, through a loop that JAX cannot transpose."""
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, v))[1]


def looped(r, x):
    """8 r x, each map a loop."""
    return linear_call(lambda r, x: thrice(r * x), lambda r, y: thrice(r * y), r, x)


def product(r, x):
    return linear_call(lambda r, x: r * x, lambda r, y: r * y, r, x)


def check_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_neither_map_needs_a_transpose_of_its_own(transform):
    check_close(transform(looped)(R, X), 8 * R * X)
    check_close(transform(lambda r, x: jax.vjp(lambda x: looped(r, x), x)[1](V)[0])(R, X), 8 * R * V)
    check_close(transform(lambda r, x: jax.jvp(lambda x: looped(r, x), (x,), (V,))[1])(R, X), 8 * R * V)
    check_close(transform(lambda r, x: jax.jvp(lambda r: looped(r, x), (r,), (V,))[1])(R, X), 8 * V * X)
    twice = lambda r, x: jax.linear_transpose(lambda v: jax.linear_transpose(lambda x: looped(r, x), x)(v)[0], x)(x)[0]
    check_close(transform(twice)(R, X), 8 * R * X)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, None), (None, 1)])
def test_batches_over_any_operand(axes):
    r, x = (R if a is None else jnp.stack([R, V], axis=a) for a in axes[:1]), None
    r = next(r)
    x = X if axes[1] is None else jnp.stack([X, -V], axis=axes[1])
    check_close(jax.vmap(looped, axes)(r, x), jax.vmap(lambda r, x: 8 * r * x, axes)(r, x))

    def shared(f):  # the cotangent of a shared x is the sum over the batch
        return jax.grad(lambda r, x: jnp.sin(jax.vmap(f, axes)(r, x)).sum(), 1)(r, x)

    check_close(shared(looped), shared(lambda r, x: 8 * r * x))


def test_differentiates_in_its_residuals():
    for argument in (0, 1):
        got = jax.hessian(lambda r, x: jnp.sin(product(r, x)).sum(), (0, 1))(R, X)
        want = jax.hessian(lambda r, x: jnp.sin(r * x).sum(), (0, 1))(R, X)
        for other in (0, 1):
            check_close(got[argument][other], want[argument][other])


def test_transposes_in_a_residual_where_it_is_linear_there():
    pull = lambda r: jax.vjp(lambda x: product(r, x), X)[1](V)[0]
    check_close(jax.linear_transpose(pull, R)(X)[0], V * X)


def test_the_adjoint_given_is_the_adjoint_used():
    odd = lambda x: linear_call(lambda _, x: x, lambda _, y: 3 * y, None, x)
    check_close(jax.grad(lambda x: odd(x).sum())(X), jnp.full(3, 3.0))


def test_pytrees_none_and_several_blocks():
    fun = lambda r, x: {"s": r * x[0] + x[1], "d": x[0] - x[1]}
    adjoint = lambda r, y: (r * y["s"] + y["d"], y["s"] - y["d"])
    f = lambda a, b: linear_call(fun, adjoint, R, (a, b))
    for pick in ("s", "d"):  # one output, one input: the other blocks are left out
        got = jax.linear_transpose(lambda a, pick=pick: f(a, X)[pick] - f(0 * X, X)[pick], X)(V)[0]
        check_close(got, R * V if pick == "s" else V)
        jac = jax.jacrev(lambda b, pick=pick: jnp.sin(f(X, b)[pick]))(V)
        check_close(jac, jax.jacfwd(lambda b, pick=pick: jnp.sin(fun(R, (X, b))[pick]))(V))


def test_closes_over_tracers():
    scaled = lambda s: jax.grad(lambda x: linear_call(lambda _, x: s * x, lambda _, y: s * y, None, x).sum())(X)
    check_close(jax.jit(scaled)(jnp.array(2.0)), jnp.full(3, 2.0))
    check_close(jax.vmap(scaled)(R), jnp.outer(R, jnp.ones(3)))


def test_scan_and_remat():
    def loss(f, r, x):
        body = jax.checkpoint(lambda c, _: (jnp.sin(f(r, c)), None))
        return jax.lax.scan(body, x, length=4)[0].sum()

    got = jax.jit(jax.grad(lambda r, x: loss(product, r, x), (0, 1)))(R, X)
    want = jax.grad(lambda r, x: loss(lambda r, x: r * x, r, x), (0, 1))(R, X)
    check_close(got[0], want[0])
    check_close(got[1], want[1])


def test_bad_maps_are_named():
    same = lambda r, x: x
    with pytest.raises(TypeError, match="linear_call: x must be floating, got a leaf of dtype int"):
        linear_call(same, same, None, jnp.arange(3))
    with pytest.raises(TypeError, match="linear_call: fun's output must be floating"):
        linear_call(lambda r, x: x.astype(jnp.int32), same, None, X)
    with pytest.raises(TypeError, match="adjoint must return a cotangent of x's structure"):
        linear_call(same, lambda r, y: (y, y), None, X)
    with pytest.raises(TypeError, match=r"adjoint returned shape \(\) for an x of"):
        linear_call(same, lambda r, y: y.sum(), None, X)
