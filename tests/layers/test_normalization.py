"""batch_norm and group_norm: accuracy in every dtype, statistics across devices, masks, edges, what is kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from adjax import BatchState, NormParams, batch_norm, group_norm
from tests.cases import as_dtype, assert_close, assert_same_types, normal, normal_like
from tests.conftest import DEVICES
from tests.layers.families.normalization import arguments, plain_batch_norm, plain_group_norm

pytestmark = pytest.mark.shared

DTYPES = [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16]
STATE = BatchState(jnp.array([1.0, -2.0, 3.0]), jnp.array([0.5, 1.0, 2.0]))
on_eight = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")


def trained(norm, state=STATE, **options):
    return lambda params, x: norm(params, x, as_dtype(state, jnp.float64), train=True, **options)


def both_modes(f, args, u):
    """Values, cotangents and tangents."""
    y, back = jax.vjp(f, *args)
    return y, back(u), jax.jvp(f, args, args)[1]


def assert_agree(ours, plain, args, rng, rtol=1e-12):
    u = normal_like(rng, jax.eval_shape(plain, *args))
    got, want = (jax.jit(partial(both_modes, f))(args, u) for f in (ours, plain))
    assert_same_types(got, want)
    assert_close(got, want, rtol)


# Accuracy

LAYERS = {
    "batch_norm": (lambda *args: trained(batch_norm)(*args)[0], lambda *args: trained(plain_batch_norm)(*args)[0]),
    "group_norm": (partial(group_norm, groups=3), partial(plain_group_norm, groups=3)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_every_dtype_against_the_formula_in_float64(layer, dtype, rng):
    """Two roundings of the results; the reference sees the same numbers."""
    ours, plain = LAYERS[layer]
    args, u = arguments(5, 3, 4, 3)(rng), normal(rng, 5, 3, 4, 3)
    got = jax.jit(partial(both_modes, ours))(as_dtype(args, dtype), as_dtype(u, dtype))
    want = both_modes(plain, args, u)
    assert_same_types(got, as_dtype(want, dtype))
    assert_close(got, want, 1e-12 if dtype == jnp.float64 else 4 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("layer", LAYERS)
def test_an_offset_a_hundred_thousand_deviations_large(layer, rng):
    """float32 rounds such a mean by 3/1000 of a deviation; E[X²] − E[X]² has no digit left."""
    ours, plain = LAYERS[layer]
    params = NormParams(normal(rng, 3, dtype=jnp.float32), normal(rng, 3, dtype=jnp.float32))
    x = jnp.asarray(1e3 + 1e-2 * rng.standard_normal((8, 11, 13, 3)), jnp.float32)
    u = normal(rng, 8, 11, 13, 3, dtype=jnp.float32)
    eps = {"eps": 1e-12} if layer == "group_norm" else {}
    got = jax.vjp(partial(ours, **eps), params, x)[1](u)
    wide = as_dtype((params, x, u), jnp.float64)
    want = jax.vjp(partial(plain, **eps), *wide[:2])[1](wide[2])
    assert_close(got, want, 0.02)
    var = np.var(np.asarray(x, np.float64), axis=(0, 1, 2))
    _, state = batch_norm(params, x, BatchState.init(3), train=True, momentum=0.0)
    assert_close(state.var, jnp.asarray(var), 1e-4)
    naive = jnp.square(x).mean((0, 1, 2)) - jnp.square(x.mean((0, 1, 2)))
    assert np.abs(np.asarray(naive, np.float64) - var).max() > var.max()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_half_precision_sums_in_float32(layer, dtype):
    """A bfloat16 sum of ones stops at 256, a float16 one at 2048."""
    x = jnp.tile(jnp.array([-1, 1], dtype), 2500)[None, :, None] * jnp.ones(3, dtype)
    params = NormParams.init(3, dtype)
    (_, dbias), _ = jax.vjp(LAYERS[layer][0], params, x)[1](jnp.ones_like(x))
    (dscale, _), _ = jax.vjp(LAYERS[layer][0], params, x)[1](x)
    assert np.all(dbias == np.asarray(5000).astype(dtype))
    assert np.all(np.abs(np.asarray(dscale, np.float32) - 5000) <= 32)


MIXED = [(jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32), (jnp.float64, jnp.float32)]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("of_params", "of_x"), MIXED, ids=lambda t: t.__name__)
def test_parameters_of_another_dtype(layer, of_params, of_x, rng):
    """y has x's dtype, cotangents have their primals', and the sums are as wide as the widest."""
    ours, plain = LAYERS[layer]
    params, x = arguments(5, 4, 3)(rng)
    u = normal(rng, 5, 4, 3)
    with jax.numpy_dtype_promotion("standard"):
        y, back = jax.vjp(ours, as_dtype(params, of_params), as_dtype(x, of_x))
        dparams, dx = back(as_dtype(u, of_x))
    assert y.dtype == dx.dtype == of_x and dparams.scale.dtype == dparams.bias.dtype == of_params
    want, back = jax.vjp(plain, params, x)
    assert_close((y, dx), (want, back(u)[1]), 4 * float(jnp.finfo(of_x).eps))
    assert_close(dparams, back(u)[0], 4 * max(float(jnp.finfo(t).eps) for t in (of_params, of_x)))


# The state

def test_the_new_state_is_the_average_of_old_and_biased_batch_statistics(rng):
    params, x = arguments(4, 5, 3)(rng)
    state = as_dtype(STATE, jnp.float64)
    _, new = batch_norm(params, x, state, train=True, momentum=0.75)
    want = BatchState(0.75 * state.mean + 0.25 * x.mean((0, 1)), 0.75 * state.var + 0.25 * x.var((0, 1)))
    assert isinstance(new, BatchState)
    assert_close(new, want, 1e-12)
    assert batch_norm(params, x, tuple(state), train=True, momentum=1)[1].mean.tolist() == state.mean.tolist()
    assert_close(batch_norm(params, x, state, train=True, momentum=0)[1].var, x.var((0, 1)), 1e-12)


def test_the_new_state_keeps_the_dtype_of_the_old(rng):
    params, x = as_dtype(arguments(4, 5, 3)(rng), jnp.bfloat16)
    for dtype in (jnp.float32, jnp.float64):
        assert batch_norm(params, x, as_dtype(STATE, dtype), train=True)[1].var.dtype == dtype


def test_the_new_state_is_differentiable_as_in_plain_jax(rng):
    ours, plain = (lambda p, x, s, f=f: f(p, x, s, train=True) for f in (batch_norm, plain_batch_norm))
    assert_agree(ours, plain, arguments(4, 5, 3, state=True)(rng), rng)


def test_evaluating_uses_the_state_and_returns_it(rng):
    params, x, state = arguments(4, 5, 3, state=True)(rng)
    y, same = batch_norm(params, x, state, train=False)
    assert_close(y, plain_batch_norm(params, x, state, train=False)[0], 1e-12)
    assert same == state
    for mask in (None, jnp.arange(4)[:, None] < 3):
        ours, plain = (
            lambda *args, f=f, m=m: f(*args, train=False, where=m)[0]
            for f, m in ((batch_norm, mask), (plain_batch_norm, None if mask is None else mask[..., None]))
        )
        assert_agree(ours, plain, (params, x, state), rng)


# Statistics across devices

def across(norm, **options):
    """y and the new state as a function of params, x and state, with the statistics of all devices of the axis."""
    return lambda params, x, state: norm(params, x, state, train=True, axis_name="data", **options)


def of_devices(f, check_vma):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return jax.shard_map(
        f, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=(P("data"), P()), check_vma=check_vma
    )


def second_order(f, args, u):
    """Both modes, and forward over reverse of a curved loss."""
    L = lambda *args: sum(jax.tree.leaves(jax.tree.map(lambda y, u: jnp.sum(u * jnp.sin(y)), f(*args), u)))
    return both_modes(f, args, u), jax.jvp(jax.grad(L, (0, 1, 2)), args, args)


@on_eight
@pytest.mark.parametrize("check_vma", [True, False])
def test_statistics_of_all_devices_under_shard_map(check_vma, rng):
    args = arguments(8, 2, 3, state=True)(rng)
    whole = lambda *args: plain_batch_norm(*args, train=True)
    u = normal_like(rng, jax.eval_shape(whole, *args))
    got = jax.jit(partial(second_order, of_devices(across(batch_norm), check_vma)))(args, u)
    assert_close(got, jax.jit(partial(second_order, whole))(args, u), 1e-12)


@on_eight
@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_taken_inside_a_shard_map(check_vma, rng):
    """As plain JAX in the same place."""
    params, x, state = arguments(8, 2, 3, state=True)(rng)
    u = normal(rng, 8, 2, 3)

    def run(norm):
        def body(params, x, u):
            L = lambda params, x: jax.lax.psum(jnp.sum(u * jnp.sin(across(norm)(params, x, state)[0])), "data")
            dparams, dx = jax.grad(L, (0, 1))(params, x)
            return jax.tree.map(lambda d: d[None], dparams), dx

        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": (P(None if check_vma else "data"), P("data"))}
        return jax.jit(jax.shard_map(body, mesh=mesh, check_vma=check_vma, **specs))(params, x, u)

    assert_close(run(batch_norm), run(plain_batch_norm), 1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_statistics_of_a_named_vmap(masked, rng):
    params, x, state = arguments(4, 2, 3, state=True)(rng)
    mask = jnp.asarray(rng.random((4, 2)) < 0.6) if masked else None

    def mapped(params, x, state):
        f = lambda x, where: across(batch_norm, where=where)(params, x, state)
        y, new = jax.vmap(f, (0, None if mask is None else 0), axis_name="data")(x, mask)
        return y, jax.tree.map(lambda s: s[0], new)

    whole = lambda *args: plain_batch_norm(*args, train=True, where=None if mask is None else mask[..., None])
    u = normal_like(rng, jax.eval_shape(whole, params, x, state))
    got, want = (jax.jit(partial(second_order, f))((params, x, state), u) for f in (mapped, whole))
    assert_close(got, want, 1e-12)


@on_eight
def test_two_axes_and_a_mask(rng):
    params, x, state = arguments(8, 2, 3, state=True)(rng)
    mask = jnp.asarray(rng.random((8, 2)) < 0.6).at[3].set(False)           # one device has nothing
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    f = lambda params, x, state, where: batch_norm(
        params, x, state, train=True, axis_name=("a", "b"), where=where
    )
    batch = P(("a", "b"))
    over = jax.shard_map(f, mesh=mesh, in_specs=(P(), batch, P(), batch), out_specs=(batch, P()))
    ours = lambda *args: over(*args, mask)
    plain = lambda *args: plain_batch_norm(*args, train=True, where=mask[..., None])
    assert_agree(ours, plain, (params, x, state), rng)


# Masks

MASKS = {                       # shape of the mask, shape of x
    "entries": ((4, 5), (4, 5, 3)),
    "examples": ((4, 1), (4, 5, 3)),
    "positions": ((5,), (4, 5, 3)),
    "every entry of x": ((4, 5, 3), (4, 5, 3)),
    "channels": ((1, 1, 3), (4, 5, 3)),
    "a scalar": ((), (4, 5, 3)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_shape(name, rng):
    shape, x_shape = MASKS[name]
    mask = jnp.asarray(rng.random(shape) < 0.6)
    whole = mask if len(shape) == len(x_shape) else mask[..., None]
    assert_agree(trained(batch_norm, where=mask), trained(plain_batch_norm, where=whole), arguments(*x_shape)(rng), rng)


def test_what_is_masked_has_no_part_in_anything(rng):
    """Not even where it is no number."""
    params, x = arguments(4, 5, 3)(rng)
    mask = jnp.asarray(rng.random((4, 5)) < 0.6)
    poisoned = jnp.where(mask[..., None], x, jnp.nan)
    u = normal_like(rng, jax.eval_shape(trained(batch_norm), params, x))
    L = lambda *args: sum(jax.tree.leaves(jax.tree.map(lambda y, u: jnp.sum(u * jnp.sin(y)),
                                                       trained(batch_norm, where=mask)(*args), u)))  # fmt: skip

    def run(x):
        curved = lambda x: jnp.sum(jnp.sin(jax.grad(L, 1)(params, x)))
        return jax.value_and_grad(L, (0, 1))(params, x), jax.grad(curved)(x)

    assert_close(jax.jit(run)(poisoned), jax.jit(run)(x), 1e-12)
    y, _ = trained(batch_norm, where=mask)(params, poisoned)
    assert np.all(np.asarray(y)[~np.asarray(mask)] == 0)


def test_nothing_but_masked_entries(rng):
    """Zero, the old state, and zero gradients."""
    params, x = arguments(4, 5, 3)(rng)
    f = trained(batch_norm, where=jnp.zeros((4, 5), bool))
    (y, new), back = jax.vjp(f, params, x)
    assert np.all(y == 0) and new.mean.tolist() == STATE.mean.tolist() and new.var.tolist() == STATE.var.tolist()
    assert all(np.all(d == 0) for d in jax.tree.leaves(back((jnp.ones_like(y), as_dtype(STATE, jnp.float64)))))


# Edges of the domain

SHAPES = [(3,), (1, 3), (4, 3), (2, 1, 4, 3), (2, 3, 2, 1, 3), (0, 3), (2, 0, 3), (4, 0), (0,)]
GIVEN = [*((shape, "scale bias") for shape in SHAPES), *(((2, 4, 6), given) for given in ("scale", "bias", ""))]


@pytest.mark.parametrize(("shape", "given"), GIVEN, ids=str)
def test_every_shape_and_parameters_or_none(shape, given, rng):
    args, state = arguments(*shape, given=given)(rng), BatchState.init(shape[-1], jnp.float64)
    u = normal(rng, *shape)
    for ours, plain in (
        (partial(group_norm, groups=3), partial(plain_group_norm, groups=3)),
        (lambda *a: trained(batch_norm, state)(*a)[0], lambda *a: trained(plain_batch_norm, state)(*a)[0]),
    ):
        got = jax.jit(partial(both_modes, ours))(args, u)
        assert all(np.isfinite(value).all() for value in jax.tree.leaves(got))
        if np.prod(shape):                                      # with one entry dX is what rounding leaves of r dY
            want = jax.jit(partial(both_modes, plain))(args, u)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-10), got, want)


def test_one_entry_gives_the_bias(rng):
    params, x = arguments(1, 3)(rng)
    y, new = batch_norm(params, x, as_dtype(STATE, jnp.float64), train=True, momentum=0.5)
    assert y.tolist() == [params.bias.tolist()] and new.var.tolist() == (STATE.var / 2).tolist()
    assert group_norm(params, x, groups=3).tolist() == [params.bias.tolist()]
    for f in (lambda x: trained(batch_norm)(params, x)[0], lambda x: group_norm(params, x, groups=3)):
        assert np.abs(jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x)).max() < 1e-12


def test_an_empty_batch_keeps_the_state():
    y, new = batch_norm(NormParams.init(3), jnp.zeros((0, 5, 3), jnp.float32), STATE, train=True)
    assert y.shape == (0, 5, 3) and new.mean.tolist() == STATE.mean.tolist() and new.var.tolist() == STATE.var.tolist()


def test_groups_of_one_and_of_all_channels(rng):
    """g = c normalizes each channel alone, g = 1 the example; [n, c] and [c] have no positions."""
    params, x = arguments(4, 5, 6)(rng)
    alone = jax.vmap(lambda x: trained(batch_norm, BatchState.init(6))(params, x)[0])(x)
    assert_close(group_norm(params, x, groups=6), alone, 1e-12)
    whole = (x - x.mean((1, 2), keepdims=True)) / jnp.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    assert_close(group_norm(NormParams(None, None), x, groups=1), whole, 1e-12)
    assert_close(group_norm(params, x[:, 0], groups=2)[1], group_norm(params, x[1, 0], groups=2), 1e-12)


def test_no_implicit_rank_promotion(rng):
    params, x, state = arguments(4, 2, 5, 3, state=True)(rng)
    mask = jnp.ones((4, 2, 5), bool)
    with jax.numpy_rank_promotion("raise"):
        gradients = [jax.grad(lambda p: jnp.sum(group_norm(p, x, groups=3)))(params)]
        for train in (True, False):
            of = lambda p, t=train: jnp.sum(batch_norm(p, x, state, train=t, where=mask)[0])
            gradients.append(jax.grad(of)(params))
    assert all(g.shape == (3,) for g in jax.tree.leaves(gradients))


# What is kept, and what is computed

def kept(f, *args):
    return sorted(r.shape for r in jax.tree.leaves(jax.vjp(f, *args)[1]) if np.shape(r))


def test_residuals_are_x_scale_and_statistics(rng):
    params, x, state = arguments(2, 3, 4, 6, state=True)(rng)
    train = lambda *args: batch_norm(*args, state, train=True)[0]
    stat, group = (1, 1, 1, 6), (2, 1, 1, 3)
    assert kept(train, params, x) == sorted([x.shape, (6,), stat, stat])
    assert kept(train, NormParams(None, params.bias), x) == sorted([x.shape, stat, stat])
    assert kept(lambda b: train(NormParams(params.scale, b), x), params.bias) == []
    assert kept(lambda *args: batch_norm(*args, train=False)[0], params, x, state) == sorted([x.shape, *[(6,)] * 3])
    assert kept(lambda x: batch_norm(params, x, state, train=False)[0], x) == [(6,), (6,)]
    assert kept(partial(group_norm, groups=3), params, x) == sorted([x.shape, (6,), group, group])
    assert kept(lambda b: group_norm(NormParams(params.scale, b), x, groups=3), params.bias) == []


def test_nothing_is_computed_for_arguments_not_differentiated(rng):
    """The gradient of the parameters alone writes nothing as large as x."""
    params, x = arguments(2, 3, 4, 6)(rng)
    state = BatchState.init(6, jnp.float64)
    for f in (lambda p: batch_norm(p, x, state, train=True)[0], lambda p: group_norm(p, x, groups=3)):
        back = jax.jit(lambda u, f=f: jax.vjp(f, params)[1](u)).lower(x).compile().as_text()
        entry = back[back.index("ENTRY") :]
        assert f"f64[{','.join(map(str, x.shape))}]" not in entry.split("->")[1].split("{")[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_barriers_survive_no_longer_than_needed(layer, rng):
    """The temporaries are at most autodiff's: X − μ is nowhere an array."""
    args, u = as_dtype((arguments(8, 16, 16, 12)(rng), normal(rng, 8, 16, 16, 12)), jnp.float32)
    bytes_of = [
        jax.jit(lambda args, u, f=f: jax.vjp(f, *args)[1](u)).lower(args, u).compile().memory_analysis()
        for f in (LAYERS_OF_TWELVE[layer])
    ]
    ours, plain = (m.temp_size_in_bytes for m in bytes_of)
    assert ours <= plain and ours < u.nbytes


