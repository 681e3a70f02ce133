"""Pooling itself: every dtype, ties, NaN and infinities, every kind of window, what is kept and what runs."""

import math
import re
from collections import Counter
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import avg_pool, global_avg_pool, max_pool
from adjax.adjoint.undecorated import undecorated
from adjax.certify.quick import quick_options
from adjax.layers import pooling, pooling_average
from adjax.layers.one_pass import in_one_pass
from adjax.layers.pooling_windows import resolved
from tests.cases import assert_close, assert_same_types, normal
from tests.layers.families.pooling import plain_avg, plain_global_avg, plain_max

pytestmark = pytest.mark.shared

NARROW = [jnp.float32, jnp.bfloat16, jnp.float16]
by_name = {"ids": lambda t: t.__name__}
WINDOWS = {                                                         # shape of x, window, options
    "2×2": ((2, 4, 6, 3), (2, 2), {}),
    "overlapping": ((2, 7, 8, 3), (3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1))}),
    "uneven": ((2, 7, 8, 3), (3, 2), {"stride": (1, 3), "padding": ((0, 2), (1, 0))}),
    "gaps": ((2, 9, 5, 3), (2, 1), {"stride": (4, 2)}),
    "gaps and padding": ((2, 9, 3), (2,), {"stride": (3,), "padding": ((1, 1),)}),
    "what is left out": ((1, 8, 1), (3,), {"stride": (3,)}),
    "1-d": ((3, 9, 2), (4,), {"stride": (1,)}),
    "3-d": ((1, 4, 3, 5, 2), (2, 3, 2), {"stride": (2, 1, 3), "padding": ((0, 1), (1, 1), (0, 0))}),
    "no leading axes": ((5, 4, 3), (2, 2), {}),
    "many leading axes": ((2, 1, 3, 5, 4, 2), (2, 3), {"stride": (2, 1)}),
    "sizes of 1": ((1, 1, 1, 1), (1, 1), {}),
    "no examples": ((0, 4, 6, 3), (2, 2), {"padding": ((1, 1), (0, 0))}),
    "no channels": ((2, 4, 6, 0), (3, 3), {"stride": (1, 1), "padding": "SAME"}),
    "more than a byte counts": ((1, 150, 2), (140,), {"stride": (3,), "padding": ((5, 6),)}),
    "many terms": ((1, 12, 13, 1), (9, 9), {"stride": (1, 1)}),
}  # fmt: skip
every_window = pytest.mark.parametrize("at", WINDOWS.values(), ids=WINDOWS)




def quickly(f, *args):
    """f(*args), compiled as a whole and with little effort."""
    return jax.jit(f, compiler_options=quick_options())(*args)


def modes(f, x, dY, dx):
    Y, back = jax.vjp(f, x)
    return Y, back(dY)[0], jax.jvp(f, (x,), (dx,))[1]


def both_modes(f, *at):
    return quickly(partial(modes, f), *at)


def like_output(rng, f, x):
    Y = jax.eval_shape(f, x)
    return normal(rng, *Y.shape, dtype=Y.dtype)


# Windows of every kind

@every_window
def test_max_pool_over_every_window(at, rng):
    shape, window, options = at
    x = jnp.asarray(rng.permutation(math.prod(shape)).reshape(shape) - 10.0)
    ours, plain = (lambda x, f=f: f(x, window, **options) for f in (max_pool, plain_max))
    dY, dx = like_output(rng, plain, x), normal(rng, *shape)
    got, want = both_modes(ours, x, dY, dx), both_modes(plain, x, dY, dx)
    assert_same_types(got, want)
    assert_close(got, want, 1e-12)


@every_window
def test_avg_pool_over_every_window(at, rng):
    shape, window, options = at
    count_padding = len(shape) == 4
    ours, plain = (
        lambda x, f=f: f(x, window, count_padding=count_padding, **options) for f in (avg_pool, plain_avg)
    )
    x, dx = normal(rng, *shape), normal(rng, *shape)
    dY = like_output(rng, plain, x)
    got, want = both_modes(ours, x, dY, dx), both_modes(plain, x, dY, dx)
    assert_same_types(got, want)
    assert_close(got, want, 1e-12)
    assert_close(quickly(lambda dY: jax.linear_transpose(ours, x)(dY)[0], dY), want[1], 1e-12)


@pytest.mark.parametrize("shape", [(3, 4, 2), (2, 3, 1, 5), (2, 3, 4, 2, 2), (0, 3, 2), (2, 3, 0)], ids=str)
def test_global_avg_pool(shape, rng):
    x, dx, dY = normal(rng, *shape), normal(rng, *shape), normal(rng, shape[0], shape[-1])
    got, want = both_modes(global_avg_pool, x, dY, dx), both_modes(plain_global_avg, x, dY, dx)
    assert_same_types(got, want)
    assert_close(got, want, 1e-12)
    assert_close(jax.linear_transpose(global_avg_pool, x)(dY)[0], want[1], 1e-12)


