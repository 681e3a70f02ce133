"""The losses where the classes are split over the devices of a mesh axis: the same derivatives as on one device."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from adjax import AffineParams, cross_entropy
from adjax.layers.loss_linear import Operands, Options, Sizes, in_blocks
from tests.cases import assert_close, normal, normal_like
from tests.conftest import DEVICES
from tests.layers.families.loss import EVERYTHING, distribution, plain_cross_entropy
from tests.layers.test_layouts import derivatives

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

ROWS, D, V = 4, 3, 3 * DEVICES
LABELS = jnp.array([0, 7, 23, 12])
KEEP = jnp.array([True, True, True, False])
COLUMNS, WHOLE = P(None, "model"), P()


def of_logits(axis_name, reduction, Z, y=LABELS):
    return cross_entropy(Z, y, where=KEEP, reduction=reduction, axis_name=axis_name, **EVERYTHING)


def of_features(axis_name, reduction, W, b, x, y=LABELS):
    at = Operands(AffineParams(W, b), x, y, KEEP)
    return in_blocks(at, Options(*EVERYTHING.values(), axis_name), reduction, Sizes(3, 2))


def plain(f, reduction, *args):
    Z, y = (args[0], args[1:]) if f is of_logits else (args[2] @ args[0] + args[1], args[3:])
    return plain_cross_entropy(Z, *(y or (LABELS,)), where=KEEP, reduction=reduction, **EVERYTHING)


CASES = {                          # function, reduction, soft labels
    "cross_entropy":                       (of_logits, "mean", False),
    "cross_entropy, distributions":        (of_logits, "none", True),
    "linear_cross_entropy":                (of_features, "mean", False),
    "linear_cross_entropy, distributions": (of_features, "none", True),
}  # fmt: skip


@cache
def problem(name):
    """The layouts and values of the arguments, a cotangent and tangents, and the derivatives on one device."""
    f, reduction, soft = CASES[name]
    rng = np.random.default_rng(0)
    args = (normal(rng, ROWS, V),) if f is of_logits else (normal(rng, D, V), normal(rng, V), normal(rng, ROWS, D))
    specs = (COLUMNS,) if f is of_logits else (COLUMNS, P("model"), WHOLE)
    if soft:
        args, specs = (*args, distribution(rng, ROWS, V)), (*specs, COLUMNS)
    unsplit = partial(plain, f, reduction)
    at = args, normal_like(rng, jax.eval_shape(unsplit, *args)), normal_like(rng, args)
    return specs, at, jax.jit(partial(derivatives, unsplit))(*at)


def over_the_devices(f, in_specs, out_specs, check_vma=True):
    mesh = jax.make_mesh((DEVICES,), ("model",), axis_types=(AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_a_shard_map(name, check_vma):
    specs, at, want = problem(name)
    f, reduction, _ = CASES[name]
    split = over_the_devices(partial(f, "model", reduction), specs, WHOLE, check_vma)
    assert_close(jax.jit(partial(derivatives, split))(*at), want, 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_inside_a_shard_map(name):
    """Where the types know what varies, each gradient is laid out like its argument: dX is the sum over devices."""
    specs, (args, u, _), want = problem(name)
    f, reduction, _ = CASES[name]

    L = lambda *args: jnp.sum(u * jnp.sin(f("model", reduction, *args)))
    grad = over_the_devices(jax.grad(L, tuple(range(len(args)))), specs, specs)
    assert_close(jax.jit(grad)(*args), want["grad"], 1e-12)