LAYERS_OF_TWELVE = {
    "batch_norm": [
        lambda p, x, f=f: f(p, x, BatchState.init(12), train=True)[0] for f in (batch_norm, plain_batch_norm)
    ],
    "group_norm": LAYERS["group_norm"],
}


# Parameters and state

def test_fresh_parameters_and_state():
    params, state = NormParams.init(5, jnp.bfloat16), BatchState.init(5)
    assert params.scale.tolist() == [1] * 5 and params.bias.tolist() == [0] * 5 and params.bias.dtype == jnp.bfloat16
    assert state.mean.tolist() == [0] * 5 and state.var.tolist() == [1] * 5 and state.var.dtype == jnp.float32
    assert NormParams.init(5, scale=False).scale is None and NormParams.init(5, bias=False).bias is None


@pytest.mark.parametrize("make", [tuple, list, lambda p: NormParams(*p)], ids=["tuple", "list", "named"])
def test_cotangents_have_the_structure_of_the_parameters(make, rng):
    params, x = arguments(4, 5, 3)(rng)
    for f in (lambda p: trained(batch_norm)(p, x)[0], lambda p: group_norm(p, x, groups=3)):
        grads = jax.grad(lambda p, f=f: jnp.sum(jnp.sin(f(p))))(make(params))
        assert type(grads) is type(make(params))