@pytest.mark.parametrize("layer", [max_pool, avg_pool], **by_name)
def test_a_number_for_every_axis(layer, rng):
    for shape in ((2, 6, 3), (2, 6, 5, 3), (2, 6, 5, 4, 3)):
        x, rank = normal(rng, *shape), len(shape) - 2
        each = layer(x, (2,) * rank, stride=(3,) * rank, padding=((1, 1),) * rank)
        assert_close(layer(x, 2, stride=3, padding=1), each, 0)
        assert_close(layer(x, (2,) * rank), layer(x, 2, stride=2, padding="VALID"), 0)
        assert_close(layer(np.asarray(x), [2] * rank), layer(x, 2), 0)


def test_integers(rng):
    for dtype in (jnp.int32, jnp.int8, jnp.uint8):
        x = jnp.asarray(rng.integers(0, 100, (2, 5, 4, 3)), dtype)
        Y = max_pool(x, 3, stride=2, padding=1)
        assert Y.dtype == dtype
        assert np.array_equal(Y, plain_max(x, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1))))
    zero = jax.grad(lambda x: jnp.sum(max_pool(x, 2).astype(float)), allow_int=True)(x)
    assert zero.shape == x.shape and zero.dtype == jax.dtypes.float0


# Which of several

EDGES = {"stride": (2, 1), "padding": ((1, 1), (1, 0))}


def special(rng, kind, dtype, shape=(3, 7, 6, 4)):
    x = rng.standard_normal(shape).round()                          # ties everywhere, and zeros of both signs
    x[rng.random(shape) < 0.5] = {"ties": 0.0, "nan": np.nan, "-inf": -np.inf, "inf": np.inf}[kind]
    return jnp.asarray(x.astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.float64, *NARROW], **by_name)
@pytest.mark.parametrize("kind", ["ties", "nan", "-inf", "inf"])
def test_ties_and_non_finite_values_are_as_in_jax(kind, dtype, rng):
    x = special(rng, kind, dtype)
    ours, plain = (lambda x, f=f: f(x, (3, 2), **EDGES) for f in (max_pool, plain_max))
    dY = like_output(rng, plain, x)
    (Y, dx, _), (plain_Y, plain_dx, _) = (both_modes(f, x, dY, x) for f in (ours, plain))
    assert Y.dtype == dtype and np.array_equal(Y, plain_Y, equal_nan=True)
    assert_close(dx, plain_dx, 8 * float(jnp.finfo(dtype).eps))


NAN, INF = np.nan, np.inf
GOES_TO = {                                                         # one window, padding below it, the chosen element
    "the largest": ([1.0, 3.0, 2.0], 0, 1),
    "the first of equals": ([1.0, 3.0, 3.0], 0, 1),
    "zeros are equal": ([-0.0, 0.0, -1.0], 0, 0),
    "after the last NaN": ([5.0, NAN, 1.0, NAN, 2.0, 3.0, 3.0], 0, 5),
    "a NaN that comes last": ([5.0, 1.0, NAN], 0, 2),
    "all lowest": ([-INF, -INF], 0, 0),
    "the padding": ([-INF, -INF], 1, None),
    "not the padding": ([-INF, 1.0], 1, 1),
}


@pytest.mark.parametrize("at", GOES_TO.values(), ids=GOES_TO)
def test_the_element_that_a_maximum_depends_on(at):
    values, low, chosen = at
    f = lambda x: max_pool(x, len(values) + low, padding=((low, 0),))[0, 0, 0]
    dx = jax.grad(f)(jnp.array(values)[None, :, None])[0, :, 0]
    assert np.flatnonzero(dx).tolist() == ([] if chosen is None else [chosen])


@pytest.mark.parametrize("kind", ["ties", "-inf", "inf"])
def test_forward_mode_is_the_transpose_at_ties_too(kind, rng):
    """Plain JAX's is not on CPUs, where ties are many."""
    x = special(rng, kind, jnp.float64)
    f = lambda x: max_pool(x, (3, 2), **EDGES)
    dY, dx = like_output(rng, f, x), normal(rng, *x.shape)
    _, back, pushed = both_modes(f, x, dY, dx)
    assert_close(jnp.vdot(back, dx), jnp.vdot(dY, pushed), 1e-12)


