"""ring_attention on eight devices: `attention` of the whole sequence, in every mode; what is sent, kept and held."""

import re
from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax import any_mode, ring_attention
from adjax.certify.quick import quick_options
from adjax.layers import attention_ring
from adjax.layers.attention_operands import Block, checked
from tests.cases import Case, assert_close, normal, normal_like
from tests.conftest import DEVICES
from tests.layers.families.attention import arguments, plain_attention
from tests.layers.test_layouts import derivatives
from tests.layers.test_transformations import DIFFERS_BY_SHAPE, expected, on
from tests.layers.test_transformations import problem as problem_of
from tests.sharing import shared

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")

jit = partial(jax.jit, compiler_options=quick_options())
TIME = P(None, "time")
LAYOUTS = {                 # mesh, spec, axis_name
    "8 devices":      ({"time": 8}, TIME, "time"),
    "2 devices":      ({"time": 2}, TIME, "time"),
    "batch and time": ({"data": 2, "time": 4}, P("data", "time"), "time"),
    "time and heads": ({"time": 4, "model": 2}, P(None, "time", "model"), "time"),
    "time over both": ({"slow": 2, "fast": 4}, P(None, ("slow", "fast")), ("slow", "fast")),
}  # fmt: skip
T, OPTIONS = 16, {"softcap": 1.5, "scale": 0.7}


def mesh_of(sizes, kind=AxisType.Auto):
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))


def ring(sizes=(("time", 4),), spec=TIME, axis_name="time", f=ring_attention, check_vma=True, **options):
    """Of the whole sequence."""
    f = partial(f, axis_name=axis_name, **options)
    return jax.shard_map(f, mesh=mesh_of(dict(sizes)), in_specs=spec, out_specs=spec, check_vma=check_vma)


def operands(rng, t=T):
    return normal(rng, 2, t, 4, 3), normal(rng, 2, t, 2, 3), normal(rng, 2, t, 2, 5)


@cache
def problem(causal):
    """Arguments, a cotangent and tangents, and the derivatives of attention over the whole."""
    rng = np.random.default_rng(0)
    args = operands(rng)
    at = args, normal(rng, 2, T, 4, 5), normal_like(rng, args)
    return at, jit(partial(derivatives, partial(plain_attention, causal=causal, **OPTIONS)))(*at)


@pytest.mark.parametrize(
    ("layout", "causal", "check_vma"),
    [
        ("8 devices", True, True),
        *shared([(layout, layout == "batch and time", True) for layout in [*LAYOUTS]], name=str),
        *shared([("8 devices", True, False), ("time and heads", False, False)], name=str),
    ],
)  # fmt: skip
def test_as_attention_of_the_whole_sequence(layout, causal, check_vma):
    at, want = problem(causal)
    f = ring(*LAYOUTS[layout], causal=causal, check_vma=check_vma, **OPTIONS)
    assert_close(jit(partial(derivatives, f))(*at), want, 1e-12)


@pytest.mark.parametrize("causal", shared([True, False], name="causal {}".format))
def test_block_by_block_and_head_by_head(causal):
    """The loops of `attention` within those of the ring: a run of two blocks of queries, and a rest."""
    t, n = 5, 2

    def in_blocks(q, k, v, axis_name):
        at, sight = checked(q, k, v, None, None, causal, 0.7, None, 1.5)
        few = sight._replace(block=Block(2, 1, 1), other=Block(2, 2, 2))
        return attention_ring._ring_attention(at, attention_ring.Ring(axis_name, n, few))

    rng = np.random.default_rng(1)
    args = operands(rng, n * t)
    tangents, u = normal_like(rng, args), normal(rng, 2, n * t, 4, 5)
    both = (jit(lambda f=f: (jax.jvp(f, args, tangents), jax.vjp(f, *args)[1](u)))() for f in (
        ring({"time": n}, f=in_blocks), partial(plain_attention, causal=causal, **OPTIONS)
    ))
    assert_close(*both, 1e-12)


ROWS = [row for row in DIFFERS_BY_SHAPE if row not in ("jacfwd of jacrev", "vmap, last axis")]
CASE = Case(
    "ring_attention", ring({"time": 3}, causal=True, **OPTIONS), partial(plain_attention, causal=True, **OPTIONS),
    arguments((2, 6, 2, 3), (2, 6, 1, 3), 2), linear_in=(2,),
)  # fmt: skip


