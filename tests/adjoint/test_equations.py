"""A function as its equations: run one after the other they are the function, and their transposes are their VJPs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjax
from adjax.adjoint.equations import equations_of, transposed
from tests.cases import assert_close, normal

FUNCTIONS = {
    "affine": (adjax.affine, (((3, 5), (5,)), (8, 3))),
    "inside jit": (jax.jit(lambda x, y: jnp.sin(x @ y) / 3 - x[:, :2]), ((4, 3), (3, 2))),
    "nested jit": (lambda x: jax.jit(lambda x: jax.jit(jnp.cumsum)(x) + jnp.pad(x, 1)[1:-1])(x), ((6,),)),
    "a variable twice": (lambda x: x * x + x, ((4,),)),
    "loop": (lambda x: jax.lax.scan(lambda c, v: (c + v, c - v), x[0], x)[1], ((4, 3),)),
}
cases = pytest.mark.parametrize("name", FUNCTIONS)


def drawn(name, rng):
    f, shapes = FUNCTIONS[name]
    is_shape = lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x)
    return f, jax.tree.map(lambda shape: normal(rng, *shape), shapes, is_leaf=is_shape)


def run(f, args):
    """The values of all variables, by name."""
    inputs, equations, _ = equations_of(f, *args)
    values = {v.name: x for v, x in zip(inputs, jax.tree.leaves(args), strict=True)}
    for e in equations:
        results = e.run(*(values[v.name] for v in e.variables))
        values.update((r.name, y) for r, y in zip(e.results, results, strict=True))
    return values, equations


@cases
def test_run_in_order_they_are_the_function(name, rng):
    f, args = drawn(name, rng)
    values, equations = run(f, args)
    assert len(values) == len(jax.tree.leaves(args)) + sum(len(e.results) for e in equations)
    (y,) = equations_of(f, *args).outputs
    assert_close(values[y.name], f(*args), 1e-14)


@cases
def test_transposes_are_vjps(name, rng):
    """Of every equation that is linear in a variable; at least one is."""
    values, equations = run(*drawn(name, rng))
    checked = 0
    for e in equations:
        given = [values[v.name] for v in e.variables]
        cotangents = [normal(rng, *r.type.shape) for r in e.results]
        for i, variable in enumerate(e.variables):
            program = transposed(e, variable)
            if program is None:
                continue
            _, back = jax.vjp(lambda x, e=e, i=i, given=given: e.run(*given[:i], x, *given[i + 1 :]), given[i])
            got = jax.core.eval_jaxpr(program, [], *cotangents, *given)
            assert_close(got[0], back(cotangents)[0], 1e-14)
            checked += 1
    assert checked


def test_what_is_not_linear():
    x = np.ones(3)
    linear = lambda f: [transposed(e, v) is not None for e in equations_of(f, x).body for v in e.variables]
    assert linear(lambda x: jnp.exp(x)) == [False]
    assert linear(lambda x: x * x) == [False]
    assert linear(lambda x: -x) == [True]
