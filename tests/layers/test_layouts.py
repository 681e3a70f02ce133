"""Every layer on meshes of eight devices: the same derivatives as on one, cotangents laid out like their primals.

The two Pythons that CI runs share the layouts of each mode.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

from tests.cases import assert_close, normal_like
from tests.conftest import DEVICES
from tests.layers.families import LAYOUTS
from tests.sharing import shared

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")


def mesh(kind):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


def in_mode(mode):
    layouts = shared((x for x in LAYOUTS if mode in x.modes), name=lambda x: f"{mode} {x.name}")
    return pytest.mark.parametrize("layout", layouts, ids=repr)


def derivatives(f, args, u, v):
    """Both modes, and second order."""
    all_args = tuple(range(len(args)))

    def L(*args):
        return sum(jax.tree.leaves(jax.tree.map(lambda y, u: jnp.sum(u * jnp.sin(y)), f(*args), u)))

    grad = jax.grad(L, all_args)
    return {
        "vjp": jax.vjp(f, *args)[1](u),
        "jvp": jax.jvp(f, args, v)[1],
        "grad": grad(*args),
        "forward over reverse": jax.jvp(grad, args, v)[1],
    }


@cache
def problem(layout):
    """Arguments, a cotangent and tangents, and the derivatives there on one device."""
    rng = np.random.default_rng(0)
    args = layout.case.arguments(rng)
    u = normal_like(rng, jax.eval_shape(layout.case.reference, *args))
    at = args, u, normal_like(rng, args)
    return at, jax.jit(partial(derivatives, layout.case.reference))(*at)


def laid_out(mesh, layout, args, u, v):
    put = lambda tree, specs: jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, specs)
    return put(args, layout.arguments), put(u, layout.output), put(v, layout.arguments)


@in_mode("auto")
def test_jit_of_sharded_arrays(layout):
    at, want = problem(layout)
    got = jax.jit(partial(derivatives, layout.case.function))(*laid_out(mesh(AxisType.Auto), layout, *at))
    assert_close(got, want, 1e-12)


@in_mode("explicit")
def test_explicit_mesh(layout):
    at, want = problem(layout)
    explicit = mesh(AxisType.Explicit)
    with jax.set_mesh(explicit):
        args, u, v = laid_out(explicit, layout, *at)
        got = jax.jit(partial(derivatives, layout.case.function))(args, u, v)
    assert_close(got, want, 1e-12)
    for name in ("vjp", "grad", "forward over reverse"):
        for cotangent, primal in zip(jax.tree.leaves(got[name]), jax.tree.leaves(args), strict=True):
            assert cotangent.sharding.is_equivalent_to(primal.sharding, primal.ndim), name


@in_mode("shard_map")
@pytest.mark.parametrize("check_vma", [True, False])
def test_derivatives_of_a_shard_map(layout, check_vma):
    at, want = problem(layout)
    mapped = jax.shard_map(
        layout.case.function,
        mesh=mesh(AxisType.Auto),
        in_specs=layout.arguments,
        out_specs=layout.output,
        check_vma=check_vma,
    )
    assert_close(jax.jit(partial(derivatives, mapped))(*at), want, 1e-12)
