"""affine on meshes of eight devices: the same derivatives as on one, and cotangents laid out like their primals.

`shard_map` without `check_vma` does not know what varies, so a gradient taken inside the body has its own meaning there
(a psum transposes to a psum): it is compared with plain JAX in the same place.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax import AffineParams, affine
from tests.cases import assert_close, normal
from tests.conftest import DEVICES
from tests.layers.families.affine import plain_affine

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

LAYOUTS = {                        # W[d, p]             b[p]        X[n, d]             dY[n, p]
    "replicated":                  (P(),                P(),        P(),                P()),
    "data":                        (P(),                P(),        P("data"),          P("data")),
    "model":                       (P(None, "model"),   P("model"), P(),                P(None, "model")),
    "both":                        (P(None, "model"),   P("model"), P("data"),          P("data", "model")),
    "features":                    (P("model"),         P(),        P("data", "model"), P("data")),
    "params over data":            (P("data"),          P(),        P("data"),          P("data")),
    "params over both":            (P("data", "model"), P("model"), P("data"),          P("data", "model")),
    "one axis of two":             (P(),                P(),        P(("data", "model")), P(("data", "model"))),
}  # fmt: skip
LEADING = {"n": (8,), "n, t": (8, 3), "t, n": (3, 8)}       # n is sharded, t is not


def mesh(kind, *shape):
    return jax.make_mesh(shape, ("data", "model")[: len(shape)], axis_types=(kind,) * len(shape))


def values(rng, *leading):
    """params, X, u like the output, and tangents of the params and X; d = 4, p = 6."""
    params = AffineParams(normal(rng, 4, 6), normal(rng, 6))
    tangents = AffineParams(normal(rng, 4, 6), normal(rng, 6)), normal(rng, *leading, 4)
    return params, normal(rng, *leading, 4), normal(rng, *leading, 6), tangents


def derivatives(f, params, X, u, tangents):
    """Both modes, and a Hessian-vector product in two compositions."""
    L = lambda params, X: jnp.sum(u * jnp.sin(f(params, X)))
    grad = jax.grad(L, (0, 1))
    directional = lambda params, X: jax.jvp(L, (params, X), tangents)[1]
    return {
        "vjp": jax.vjp(f, params, X)[1](u),
        "jvp": jax.jvp(f, (params, X), tangents)[1],
        "grad": grad(params, X),
        "forward over reverse": jax.jvp(grad, (params, X), tangents)[1],
        "reverse over forward": jax.grad(directional, (0, 1))(params, X),
    }


def along(leading, spec):
    """The layout `spec` of `[n, feature]` for an array with the axes `leading` before its features."""
    n, feature = (*spec, None, None)[:2]
    return P(*(n if axis == "n" else None for axis in leading.split(", ")), feature)


def laid_out(mesh, layout, leading, params, X, u, tangents):
    W, b, x, y = LAYOUTS[layout]
    x, y = along(leading, x), along(leading, y)
    put = lambda value, spec: jax.device_put(value, NamedSharding(mesh, spec))
    both = lambda params, X: (AffineParams(put(params.W, W), put(params.b, b)), put(X, x))
    return *both(params, X), put(u, y), both(*tangents)


on_one_device = jax.jit(partial(derivatives, plain_affine))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_jit_of_sharded_arrays(layout, rng):
    at = values(rng, 8)
    sharded = laid_out(mesh(AxisType.Auto, 4, 2), layout, "n", *at)
    assert_close(jax.jit(partial(derivatives, affine))(*sharded), on_one_device(*at), 1e-12)


WITH_MORE_AXES = [(layout, leading) for layout in ("both", "features") for leading in ("n, t", "t, n")]


@pytest.mark.parametrize(("layout", "leading"), [*((layout, "n") for layout in LAYOUTS), *WITH_MORE_AXES])
def test_explicit_mesh(layout, leading, rng):
    at = values(rng, *LEADING[leading])
    explicit = mesh(AxisType.Explicit, 4, 2)
    with jax.set_mesh(explicit):
        params, X, u, tangents = laid_out(explicit, layout, leading, *at)
        got = jax.jit(partial(derivatives, affine))(params, X, u, tangents)
    assert_close(got, on_one_device(*at), 1e-12)
    for name in ("vjp", "grad", "forward over reverse", "reverse over forward"):
        for cotangent, primal in zip(jax.tree.leaves(got[name]), jax.tree.leaves((params, X)), strict=True):
            assert cotangent.sharding.is_equivalent_to(primal.sharding, primal.ndim), name


@pytest.mark.parametrize("layout", ["data", "both"])
def test_explicit_mesh_without_jit(layout, rng):
    at = values(rng, 8)
    explicit = mesh(AxisType.Explicit, 4, 2)
    with jax.set_mesh(explicit):
        params, X, u, tangents = laid_out(explicit, layout, "n", *at)
        back = jax.vjp(affine, params, X)[1](u)
        forth = jax.jvp(affine, (params, X), tangents)[1]
    want = on_one_device(*at)
    assert_close((back, forth), (want["vjp"], want["jvp"]), 1e-12)
    for cotangent, primal in zip(jax.tree.leaves(back), jax.tree.leaves((params, X)), strict=True):
        assert cotangent.sharding.is_equivalent_to(primal.sharding, primal.ndim)


def test_explicit_mesh_under_vmap(rng):
    """A batch over the sharded axis, and over one that is not."""
    at = values(rng, 8, 3)
    want = on_one_device(*at)
    explicit = mesh(AxisType.Explicit, 4, 2)
    with jax.set_mesh(explicit):
        sharded = laid_out(explicit, "both", "n, t", *at)
        for axis in (0, 1):
            got = jax.jit(partial(derivatives, jax.vmap(affine, (None, axis), axis)))(*sharded)
            assert_close(got, want, 1e-12)
            assert got["grad"][0].W.sharding.is_equivalent_to(sharded[0].W.sharding, 2)


SHARD_MAPS = {             # mesh, layout of params and X and Y
    "replicated params":   ((8,), (AffineParams(P(), P()), P("data")), P("data")),
    "sharded params":      ((4, 2), (AffineParams(P(None, "model"), P("model")), P("data")), P("data", "model")),
}  # fmt: skip


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("context", SHARD_MAPS)
def test_derivatives_of_a_shard_map(context, check_vma, rng):
    shape, in_specs, out_specs = SHARD_MAPS[context]
    at = values(rng, 8)
    mapped = lambda f: jax.shard_map(
        f, mesh=mesh(AxisType.Auto, *shape), in_specs=in_specs, out_specs=out_specs, check_vma=check_vma
    )
    assert_close(jax.jit(partial(derivatives, mapped(affine)))(*at), on_one_device(*at), 1e-12)
    hessian = lambda f: jax.jit(jax.hessian(lambda b: jnp.sum(jnp.sin(f(AffineParams(at[0].W, b), at[1])))))(at[0].b)
    assert_close(hessian(mapped(affine)), hessian(plain_affine), 1e-12)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("context", SHARD_MAPS)
def test_derivatives_inside_a_shard_map(context, check_vma, rng):
    shape, in_specs, out_specs = SHARD_MAPS[context]
    params, X, u, tangents = values(rng, 8)
    axes = ("data", "model")[: len(shape)]

    def body(f, params, X, u, tangents):
        L = lambda params, X: jax.lax.psum(jnp.sum(u * jnp.sin(f(params, X))), axes)
        grad = jax.grad(L, (0, 1))
        if check_vma:                   # X is whole over "model" and varies over "data"; its gradient must, too
            return grad(params, X), jax.jvp(grad, (params, X), tangents)[1]
        gather = lambda tree: jax.tree.map(lambda x: jax.lax.all_gather(x, axes), tree)
        return gather((grad(params, X), jax.jvp(grad, (params, X), tangents)[1]))

    def run(f):
        specs = (*in_specs, out_specs, in_specs)
        out = (in_specs, in_specs) if check_vma else P()
        mapped = jax.shard_map(
            partial(body, f), mesh=mesh(AxisType.Auto, *shape), in_specs=specs, out_specs=out, check_vma=check_vma
        )
        return jax.jit(mapped)(params, X, u, tangents)

    got = run(affine)
    assert_close(got, run(plain_affine), 1e-12)
    if check_vma:
        want = on_one_device(params, X, u, tangents)
        assert_close(got, (want["grad"], want["forward over reverse"]), 1e-12)


def test_products_do_not_gather_what_is_sharded(rng):
    """Data parallel: the only communication of the backward pass is the sum of dW and db over the devices."""
    data = mesh(AxisType.Auto, 8)
    params, X, u, _ = values(rng, 8)
    whole, rows = NamedSharding(data, P()), NamedSharding(data, P("data"))
    at = jax.device_put(params, whole), jax.device_put(X, rows), jax.device_put(u, rows)
    hlo = jax.jit(lambda p, X, u: jax.vjp(affine, p, X)[1](u)).lower(*at).compile().as_text()
    assert "all-gather" not in hlo and "all-reduce" in hlo
    assert np.prod(at[1].sharding.shard_shape(X.shape)) * DEVICES == X.size
