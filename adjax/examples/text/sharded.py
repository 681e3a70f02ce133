"""The decoder over the devices of a mesh: where its parameters lie, and what its layers say to other devices.

Axes of the mesh: `data` and `fsdp` split the examples, `fsdp` splits the d features of every parameter as well,
`sequence` splits the t characters of an example, and `model` splits what lies between two products (Shoeybi et al.,
2019): the heads, the f features of swiglu, the v characters there are. Of a product whose summed axis is split each
device has a part, so

    several(W, x)                   W split by columns: nothing to say; backwards dx is the sum over the devices
    affine(W, y)                    W split by rows: the sum over the devices; backwards nothing to say
    embed(table, ids)               as affine: a device has some rows, and zeros for other characters
    linear_cross_entropy(W, x)      as several, and the statistics of a row of logits are merged over the devices

which makes one sum forward and one backward of the attention of a block, and of its swiglu. `ready` gathers what fsdp
splits when a block needs it; the adjoint of the gather scatters the sum of the gradients. Of the layers only attention
looks at other characters of an example: along `sequence` keys and values go round a ring.

The layouts of parameters are the same in every mode. Under `auto` and `explicit` the network is the same program, whose
sums and gathers follow from layouts, but for two layers that go through characters in blocks: the ring, and the loss.
Under `shard_map` all of it runs on each device with its part of everything, and the sums are spelled here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P
from jax.sharding import auto_axes

from adjax import AffineParams
from adjax.adjoint import wide
from adjax.examples.parallel.mesh import BATCH, Placement
from adjax.examples.text.decoder import Block, Layers, Params
from adjax.examples.text.plain import PLAIN

GATHERS = "all_gather", "sharding_constraint", "reshard"


def specs(on: Placement, vocabulary: int, *, without: tuple[str, ...] = ()) -> Params:
    """The layout of every parameter. Characters that do not divide over `model` leave that to the features."""
    of: Any = partial(on.spec, without=without)
    table, characters = of("model", "fsdp"), of("fsdp", "model")
    if vocabulary % on.size("model"):
        table, characters = of(None, ("model", "fsdp")), of(("model", "fsdp"), None)
    blocks = Block(
        attention_norm=of(None, "fsdp"),
        qkv=of(None, "fsdp", None, "model"),
        mixed=AffineParams(of(None, "model", "fsdp"), None),
        swiglu_norm=of(None, "fsdp"),
        gate_up=of(None, "fsdp", None, "model"),
        down=AffineParams(of(None, "model", "fsdp"), None),
    )
    return Params(table, blocks, of("fsdp"), AffineParams(characters, None))


def layers_on(on: Placement | None, layers: Layers, vocabulary: int) -> Layers:
    """The layers, on a mesh."""
    if on is None:
        return layers
    if on.mode == "shard_map":
        told = _spelled_out(on, layers)
    elif layers == PLAIN:
        told = _with_layouts(on, layers) if on.mode == "explicit" else _laid_out(on, layers)
    else:
        told = _by_hand(on, layers) if on.mode == "explicit" else _laid_out(on, _by_hand(on, layers))
    told = told._replace(part=partial(_part, on)) if on.mode != "shard_map" else told
    told = told._replace(ready=partial(_ready, on, vocabulary))
    return told._replace(again=partial(jax.checkpoint, policy=_kept)) if "fsdp" in on.mesh.shape else told


def _kept(primitive: Any, *operands: Any, **options: Any) -> bool:
    """Whether a result is kept for the backward pass: not the matrices that are gathered, of all blocks together."""
    return primitive.name not in GATHERS or operands[0].ndim == 1


def _laid_out(on: Placement, layers: Layers) -> Layers:
    """The compiler is told that x is whole between two layers, which makes a sum of what they have in parts."""
    x = on.spec(BATCH, "sequence", None)
    return layers._replace(
        embed=lambda table, ids: on.laid_out(layers.embed(table, ids), x),
        affine=lambda params, y: on.laid_out(layers.affine(params, y), x),
    )


def _with_layouts(on: Placement, layers: Layers) -> Layers:
    """Plain layers that must be told the layout of their results where types have them, and left to the compiler."""
    x, heads = on.spec(BATCH, "sequence", None), on.spec(BATCH, "sequence", "model", None)
    return layers._replace(
        embed=auto_axes(layers.embed, out_sharding=x),
        affine=auto_axes(layers.affine, out_sharding=x),
        attention=auto_axes(layers.attention, out_sharding=heads),
        linear_cross_entropy=auto_axes(layers.linear_cross_entropy, out_sharding=P()),
    )


def _part(on: Placement, ids: Array) -> Array:
    """The characters, laid out as the devices along `sequence` have them."""
    return on.laid_out(ids, _tokens(on, ids)) if "sequence" in on.mesh.shape else ids


def _tokens(on: Placement, x: Array) -> P:
    """The layout of what has the axes (b, t, ...)."""
    return on.spec((*on.batch_spec(len(x)), None)[0], "sequence")


def _by_hand(on: Placement, layers: Layers) -> Layers:
    """Layers that go through characters in blocks, which a compiler would lay across devices: each has its own."""
    run = partial(jax.shard_map, mesh=on.mesh)

    def attention(q: Array, k: Array, v: Array) -> Array:
        heads = on.spec(*_tokens(on, q), "model", None)
        return run(layers.split_attention, in_specs=heads, out_specs=heads)(q, k, v)

    def linear_cross_entropy(params: AffineParams, x: Array, labels: Array) -> Array:
        tokens, columns = _tokens(on, x), (on.spec(None, "model"), on.spec("model"))
        own = partial(layers.linear_cross_entropy, axis_name="model" if "model" in on.mesh.shape else None)
        mean = lambda *of: lax.pmean(own(*of), [name for entry in tokens for name in _names(entry)])
        return run(mean, in_specs=(columns, tokens, tokens), out_specs=P())(tuple(params), x, labels)

    if "sequence" in on.mesh.shape:
        layers = layers._replace(attention=attention)
    return layers._replace(linear_cross_entropy=linear_cross_entropy) if on.tokens else layers


# Each device on its own

def _spelled_out(on: Placement, layers: Layers) -> Layers:
    """What a device computes of its part of the characters and of the features, and says to others."""
    if "sequence" in on.mesh.shape:
        layers = _own_characters(on, layers)
    return _own_features(layers) if "model" in on.mesh.shape else layers


def _own_characters(on: Placement, layers: Layers) -> Layers:
    """Those of the device, at their places in the example."""

    def part(ids: Array) -> Array:
        t = ids.shape[1] // on.size("sequence")
        return lax.dynamic_slice_in_dim(ids, t * lax.axis_index("sequence"), t, axis=1)     # (b, n t) -> (b, t)

    def rotary(x: Array, positions: Array) -> Array:
        return layers.rotary(x, len(positions) * lax.axis_index("sequence") + positions)

    return layers._replace(part=part, rotary=rotary, attention=layers.split_attention)


def _own_features(layers: Layers) -> Layers:
    """Those of the device; between two halves of a block it has the sum of all."""

    def embed(table: Array, ids: Array) -> Array:
        first = len(table) * lax.axis_index("model")
        return lax.psum(layers.embed(table, ids - first), "model")                 # (b, t) -> (b, t, d)

    def affine(params: AffineParams, y: Array) -> Array:
        part = layers.affine(params, y)                                            # (b, t, p/m) -> (b, t, d)
        return lax.psum(part.astype(wide(part.dtype)), "model").astype(part.dtype)

    return layers._replace(
        embed=embed,
        affine=affine,
        linear_cross_entropy=partial(layers.linear_cross_entropy, axis_name="model"),
    )


# Parameters as the layers take them

def _ready(on: Placement, vocabulary: int, params: Any) -> Any:
    """What `fsdp` splits, gathered; characters over `model`, with some that never occur where they do not divide."""
    stored, used = specs(on, vocabulary), specs(on, 0, without=("fsdp",))
    move = partial(_moved, on)
    if isinstance(params, Block):
        one = lambda spec: P(*spec[1:])                                            # of a block, without their axis
        pairs = (jax.tree.map(one, s.blocks, is_leaf=lambda x: isinstance(x, P)) for s in (stored, used))
        return jax.tree.map(move, params, *pairs)
    missing = -vocabulary % on.size("model")
    if missing:
        table, W = jnp.pad(params.table, ((0, missing), (0, 0))), jnp.pad(params.characters.W, ((0, 0), (0, missing)))
        params = params._replace(table=table, characters=AffineParams(W, None))
    outer: Any = [s._replace(blocks=params.blocks) for s in (stored, used)]        # which is None
    params = jax.tree.map(move, params, *outer)
    W = params.characters.W
    return params._replace(characters=AffineParams(W, _never(on, vocabulary, W) if missing else None))


def _moved(on: Placement, x: Array, source: P, target: P) -> Array:
    """From one layout to another that is not split over `fsdp`."""
    if on.mode != "shard_map":
        gathered = on.spec(*source, without=("fsdp",))
        return on.laid_out(on.laid_out(x, gathered), target) if gathered != target else on.laid_out(x, target)
    at = {name: axis for axis, entry in enumerate(source) for name in _names(entry)}
    if "fsdp" in at:
        x = lax.all_gather(x, "fsdp", axis=at["fsdp"], tiled=True)
    to = next((axis for axis, entry in enumerate(target) if "model" in _names(entry)), None)
    if to is not None and to != at["model"]:
        x = lax.all_to_all(x, "model", split_axis=to, concat_axis=at["model"], tiled=True)
    return x


def _names(entry: Any) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _never(on: Placement, vocabulary: int, W: Array) -> Array:
    """A bias of −∞ for the columns that stand for no character."""
    first = W.shape[1] * lax.axis_index("model") if on.mode == "shard_map" else 0
    b = jnp.where(first + jnp.arange(W.shape[1]) < vocabulary, 0, -jnp.inf).astype(W.dtype)
    return b if on.mode == "shard_map" else on.laid_out(b, on.spec("model"))