@pytest.mark.parametrize("row", shared(ROWS, name=str))
def test_transformations(row):
    *values, _ = problem_of(CASE, row)
    assert_close(jit(on(row, CASE.function, CASE))(*values), expected(CASE, row), 1e-12)


def test_gradients_inside_a_shard_map():
    """Where the types know what varies each gradient is that of all devices' loss."""
    (args, u, _), want = problem(True)
    L = lambda u, *args: jnp.sum(u * jnp.sin(ring_attention(*args, axis_name="time", causal=True, **OPTIONS)))
    grad = jax.shard_map(jax.grad(L, (1, 2, 3)), mesh=mesh_of({"time": 4}), in_specs=TIME, out_specs=TIME)
    assert_close(jit(grad)(u, *args), want["grad"], 1e-12)


def test_time_by_hand_and_heads_in_the_types():
    """On a mesh with explicit axes, one of which is the ring's."""
    (args, u, _), want = problem(True)
    mesh = mesh_of({"time": 4, "model": 2}, AxisType.Explicit)
    heads = NamedSharding(mesh, P(None, "time", "model"))
    f = partial(ring_attention, axis_name="time", causal=True, **OPTIONS)
    with jax.set_mesh(mesh):
        f = jax.shard_map(f, in_specs=TIME, out_specs=TIME, axis_names={"time"})
        got = jit(lambda u, *args: jax.vjp(f, *args)[1](u))(*jax.device_put((u, *args), heads))
    assert_close(got, want["vjp"], 1e-12)
    assert all(x.sharding.is_equivalent_to(heads, x.ndim) for x in got)


def test_layers_in_a_loop_recomputed():
    """A scan of layers with jax.checkpoint, as models have it."""
    (args, u, _), _ = problem(True)
    q, k, _ = args
    u, W = u[..., :3], jnp.array([0.5, -0.25])

    def layers(f, q, k, W):
        step = jax.checkpoint(lambda x, w: (x + w * f(x, k, k), None))
        return jnp.sum(u * jax.lax.scan(step, q, W)[0])

    got, want = (jit(jax.grad(partial(layers, f), (0, 1, 2)))(q, k, W) for f in (
        ring(causal=True), partial(plain_attention, causal=True)
    ))
    assert_close(got, want, 1e-12)


def test_later_keys_are_not_looked_at():
    """They may hold anything."""
    (q, k, v), u, _ = problem(True)[0]
    half = T // 2
    poisoned = (x.at[:, half:].set(jnp.nan) for x in (k, v))
    O, dq = jit(lambda *args: (lambda O, back: (O, back(u)[0]))(*jax.vjp(ring(causal=True), *args)))(q, *poisoned)
    want, plain_back = jax.vjp(lambda *x: plain_attention(*x, causal=True), *(x[:, :half] for x in (q, k, v)))
    assert_close(O[:, :half], want, 1e-12)
    assert_close(dq[:, :half], plain_back(u[:, :half])[0], 1e-12)


@pytest.mark.parametrize("dtype", [getattr(jnp, name) for name in shared(["bfloat16", "float16"], name=str)])
def test_half_precision_against_float64(dtype, rng):
    """Saturated scores: errors as of one rounding of the result, in value and cotangents."""
    q, k, v = (4 * x for x in operands(rng, 64))
    u = normal(rng, 2, 64, 4, 5)

    def of(f, t):
        O, back = jax.vjp(f, *(x.astype(t) for x in (q, k, v)))
        return O, *back(u.astype(t))

    both = jit(lambda: (of(ring(), dtype), of(plain_attention, jnp.float64)))()
    for got, want in zip(*both, strict=True):
        assert got.dtype == dtype
        error = np.linalg.norm(got.astype(jnp.float64) - want) / np.linalg.norm(want)
        assert error < 4 * float(jnp.finfo(dtype).eps)