def test_second_order_at_ties(rng):
    """With P what picks the elements of Y = P x, the Hessian of Σ u sin Y is -Pᵀ diag(u sin Y) P."""
    x = special(rng, "ties", jnp.float64)
    f = lambda x: max_pool(x, (3, 2), **EDGES)
    u, v = like_output(rng, f, x), normal(rng, *x.shape)
    L = lambda x: jnp.sum(u * jnp.sin(f(x)))
    Y, back = jax.vjp(f, x)
    want = back(-u * jnp.sin(Y) * jax.jvp(f, (x,), (v,))[1])[0]
    for product in (
        lambda x: jax.jvp(jax.grad(L), (x,), (v,))[1],
        jax.grad(lambda x: jax.jvp(L, (x,), (v,))[1]),
        jax.grad(lambda x: jnp.vdot(jax.grad(L)(x), v)),
    ):
        assert_close(quickly(product, x), want, 1e-12)


# Half precision

@pytest.mark.parametrize("dtype", NARROW, **by_name)
def test_averages_accumulate_in_float32_and_round_once(dtype, rng):
    x, dY = normal(rng, 2, 30, 3), normal(rng, 2, 11, 3)
    f = lambda x, dY: modes(partial(avg_pool, window=20, stride=1), x, dY, x)[:2]
    got, want = quickly(f, x.astype(dtype), dY.astype(dtype)), quickly(f, x, dY)
    eps = float(jnp.finfo(dtype).eps)
    for value, exact, most in zip(got, want, (np.abs(x).max(), np.abs(dY).max()), strict=True):
        assert value.dtype == dtype
        assert np.all(np.abs(value.astype(float) - exact) <= eps * np.abs(exact) + 64 * 1.2e-7 * most)
    ones = jnp.ones((1, 5000, 1), dtype)                            # a bfloat16 accumulator stops at 256
    assert avg_pool(ones, 5000)[0, 0, 0] == global_avg_pool(ones)[0, 0] == 1


@pytest.mark.parametrize("dtype", NARROW, **by_name)
def test_cotangents_that_meet_in_one_element_add_up_in_float32(dtype):
    x = jnp.zeros((1, 13, 13, 1), dtype).at[0, 6, 6, 0].set(1)
    dY = jnp.ones((1, 7, 7, 1), dtype).at[0, 0, 0, 0].set(512)      # in bfloat16 512 + 1 = 512
    dx = quickly(lambda x, dY: jax.vjp(partial(max_pool, window=7, stride=1), x)[1](dY)[0], x, dY)
    assert dx[0, 6, 6, 0] == 560 and dx.dtype == dtype


# Both formulations

@every_window
def test_what_runs_elsewhere_is_the_same(at, rng):
    """The platform's own operations against those written out for CPUs, whatever the size of the window."""
    shape, window, options = at
    x = jnp.asarray(rng.permutation(math.prod(shape)).reshape(shape) - 10.0)
    windows = resolved("here", x, window, options.get("stride"), options.get("padding", "VALID"))
    s, own = shape[len(shape) - 1 - windows.rank : -1], partial(pooling.native, windows=windows)
    sums = partial(pooling_average.own_sums, windows=windows)
    dY, dx = like_output(rng, own, x), normal(rng, *shape)

    def here(x, dY, dx):
        averages = pooling_average.sums(dx, windows), pooling_average.sums_transpose(dY, windows, s)
        if windows.size > pooling.MOST_POSITIONS:
            return averages
        Y, k = pooling.with_argmax(x, windows)
        return *averages, Y, pooling.put_back(k, dY, windows, s), pooling.pick(k, dx, windows)

    def elsewhere(x, dY, dx):
        return sums(dx), pooling_average.own_sums_transpose(dY, windows, s), *modes(own, x, dY, dx)

    got, want = quickly(here, x, dY, dx), quickly(elsewhere, x, dY, dx)
    assert_close(got, want[: len(got)], 1e-12)
    assert_close(want[1], quickly(lambda dY: jax.linear_transpose(sums, x)(dY)[0], dY), 1e-12)


@pytest.mark.parametrize(("shape", "loops"), [((3, 2, 7, 8, 3), 1), ((5, 7, 8, 3), 0), ((7, 8, 3), 0)])
def test_a_large_padded_array_goes_in_blocks(rng, shape, loops, monkeypatch):
    """Where a divisor of the number of examples makes a block, of at most two examples here."""
    monkeypatch.setattr(pooling, "LARGE_BYTES", 0)
    monkeypatch.setattr(pooling, "may_be_sharded", lambda: False)
    monkeypatch.setattr(pooling, "BLOCK_BYTES", 2 * 7 * 8 * 3 * 4)
    x = jnp.asarray(rng.integers(-5, 5, shape), jnp.float32).at[..., 3:5, 3, 0].set(jnp.nan)
    windows = resolved("here", x, (3, 3), 2, 1)
    in_blocks = jax.jit(lambda x: pooling.few_at_a_time(x, windows))
    assert in_blocks.lower(x).as_text().count("stablehlo.while") == loops
    chex.assert_trees_all_equal(in_blocks(x), pooling.with_argmax(x, windows))


