"""attention itself: every option against the scores written out, what is kept, how memory grows."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax import attention
from adjax.layers import attention_blocks
from adjax.layers.attention import _attention
from adjax.layers.attention_operands import Block, checked
from tests.cases import assert_close, normal
from tests.conftest import DEVICES
from tests.layers.families.attention import in_blocks, plain_attention

pytestmark = pytest.mark.shared

OPTIONS = {                                                         # t, s, g, r, rows, options
    "blocks and a rest": (7, 5, 2, 3, 2, {}),
    "one block": (3, 5, 1, 2, 3, {}),
    "more bands than one": (5, 5, 1, 1, 1, {"causal": True}),
    "fewer keys than queries": (9, 4, 2, 1, 2, {"causal": True}),
    "causal window": (9, 9, 1, 2, 2, {"causal": True, "window": 3}),
    "window beyond the keys": (9, 3, 1, 1, 2, {"window": 2}),
    "window wider than all": (4, 5, 1, 1, 2, {"window": 40, "causal": True}),
    "softcap and scale": (5, 4, 1, 2, 2, {"softcap": 0.7, "scale": -1.3}),
}
every_option = pytest.mark.parametrize("at", OPTIONS.values(), ids=OPTIONS)


def operands(rng, t, s, g, r):
    return normal(rng, 2, t, g * r, 4), normal(rng, 2, s, g, 4), normal(rng, 2, s, g, 3)


@every_option
def test_every_option_in_both_modes_and_orders(at, rng, monkeypatch):
    monkeypatch.setattr(attention_blocks, "BANDS", 2)
    t, s, g, r, rows, options = at
    given = operands(rng, t, s, g, r)
    tangents, u = jax.tree.map(lambda x: normal(rng, *x.shape), given), normal(rng, 2, t, g * r, 3)

    def everything(f):
        f = lambda *x, f=f: f(*x, rows=rows, **options)
        value, back = jax.vjp(f, *given)
        gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(f(*x)) * u), (0, 1, 2))
        return value, back(u), jax.jvp(f, given, tangents)[1], jax.jvp(gradient, given, tangents)[1]

    ours, plain = (jax.jit(lambda f=f: everything(f))() for f in (in_blocks, plain_attention))
    assert_close(ours, plain, 1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (7, 1), (4, 1, 5), (2, 4, 7, 5), (2, 1, 1, 1)])
def test_the_gradient_of_a_bias_has_its_shape(shape, rng):
    q, k, v = operands(rng, 7, 5, 2, 2)
    bias, u = normal(rng, *shape), normal(rng, 2, 7, 4, 3)
    of = lambda f: jax.jit(jax.grad(lambda b: jnp.sum(f(q, k, v, b) * u)))(bias)
    got, want = of(in_blocks), of(plain_attention)
    assert got.shape == shape
    np.testing.assert_allclose(got, want, atol=1e-13)


@pytest.mark.parametrize("block", [(2, 1, 1), (2, 1, 2), (2, 1, 4), (2, 2, 4), (2, 4, 4)], ids=str)
def test_heads_and_examples_at_a_time(block, rng):
    """Some heads of an example, all heads of some examples, everything; biases of each head, and shared by examples."""
    q, k, v = normal(rng, 4, 3, 8, 2), normal(rng, 4, 5, 4, 2), normal(rng, 4, 5, 4, 3)
    for bias in (normal(rng, 4, 8, 3, 5), normal(rng, 8, 1, 5), normal(rng, 4, 1, 1, 5)):
        given = q, k, v, bias
        tangents, u = jax.tree.map(lambda x: normal(rng, *x.shape), given), normal(rng, 4, 3, 8, 3)

        def ours(q, k, v, bias):
            at, sight = checked(q, k, v, None, bias, False, None, None, None)
            return _attention(at, sight._replace(block=Block(*block), other=Block(3, 4, 4)))

        def both(f, given=given, tangents=tangents, u=u):
            return jax.vjp(f, *given)[1](u), jax.jvp(f, given, tangents)

        assert_close(*(jax.jit(lambda f=f: both(f))() for f in (ours, plain_attention)), 1e-12)


def of_one_process(code):
    """What a process with one CPU device prints."""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blocks_on_one_device():
    """Heads divide g, examples divide b, all heads if of more than one example; no larger than a block may be."""
    code = """if True:
        import itertools
        from adjax.layers.attention_operands import CPU_BLOCK_BYTES, LEAST_ROWS, _blocks
        sizes = (0, 1, 6), (1, 100, 5000), (0, 77, 9000), (1, 6), (1, 4), (False, True)
        for b, t, s, g, r, causal in itertools.product(*sizes):
            block, other = _blocks((b, t, g * r, 8), s, g, causal)
            assert g % block.heads == 0 and (block.heads == g or block.examples <= 1) and other[1:] == (b, g)
            assert b == block.examples == 0 or b % block.examples == 0
            small = 4 * r * s * block.rows * block.heads * block.examples <= CPU_BLOCK_BYTES
            assert 1 <= block.rows <= t and (small or block.rows <= LEAST_ROWS and block.heads * block.examples <= 1)
            print(block != other)
    """
    assert set(of_one_process(code).split()) == {"True", "False"}


@pytest.mark.parametrize("spec", [P("data"), P(None, None, "data")], ids=["examples", "heads"])
def test_sharded_examples_and_heads_are_not_gathered(spec):
    """Where the partitioner decides, at a size that one device takes head by head."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.ShapeDtypeStruct((8, 512, 8, 32), jnp.float32, sharding=NamedSharding(mesh, spec))
    program = jax.jit(lambda q, k, v, dO: jax.vjp(attention, q, k, v)[1](dO)).lower(x, x, x, x).compile().as_text()
    assert "while(" in program and "all-gather" not in program


