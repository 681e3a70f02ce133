"""The decoder of `python -m adjax train text`, block after block, laid out over devices, and what its programs send.

Its layers and the sizes of its parameters are those of the example. q, k and v, gate and up each have an axis of their
own, so that each device has whole heads, and nothing need move to split them.
"""

import functools
import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adjax
from adjax import Decoder

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
BLOCK = "attention_norm", "qkv", "mixed", "swiglu_norm", "gate_up", "down"


def params_like(of: Decoder, dtype=jnp.float32):
    """The types of the parameters."""
    d, f, v = of.width, of.between, of.vocabulary
    block = dict(zip(BLOCK, ((d,), (d, 3, d), (d, d), (d,), (d, 2, f), (f, d)), strict=True))
    shapes = {"table": (v, d), "blocks": [block] * of.depth, "norm": (d,), "words": (d, v)}
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, dtype), shapes, is_leaf=lambda x: type(x) is tuple)


def run_block(p, x, heads):
    several = lambda W, x: jnp.unstack(adjax.einsum("dkp,btd->btkp", W, x), axis=2)
    q, k, v = (y.reshape(*y.shape[:2], heads, -1) for y in several(p["qkv"], norm(p["attention_norm"], x)))
    positions = jnp.arange(x.shape[1])
    q, k = (adjax.rotary(y, positions) for y in (q, k))
    mixed = adjax.attention(q, k, v, causal=True)
    x = x + adjax.affine((p["mixed"], None), mixed.reshape(x.shape))
    return x + adjax.affine((p["down"], None), adjax.swiglu(*several(p["gate_up"], norm(p["swiglu_norm"], x))))


def norm(scale, x):
    return adjax.rms_norm((scale, None), x)


def loss(of: Decoder, params, ids):
    """Its blocks are no loop: XLA counts the body of a loop once."""
    block = jax.checkpoint(run_block, static_argnums=2) if of.remat else run_block
    x = adjax.embed(params["table"], ids[:, :-1])
    for p in params["blocks"]:
        x = block(p, x, of.heads)
    return adjax.linear_cross_entropy((params["words"], None), norm(params["norm"], x), ids[:, 1:])


def layout(of: Decoder, columns, rows):
    """Of the parameters: split by heads, features between and words, those of norms whole."""
    block = dict(zip(BLOCK, (P(), P(columns[0], None, columns[1]), P(*rows)) * 2, strict=True))
    return {"table": P(*rows), "blocks": [block] * of.depth, "norm": P(), "words": P(*columns)}


@functools.cache
def compiled(of: Decoder, data: int = 1, tensor: int = 1, fsdp: int = 1):
    """The loss and its gradient, on simulated devices: split as in Megatron-LM, and rows over fsdp."""
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = jax.make_mesh((data, fsdp, tensor), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3, devices=devices)
    specs = layout(of, ("fsdp", "tensor"), (("tensor", "fsdp"), None))
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))
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