def test_autodiff_of_the_maxima_alone_is_the_rule(rng):
    """Which `gradient_flow` runs, for it opens rules."""
    x = jnp.asarray(rng.integers(-3, 3, (2, 7, 8, 3)), jnp.float32)
    f = lambda x: max_pool(x, 3, stride=2, padding=1)
    dY = normal(rng, *f(x).shape).astype(jnp.float32)
    opened = jax.vjp(undecorated(f), x)[1](dY)[0]
    assert_close(opened, jax.vjp(f, x)[1](dY)[0], 1e-6)


# What is kept, and what runs

def kept(f, *args):
    return sorted((r.shape, str(r.dtype)) for r in jax.tree.leaves(jax.vjp(f, *args)[1]))


def test_residuals():
    x = jnp.zeros((2, 6, 4, 3), jnp.float32)
    assert kept(lambda x: max_pool(x, 2), x) == [((2, 3, 2, 3), "int8"), ((2, 6, 4, 3), "float32")]
    assert kept(lambda x: max_pool(x, (1, 130)), jnp.zeros((2, 1, 130, 3))) == [((2, 1, 130, 3), "float64")]
    assert kept(lambda x: avg_pool(x, 2), x) == []
    assert kept(global_avg_pool, x) == []


def test_nothing_is_computed_for_what_is_not_differentiated():
    x = jnp.zeros((2, 6, 4, 3))
    assert kept(lambda s: s * max_pool(x, 2), 1.0) == [((2, 3, 2, 3), "float64")]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the programs for CPUs")
def test_maxima_and_where_they_are_come_from_one_loop():
    x = jnp.zeros((2, 8, 8, 16), jnp.float32)
    windows = resolved("here", x, 2, None, "VALID")
    program = jax.jit(lambda x: in_one_pass(*pooling.with_argmax(x, windows))).lower(x).compile()
    assert program.as_text().count("fusion(") == 1
    assert program.memory_analysis().temp_size_in_bytes == 0


def test_the_mean_of_everything_compiles_to_the_program_of_autodiff():
    def program(f):
        x, dY = jnp.zeros((4, 6, 5, 8), jnp.float32), jnp.zeros((4, 8), jnp.float32)
        text = jax.jit(lambda x, dY: modes(f, x, dY, x)).lower(x, dY).compile().as_text()
        return Counter(re.findall(r" = \S+ ([a-z-]+)\(", text))

    assert program(global_avg_pool) == program(lambda x: jnp.mean(x, (1, 2)))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the programs for CPUs")
def test_no_serial_scatter_or_gather_is_left():
    x = jnp.zeros((2, 8, 8, 16), jnp.float32)
    for layer in (max_pool, avg_pool):
        for options in ({}, {"stride": 2, "padding": 1}):
            f = lambda x, layer=layer, options=options: layer(x, 3, **options)
            text = jax.jit(lambda x, f=f: modes(f, x, jnp.ones_like(f(x)), x)).lower(x).compile().as_text()
            assert not any(name in text for name in ("scatter(", "gather(", "while("))


def test_no_implicit_rank_promotion(rng):
    x = normal(rng, 2, 7, 6, 3)
    for f in (max_pool, avg_pool):
        g = lambda x, f=f: f(x, 3, stride=2, padding=1)
        at = x, like_output(rng, g, x), x
        want = both_modes(g, *at)
        with jax.numpy_rank_promotion("raise"):
            assert_close(both_modes(g, *at), want, 0)


def test_in_one_pass_is_the_identity(rng):
    x, v = normal(rng, 3, 4), normal(rng, 3, 4)
    (a, b), (da, db) = jax.jvp(lambda x: in_one_pass(2 * x, jnp.argsort(x)), (x,), (v,))
    assert_close((a, da), (2 * x, 2 * v), 0)
    assert np.array_equal(b, jnp.argsort(x)) and db.dtype == jax.dtypes.float0
    assert_close(jax.grad(lambda x: jnp.vdot(in_one_pass(x * x, x)[0], v))(x), 2 * x * v, 1e-12)
    assert_close(jax.vmap(lambda x: in_one_pass(x, -x)[1])(x), -x, 0)
    low = jnp.array([-np.inf, np.nan]), jnp.array([False, True]), jnp.array([np.iinfo(np.int8).min, 1], jnp.int8)
    assert all(np.array_equal(x, y, equal_nan=x.dtype == float) for x, y in zip(low, in_one_pass(*low), strict=True))