def test_residuals():
    """The operands, and two numbers for every query and head; four devices' one after the other."""
    args = jax.eval_shape(lambda: operands(np.random.default_rng(0)))
    kept = jax.tree.leaves(jax.eval_shape(lambda *args: jax.vjp(ring(causal=True), *args)[1], *args))
    assert sorted(x.shape for x in kept) == sorted([*(x.shape for x in args), *[(4 * 2, 4, T // 4)] * 2])


# What is sent, and what is held

COLLECTIVE = re.compile(r"(\S+) = (\w+\[[\d,]*\])\S* (collective-\w+|all-\w+|reduce-scatter)(?:-start)?\((.*)")


def sent(f, *args, n):
    """How often a block is sent forth and back, by its last axis; nothing else is sent."""
    program = jit(f).lower(*args).compile().as_text()
    loops = re.findall(r"body=%?([\w.-]+)", program)
    assert all(f'"n":"{n - 2}"' in line for line in program.splitlines() if "body=" in line)
    counts = Counter()
    for computation in program.split("\n\n"):
        name = computation.strip().split(" ", 1)[0].lstrip("%")
        for _, shape, kind, how in COLLECTIVE.findall(computation):
            assert kind == "collective-permute"
            to = int(re.search(r"source_target_pairs=\{\{0,(\d+)\}", how)[1])
            counts[shape[-2], {1: "forth", n - 1: "back"}[to]] += n - 2 if name in loops else 1
    return dict(counts)


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_sent(causal):
    """K and V n − 1 times; backward n − 1 times forth, and n − 1 back, and there dK and dV n times."""
    n, ((q, k, v), u, _) = 4, problem(True)[0]
    f = ring(causal=causal)
    assert sent(f, q, k, v, n=n) == {("3", "forth"): n - 1, ("5", "forth"): n - 1}
    back = jax.eval_shape(lambda: jax.vjp(f, q, k, v)[1])
    every = {"forth": n - 1, "back": (n - 1) + n}
    assert sent(lambda back, u: back(u), back, u, n=n) == {(x, way): every[way] for x in "35" for way in every}


@pytest.mark.parametrize("mode", shared(["forward and back", "jvp"], name="temporaries, {}".format))
def test_what_a_device_holds_does_not_grow_with_the_ring(mode):
    def temporaries(n):
        x = jax.ShapeDtypeStruct((1, 128 * n, 2, 16), jnp.float32)
        f = ring({"time": n}, causal=True)
        g = lambda q, k, v: jax.jvp(f, (q, k, v), (k, v, q)) if mode == "jvp" else jax.vjp(f, q, k, v)[1](v)
        return jax.jit(g).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8) <= 1.05 * temporaries(4)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_export(platform):
    """Lowered with its layout; keys and values travel in their own dtype, cotangents in float32."""
    mesh = mesh_of({"time": 4})
    args = jax.eval_shape(lambda: operands(np.random.default_rng(0)))
    q, k, v = (jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=NamedSharding(mesh, TIME)) for x in args)
    f = ring(causal=True)
    both = jax.jit(lambda q, k, v: jax.vjp(f, q, k, v)[1](f(q, k, v)))
    exported = jax.export.export(both, platforms=[platform])(q, k, v)
    assert exported.nr_devices == 4
    dtypes = re.findall(r"collective_permute.*-> tensor<[\dx]+x(\w+)>", exported.mlir_module())
    assert set(dtypes) == {"bf16", "f32"} and "all_gather" not in exported.mlir_module()


# Wrong rules

def one_too_far(right, ring, part, *own):
    dQ, of_keys = right(ring, part, *own)
    return dQ, attention_ring._shifted(of_keys, ring, 1)


WRONG = {                           # what of the backward rule is replaced, and by what
    "dK and dV one device too far": ("_once_back", one_too_far),
    "the mean of each block alone": ("cotangents", lambda right, at, sight, rows, dO, μ: right(at, sight, rows, dO)),
}  # fmt: skip


@pytest.mark.parametrize("planted", WRONG)
def test_wrong_rules_are_seen(planted, monkeypatch):
    right = attention_ring._ring_attention
    name, wrong = WRONG[planted]
    monkeypatch.setattr(attention_ring, name, partial(wrong, getattr(attention_ring, name)))
    again = any_mode(jax.custom_vjp(right.fun, nondiff_argnums=(1,)))           # which remembers nothing
    again.defvjp(right.fwd, right.bwd)
    monkeypatch.setattr(attention_ring, "_ring_attention", again)
    (args, u, _), want = problem(False)
    with pytest.raises(AssertionError, match="error"):
        assert_close(jit(lambda *args: jax.vjp(ring(**OPTIONS), *args)[1](u))(*args), want["vjp"], 1e-12)
