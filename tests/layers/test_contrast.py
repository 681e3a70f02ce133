"""What any_mode is for: the textbook `jax.custom_vjp` fails in these rows, with these words. The README says so.

Should JAX learn one of them, its test fails here, and the claim must go.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax import affine, any_mode
from tests.cases import assert_close, normal
from tests.layers.families.affine import plain_affine

NO_FORWARD = TypeError, r"can't apply forward-mode autodiff \(jvp\) to a custom_vjp function"
NO_TRANSPOSE = NotImplementedError, "Transpose rule .* for 'custom_vjp_call' not implemented"
VARIES = ValueError, "must produce an output with the same type as the args tuple.*manual axis types do not match"
AMBIGUOUS = Exception, "Contracting dimensions are sharded and it is ambiguous how the output should be sharded"


@jax.custom_vjp
def textbook(params, X):
    return plain_affine(params, X)


def textbook_fwd(params, X):
    return textbook(params, X), (*params, X)


def textbook_bwd(residuals, dY):
    W, _, X = residuals
    return (X.T @ dY, dY.sum(0)), dY @ W.T


textbook.defvjp(textbook_fwd, textbook_bwd)


def of_W(f, params, X):
    """A curved function of W, and W."""
    return lambda W: jnp.sum(jnp.sin(f((W, params[1]), X))), params[0]


def jvp(f, params, X):
    return jax.jvp(f, (params, X), (params, X))[1]


def linearize(f, params, X):
    return jax.linearize(f, params, X)[1](params, X)


def jacfwd(f, params, X):
    L, W = of_W(f, params, X)
    return jax.jacfwd(L)(W)


def hessian(f, params, X):
    L, W = of_W(f, params, X)
    return jax.hessian(L)(W)


def reverse_over_forward(f, params, X):
    L, W = of_W(f, params, X)
    return jax.jacrev(jax.jacfwd(L))(W)


def linear_transpose(f, params, X):
    return jax.linear_transpose(lambda X: f(params, X), X)(jnp.ones((8, 3), jnp.float64))


def shard_map(f, params, X):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(f, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=True)
    return jax.grad(lambda params: jnp.sum(jnp.sin(mapped(params, X))))(params)


def explicit_mesh(f, params, X):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        W, b = jax.device_put(params, NamedSharding(mesh, P()))
        X = jax.device_put(X, NamedSharding(mesh, P("data")))
        return jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(f(params, X)))))((W, b))


ROWS = {
    jvp: NO_FORWARD,
    linearize: NO_FORWARD,
    jacfwd: NO_FORWARD,
    hessian: NO_FORWARD,
    reverse_over_forward: NO_FORWARD,
    linear_transpose: NO_TRANSPOSE,
    shard_map: VARIES,
    explicit_mesh: AMBIGUOUS,
}
SPELLED_WITH_CONTRACT = [jvp, linearize, jacfwd, reverse_over_forward, linear_transpose]
on_eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")


def named(rows):
    on_a_mesh = shard_map, explicit_mesh
    return [pytest.param(row, id=row.__name__, marks=on_eight if row in on_a_mesh else ()) for row in rows]


@pytest.fixture
def at(rng):
    return (normal(rng, 5, 3), normal(rng, 3)), normal(rng, 8, 5)


@pytest.mark.parametrize("row", named(ROWS))
def test_the_textbook_rule_fails_where_plain_jax_and_affine_work(row, at):
    assert_close(row(affine, *at), row(plain_affine, *at), 1e-12)
    error, text = ROWS[row]
    with pytest.raises(error, match=text):
        row(textbook, *at)


@pytest.mark.parametrize("row", named(SPELLED_WITH_CONTRACT))
def test_so_does_the_rule_of_affine_without_any_mode(row, at):
    """`contract` and `cotangent_like` mend what meshes break; only `any_mode` gives forward mode."""
    error, text = ROWS[row]
    with pytest.raises(error, match=text):
        row(affine.custom_vjp, *at)


@pytest.mark.parametrize("row", named([r for r in ROWS if r is not explicit_mesh]))
def test_any_mode_mends_the_textbook_rule(row, at):
    """Even the psum under shard_map. What to do with a sharded sum on an explicit mesh, only `contract` can say."""
    assert_close(row(any_mode(textbook_with_plain_forward()), *at), row(plain_affine, *at), 1e-12)


def textbook_with_plain_forward():
    """The same rule; its forward pass does not call the custom_vjp again, which would hide it from any_mode."""
    rule = jax.custom_vjp(plain_affine)
    rule.defvjp(lambda params, X: (plain_affine(params, X), (*params, X)), textbook_bwd)
    return rule


def test_vmap_of_the_textbook_rule_works(at):
    params, X = at
    grad = lambda f: jax.vmap(jax.grad(lambda p, x: jnp.sum(jnp.sin(f(p, x[None])))), (None, 0))(params, X)
    assert_close(grad(textbook), grad(plain_affine), 1e-12)


def test_linear_call_of_jax_has_gaps():
    scale = lambda r, x: r * x
    linear_call = jax.custom_derivatives.linear_call
    with pytest.raises(NotImplementedError, match="Batching rule for 'linear_call' not implemented"):
        jax.vmap(lambda x: linear_call(scale, scale, 3.0, x))(jnp.arange(3.0))
    with pytest.raises(AssertionError):
        jax.grad(lambda r: linear_call(scale, scale, r, 2.0))(3.0)
