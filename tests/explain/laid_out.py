"""The decoder of `python -m adjax train text` laid out over devices, block after block and not in a loop."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adjax
from adjax import AffineParams, Decoder
from adjax.examples.text.decoder import SPELLED, Block, run_block


def params_like(of: Decoder, dtype=jnp.float32):
    """The types of the parameters."""
    d, f, v = of.width, of.between, of.vocabulary
    block = Block((d,), (d, 3, d), AffineParams((d, d), None), (d,), (d, 2, f), AffineParams((f, d), None))
    shapes = {"table": (v, d), "blocks": [block] * of.depth, "norm": (d,), "words": (d, v)}
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, dtype), shapes, is_leaf=lambda x: type(x) is tuple)


def norm(scale, x):
    return adjax.rms_norm((scale, None), x)


def loss(of: Decoder, params, ids):
    """Its blocks are no loop: XLA counts the body of a loop once."""
    run = lambda p, x: run_block(p, x, SPELLED, of.width // of.heads)
    block = jax.checkpoint(run) if of.remat else run
    x = adjax.embed(params["table"], ids[:, :-1])
    for p in params["blocks"]:
        x = block(p, x)
    return adjax.linear_cross_entropy((params["words"], None), norm(params["norm"], x), ids[:, 1:])


def layout(of: Decoder, columns, rows):
    """Of the parameters: split by heads, features between and words, those of norms whole."""
    block = Block(*(P(), P(columns[0], None, columns[1]), AffineParams(P(*rows), None)) * 2)
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
