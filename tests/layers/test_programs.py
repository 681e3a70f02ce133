"""affine inside whole programs: loops, solvers, donated buffers, exported artefacts; each beside plain JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.sparse.linalg import cg

from adjax import AffineParams, affine

F64 = jnp.float64


def plain(params, X):
    return X @ params[0] + params[1]


def normal(seed, *shape, dtype=F64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def check_close(a, b, rtol=1e-12):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(np.ravel(x) - np.ravel(y)) <= rtol * np.linalg.norm(np.ravel(y))


PARAMS, X, U = AffineParams(normal(0, 5, 3), normal(1, 3)), normal(2, 4, 5), normal(3, 4, 3)


def gradient(f, params, X):
    return jax.grad(lambda params, X: (jnp.sin(f(params, X)) * U).sum(), (0, 1))(params, X)


@pytest.mark.parametrize("remat", [False, True], ids=["kept", "rematerialised"])
def test_scan_over_64_layers(remat):
    layers = AffineParams(normal(4, 64, 5, 5) / 5**0.5, normal(5, 64, 5))

    def deep(f, layers, X):
        body = lambda x, layer: (jnp.tanh(f(layer, x)), None)
        return jax.lax.scan(jax.checkpoint(body) if remat else body, X, layers)[0].sum()

    def derivatives(f):
        run = partial(deep, f)
        return jax.grad(run, (0, 1))(layers, X), jax.jvp(run, (layers, X), (layers, X))

    check_close(jax.jit(partial(derivatives, affine))(), jax.jit(partial(derivatives, plain))(), 1e-11)


def test_while_loop_forward():
    square = AffineParams(normal(6, 5, 5) / 3, normal(7, 5))

    def iterate(f, X):
        return jax.lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, f(square, c[1])), (0, X))[1]

    for run in (lambda g: g, jax.jit):
        got, want = (jax.jvp(run(partial(iterate, f)), (X,), (X[::-1],)) for f in (affine, plain))
        check_close(got, want)


def normal_equations(f, W, y):
    """(W Wᵀ + I) x = y, solved with nothing but the map x ↦ x W and its transpose."""
    there = lambda x: f((W, None), x) if f is affine else x @ W
    back = jax.linear_transpose(there, y)
    return lambda x: back(there(x))[0] + x


def test_conjugate_gradients():
    def solve(f, W, y):
        return cg(normal_equations(f, W, y), y, tol=1e-14, maxiter=50)[0]

    got, want = (jax.value_and_grad(lambda W, f=f: jnp.sin(solve(f, W, X[0])).sum())(PARAMS.W) for f in (affine, plain))
    check_close(got, want, 1e-9)
    check_close(solve(affine, PARAMS.W, X[0]), jnp.linalg.solve(PARAMS.W @ PARAMS.W.T + jnp.eye(5), X[0]), 1e-9)


def test_custom_linear_solve():
    def solve(f, W, y):
        dense = lambda matvec, y: jnp.linalg.solve(jax.vmap(matvec)(jnp.eye(5, dtype=F64)).T, y)
        return jax.lax.custom_linear_solve(normal_equations(f, W, y), y, dense, symmetric=True)

    for derivative in (jax.jacfwd, jax.jacrev):
        got, want = (derivative(lambda W, f=f: solve(f, W, X[0]))(PARAMS.W) for f in (affine, plain))
        check_close(got, want, 1e-10)


def test_donated_training_step():
    @partial(jax.jit, donate_argnums=0)
    def step(params, X):
        dW, db = gradient(affine, params, X)[0]
        return AffineParams(params.W - 0.1 * dW, params.b - 0.1 * db)

    want = plain_step = AffineParams(*PARAMS)
    params = jax.tree.map(jnp.copy, PARAMS)
    for _ in range(3):
        old, params = params, step(params, X)
        grads = gradient(plain, plain_step, X)[0]
        want = plain_step = AffineParams(*(p - 0.1 * g for p, g in zip(plain_step, grads, strict=True)))
        assert old.W.is_deleted()
    check_close(params, want)


@pytest.mark.parametrize("derivative", ["reverse", "forward"])
def test_export_for_every_platform(derivative):
    def program(params, X):
        if derivative == "reverse":
            return gradient(affine, params, X)
        return jax.jvp(affine, (params, X), (params, X))

    exported = jax.export.export(jax.jit(program), platforms=["cpu", "cuda", "tpu"])(tuple(PARAMS), X)
    again = jax.export.deserialize(exported.serialize())
    assert again.platforms == ("cpu", "cuda", "tpu")
    check_close(again.call(tuple(PARAMS), X), program(tuple(PARAMS), X))


def test_export_with_a_symbolic_batch():
    (n,) = jax.export.symbolic_shape("n")
    rows = jax.ShapeDtypeStruct((n, 5), F64)
    program = jax.jit(lambda params, X: jax.grad(lambda p: jnp.sin(affine(p, X)).sum())(params))
    exported = jax.export.export(program, platforms=["cpu"])(tuple(PARAMS), rows)
    for batch in (X, X[:2]):
        check_close(exported.call(tuple(PARAMS), batch), program(tuple(PARAMS), batch))


def test_gradient_of_vmap_needs_no_more_memory_than_plain():
    params, rows = AffineParams(normal(0, 64, 48), normal(1, 48)), normal(2, 512, 64)

    def temporaries(f):
        batched = lambda params: (jax.vmap(f, (None, 0))(params, rows) ** 2).sum()
        return jax.jit(jax.grad(batched)).lower(params).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(affine) <= 1.1 * temporaries(plain)


def equations(jaxpr):
    """All equations, also those inside calls and inside the maps of a linear call."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "equations", value)
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield from equations(inner)


def products(f, *args):
    found = [eqn for eqn in equations(jax.make_jaxpr(f)(*args)) if eqn.primitive.name == "dot_general"]
    return sorted(eqn.outvars[0].aval.shape for eqn in found)


def test_gradient_of_the_parameters_alone_contains_no_dY_Wt():
    loss = lambda params, X: (affine(params, X) * U).sum()
    assert products(jax.grad(loss), PARAMS, X) == [(4, 3), (5, 3)]                      # Y and dW, no dX
    assert products(jax.grad(loss, 1), PARAMS, X) == [(4, 3), (4, 5)]                   # Y and dX, no dW
    assert products(jax.grad(loss, (0, 1)), PARAMS, X) == [(4, 3), (4, 5), (5, 3)]


def test_residuals_are_exactly_W_and_X():
    kept = lambda f, *args: [r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1])]
    assert kept(affine, PARAMS, X) == [PARAMS.W.shape, X.shape]
    assert kept(lambda params: affine(params, X), PARAMS) == [X.shape]
    assert kept(lambda X: affine(PARAMS, X), X) == [PARAMS.W.shape]


def test_compiled_program_is_that_of_autodiff():
    def compiled(f):
        step = lambda params, X, dY: jax.vjp(f, params, X)[1](dY)
        program = jax.jit(step).lower(PARAMS, X, U).compile()
        return program.as_text(), program.memory_analysis().temp_size_in_bytes

    (ours, our_bytes), (theirs, their_bytes) = compiled(affine), compiled(plain)
    for operation in (" dot(", " copy(", " transpose(", " custom-call("):
        assert ours.count(operation) <= theirs.count(operation)
    assert our_bytes <= their_bytes