def test_a_query_that_sees_nothing(rng):
    """Zeros, whatever the keys hold, and also where a bias of −∞ hides them all."""
    q, k, v = operands(rng, 4, 5, 1, 2)
    mask = jnp.ones((4, 5), bool).at[1].set(False)
    hidden = jnp.zeros((4, 5)).at[1].set(-jnp.inf)
    for options in ({"mask": mask}, {"bias": hidden}):
        f = lambda q, k, v, options=options: attention(q, k, v, **options)
        O, back = jax.vjp(f, q, k, v)
        dq, dk, dv = back(jnp.zeros_like(O).at[:, 1].set(1.0))
        assert not O[:, 1].any() and not dq.any() and not dk.any() and not dv.any()
        assert np.isfinite(jax.jvp(f, (q, k, v), (q, k, v))[1]).all()


def test_keys_that_nobody_sees_may_hold_anything(rng):
    q, k, v = operands(rng, 4, 5, 1, 1)
    mask = jnp.arange(5) < 3
    f = lambda k, v: attention(q, k, v, mask=mask)
    assert_close(f(k.at[:, 3:].set(1e300), v.at[:, 3:].set(1e30)), f(k, v), 1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_half_precision_against_float64(dtype, rng):
    """Many keys, saturated scores: errors as of one rounding of the result."""
    shapes = ((1, 6, 2, 8), (1, 300, 2, 8), (1, 300, 2, 4))
    q, k, v = (4 * normal(rng, *shape, dtype=dtype) for shape in shapes)
    u = normal(rng, 1, 6, 2, 4)
    of = lambda f, t: jax.vjp(f, *(x.astype(t) for x in (q, k, v)))[1](u.astype(t))
    for got, want in zip(of(attention, dtype), of(plain_attention, jnp.float64), strict=True):
        assert got.dtype == dtype
        error = np.linalg.norm(got.astype(jnp.float64) - want) / np.linalg.norm(want)
        assert error < 4 * float(jnp.finfo(dtype).eps)


def test_residuals():
    q, k, v = jnp.zeros((2, 6, 4, 3)), jnp.zeros((2, 5, 2, 3)), jnp.zeros((2, 5, 2, 7))
    kept = sorted(r.shape for r in jax.tree.leaves(jax.vjp(attention, q, k, v)[1]))
    assert kept == sorted([q.shape, k.shape, v.shape, (2, 4, 6), (2, 4, 6)])


@pytest.mark.parametrize("mode", ["forward and back", "jvp"])
def test_memory_grows_as_the_length(mode):
    """Four times the length, at most 4.4 times the temporaries; the scores alone would grow sixteenfold."""
    def temporaries(t):
        x = jax.ShapeDtypeStruct((1, t, 2, 16), jnp.float32)
        f = lambda q, k, v: attention(q, k, v, causal=True)
        g = lambda q, k, v: jax.jvp(f, (q, k, v), (k, v, q)) if mode == "jvp" else jax.vjp(f, q, k, v)[1](v)
        return jax.jit(g).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8192) <= 4.4 * temporaries(2048)


@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1)])
def test_sizes_of_nothing_and_one(sizes):
    t, s, d = sizes
    q, k, v = jnp.ones((2, t, 2, d)), jnp.ones((2, s, 1, d)), jnp.ones((2, s, 1, 3))
    O, back = jax.vjp(attention, q, k, v)
    assert O.shape == (2, t, 2, 3)
    assert [x.shape for x in back(O)] == [q.shape, k.shape, v.shape]
    np.testing.assert_allclose(O, float(s > 0))
