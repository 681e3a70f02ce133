"""The decoder of `python -m adjax train text`, laid out over devices, and what its compiled programs send.

Its layers, its parameters and their shapes are those of the example. The columns of qkv and gate_up are in another
order, head by head and feature by feature, so that each device has whole heads and nothing need move to split them.
"""

import functools
import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from adjax import AffineParams, Decoder
from adjax.examples.text.decoder import SPELLED, Block, Params, init
from adjax.examples.text.options import Options

P, L = PartitionSpec, SPELLED
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def params_like(of: Decoder):
    """The types of the parameters, float32."""
    options = Options(width=of.width, depth=of.depth, heads=of.heads)
    types = jax.eval_shape(lambda: init(jax.random.key(0), options, of.vocabulary))
    return jax.tree.map(lambda t: jax.ShapeDtypeStruct(t.shape, jnp.float32), types)


def run_block(p, x, heads):
    b, t, d = x.shape
    columns = L.affine(p.qkv, L.rms_norm(p.attention_norm, x)).reshape(b, t, heads, 3, d // heads)
    q, k, v = (columns[:, :, :, i] for i in range(3))
    positions = jnp.arange(t)
    mixed = L.attention(L.rotary(q, positions), L.rotary(k, positions), v)
    x = x + L.affine(p.mixed, mixed.reshape(x.shape))
    columns = L.affine(p.gate_up, L.rms_norm(p.swiglu_norm, x)).reshape(b, t, -1, 2)
    return x + L.affine(p.down, L.swiglu(columns[..., 0], columns[..., 1]))


def loss(of: Decoder, params, ids):
    """Its blocks one after the other: XLA counts the body of a loop once."""
    block = jax.checkpoint(run_block, static_argnums=2) if of.remat else run_block
    x = L.embed(params.table, ids[:, :-1])
    for i in range(of.depth):
        x = block(jax.tree.map(lambda p, i=i: p[i], params.blocks), x, of.heads)
    return L.linear_cross_entropy(params.characters, L.rms_norm(params.norm, x), ids[:, 1:])


def layout(columns, rows):
    """Of the parameters: those of heads, features between and words by columns or by rows, norms whole."""
    split = lambda *axes: AffineParams(P(*axes), None)
    first, second = split(None, *columns), split(None, *rows)
    return Params(P(*rows), Block(P(), first, second, P(), first, second), P(), split(*columns))


MEGATRON = layout(columns=(None, "tensor"), rows=("tensor", None))
SHARDED = layout(columns=("fsdp", None), rows=("fsdp", None))


@functools.cache
def compiled(of: Decoder, data: int = 1, tensor: int = 1, fsdp: int = 1):
    """The loss and its gradient, on data × fsdp × tensor simulated devices."""
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = jax.make_mesh((data, fsdp, tensor), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3, devices=devices)
    is_spec = lambda x: isinstance(x, P)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), SHARDED if fsdp > 1 else MEGATRON, is_leaf=is_spec)
    typed = lambda t, place: jax.ShapeDtypeStruct(t.shape, t.dtype, sharding=place)
    params = jax.tree.map(typed, params_like(of), places)
    tokens = NamedSharding(mesh, P(("data", "fsdp")))
    ids = jax.ShapeDtypeStruct((of.batch, of.context + 1), jnp.int32, sharding=tokens)
    step = jax.value_and_grad(lambda params, ids: loss(of, params, ids))
    with jax.set_mesh(mesh):
        return jax.jit(step, out_shardings=(NamedSharding(mesh, P()), places)).lower(params, ids).compile()


def sent(program) -> Counter:
    """Bytes of the arrays of all collectives of a compiled program, by kind."""
    found: Counter = Counter()
    for types, kind in re.findall(rf"= (.*?) ({KINDS})(?:-start)?\(", program.as_text()):
        for bits, shape in re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", types):
            found[kind] += int(bits) // 8 * math.prod(map(int, filter(None, shape.split(","))))
    return found
