"""The foundation on meshes: cotangents have their primal's varying axes and layout, whatever rule computed them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from adjax import any_mode, contract, cotangent_like, like, linear_call

F64 = jnp.float64
W, X, V, U = (jax.random.normal(jax.random.key(i), s, F64) for i, s in enumerate([(4, 6), (8, 4), (4, 6), (8, 6)]))


def mesh(kind, *sizes):
    names = ("data", "model")[: len(sizes)]
    return jax.make_mesh(sizes, names, axis_types=(kind,) * len(sizes))


def foreign():
    """A product with the rule anyone would write, which knows nothing of meshes."""
    f = any_mode(jax.custom_vjp(lambda W, X: X @ W))
    f.defvjp(lambda W, X: (X @ W, (W, X)), lambda r, g: (r[1].T @ g, g @ r[0].T))
    return f


def check_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_foreign_rule_under_shard_map(check_vma, transform):
    f, specs = foreign(), {"in_specs": (P(), P("data")), "out_specs": P("data")}
    mapped = jax.shard_map(f, mesh=mesh(AxisType.Auto, 8), check_vma=check_vma, **specs)
    check_close(transform(lambda W, X: jax.vjp(mapped, W, X)[1](U))(W, X), jax.vjp(f.fun, W, X)[1](U))
    check_close(transform(lambda W, X: jax.jvp(mapped, (W, X), (V, X)))(W, X), jax.jvp(f.fun, (W, X), (V, X)))
    curved = lambda g: jax.hessian(lambda W: jnp.sin(g(W, X)).sum())(W)
    check_close(curved(mapped), curved(f.fun))


def test_the_psum_of_a_replicated_primal_is_inside_the_map():
    f = foreign()

    def body(W, X, U):  # differentiated inside: the cotangent of the replicated W must leave replicated
        return jax.grad(lambda W: (f(W, X) * U).sum())(W)

    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P()}
    check_close(jax.shard_map(body, mesh=mesh(AxisType.Auto, 8), **specs)(W, X, U), X.T @ U)


def test_linear_call_under_shard_map():
    def product(W, X):
        return linear_call(
            lambda X, W: X @ W, lambda X, y: cotangent_like(like(W), X.T @ y), X, W
        )  # the adjoint says itself that W is shared

    specs = {"in_specs": (P(), P("data")), "out_specs": P("data")}
    mapped = jax.shard_map(product, mesh=mesh(AxisType.Auto, 8), **specs)
    check_close(jax.vjp(mapped, W, X)[1](U), (X.T @ U, U @ W.T))
    check_close(jax.jvp(mapped, (W, X), (V, X))[1], X @ V + X @ W)


LAYOUTS = {
    "data": (P("data", None), P(None, None)),
    "model": (P(None, None), P(None, "model")),
    "both": (P("data", None), P(None, "model")),
    "contracted": (P(None, "model"), P("model", None)),
    "one axis twice": (P("data", None), P(None, "data")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contract_says_the_layout_on_explicit_meshes(layout):
    x_spec, w_spec = LAYOUTS[layout]
    with jax.set_mesh(mesh(AxisType.Explicit, 4, 2)):
        columns = jnp.concatenate([W, W[:, :2]], axis=1) if layout == "one axis twice" else W
        x, w = jax.device_put(X, x_spec), jax.device_put(columns, w_spec)
        forward = jax.jit(lambda x, w: contract("nd,dp->np", x, w))(x, w)
        backward = jax.jit(lambda x, y, w: contract("nd,np->dp", x, y, like=w))(x, forward, w)
        transposed = jax.jit(lambda x, w: contract("nd,dp->pn", x, w))(x, w)
        assert backward.sharding.is_equivalent_to(w.sharding, 2)
    check_close(forward, X @ np.asarray(columns))
    check_close(backward, X.T @ X @ np.asarray(columns))
    check_close(transposed, (X @ np.asarray(columns)).T)


def test_adjoint_of_a_resharding_is_the_reverse():
    with jax.set_mesh(mesh(AxisType.Explicit, 4, 2)):
        primal, ct = jax.device_put(X, P("data")), jax.device_put(X, P(None, "model"))
        for run in (cotangent_like, jax.jit(cotangent_like)):
            back = run(primal, ct)
            assert back.sharding.is_equivalent_to(primal.sharding, 2)
            check_close(back, X)


def test_batches_on_explicit_meshes():
    f = any_mode(jax.custom_vjp(lambda W, X: contract("nd,dp->np", X, W)))
    f.defvjp(
        lambda W, X: (f.fun(W, X), (W, X)),
        lambda r, g: (contract("nd,np->dp", r[1], g, like=r[0]), contract("np,dp->nd", g, r[0], like=r[1])),
    )
    with jax.set_mesh(mesh(AxisType.Explicit, 4, 2)):
        w, x = jax.device_put(W, P(None, "model")), jax.device_put(X.reshape(4, 2, 4), P("data"))
        u = jax.device_put(U.reshape(4, 2, 6), P("data", None, "model"))
        dW, dX = jax.jit(lambda w, x, u: jax.vjp(jax.vmap(f, (None, 0)), w, x)[1](u))(w, x, u)
        assert dW.sharding.is_equivalent_to(w.sharding, 2) and dX.sharding.is_equivalent_to(x.sharding, 3)
    check_close((dW, dX), (X.T @ U, (U @ W.T).reshape(4, 2, 4)))
