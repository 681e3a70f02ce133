"""A decoder that predicts each character of a text from those before it; every gradient is a spelled adjoint.

Axes: b examples, t characters, d = `width` features, h heads of e features, f features between, v characters there are.

    x = E[ids]
    x = x + affine(attention(rotary(q), rotary(k), v)),    q, k, v = affine(rms_norm(x))        `depth` times, and
    x = x + affine(swiglu(gate, up)),                      gate, up = affine(rms_norm(x))
    loss = the mean cross-entropy of rms_norm(x) W against the next character

The layers are an argument of the network, so that the very same one also runs on what plain JAX has for them, and over
the devices of a mesh (`sharded`): there `several` gives features that are split over devices, and `affine` takes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import adjax
from adjax import AffineParams
from adjax.examples.text.options import Options, features_between


class Block(NamedTuple):
    """Parameters of attention and of swiglu, each with the normalization before it."""

    attention_norm: Array                   # (d,)
    qkv: Array                              # (d, 3, d)
    mixed: AffineParams                     # (d, d)
    swiglu_norm: Array                      # (d,)
    gate_up: Array                          # (d, 2, f)
    down: AffineParams                      # (f, d)


class Params(NamedTuple):
    """All parameters; those of the blocks have a leading axis for the block."""

    table: Array                            # (v, d)
    blocks: Block
    norm: Array                             # (d,)
    characters: AffineParams                # (d, v)


class Layers(NamedTuple):
    """What the network is made of."""

    embed: Callable[[Array, Array], Array]
    rms_norm: Callable[[Array, Array], Array]
    several: Callable[[Array, Array], Array]    # k linear maps of the same x, (b, t, d) -> (b, t, k, p)
    affine: Callable[[AffineParams, Array], Array]
    rotary: Callable[[Array, Array], Array]
    attention: Callable[[Array, Array, Array], Array]
    split_attention: Callable[[Array, Array, Array], Array] # of a device's part of the characters, along `sequence`
    swiglu: Callable[[Array, Array], Array]
    linear_cross_entropy: Callable[..., Array]
    ready: Callable[[Any], Any] = lambda params: params     # parameters as they are stored ↦ as the layers take them
    again: Callable[[Any], Any] = lambda block: block       # a block that computes something again backwards
    part: Callable[[Array], Array] = lambda ids: ids        # of the characters, those that a device has


def features(params: Params, ids: Array, layers: Layers, *, heads: int, remat: bool = False) -> Array:
    """What the network knows of the next character, (b, t) -> (b, t, d)."""

    def block(x: Array, p: Block) -> tuple[Array, None]:
        return run_block(layers.ready(p), x, layers, x.shape[-1] // heads), None

    x = layers.embed(params.table, ids)                                            # (b, t) -> (b, t, d)
    x, _ = jax.lax.scan(jax.checkpoint(block) if remat else layers.again(block), x, params.blocks)
    return layers.rms_norm(params.norm, x)


def run_block(p: Block, x: Array, layers: Layers, e: int) -> Array:
    """(b, t, d) -> (b, t, d)."""
    qkv = layers.several(p.qkv, layers.rms_norm(p.attention_norm, x))              # (b, t, d) -> (b, t, 3, h e)
    q, k, v = jnp.unstack(qkv.reshape(*qkv.shape[:-1], -1, e), axis=2)             # (b, t, h, e) each
    positions = jnp.arange(x.shape[-2])
    mixed = layers.attention(layers.rotary(q, positions), layers.rotary(k, positions), v)
    x = x + layers.affine(p.mixed, mixed.reshape(*x.shape[:-1], -1))               # (b, t, h e) -> (b, t, d)
    gate, up = jnp.unstack(layers.several(p.gate_up, layers.rms_norm(p.swiglu_norm, x)), axis=2)
    return x + layers.affine(p.down, layers.swiglu(gate, up))                      # (b, t, f) -> (b, t, d)


def loss(params: Params, ids: Array, layers: Layers, *, heads: int, dtype: Any, remat: bool = False) -> Array:
    """The mean cross-entropy of every next character, in nats: ids[b, t + 1] -> a number."""
    cast = jax.tree.map(lambda p: p.astype(dtype), params)
    ready = layers.ready(cast._replace(blocks=None))._replace(blocks=cast.blocks)
    x = features(ready, layers.part(ids[:, :-1]), layers, heads=heads, remat=remat)
    return layers.linear_cross_entropy(ready.characters, x, layers.part(ids[:, 1:])).astype(jnp.float32)


def init(key: Array, options: Options, vocabulary: int) -> Params:
    """Normal entries of variance 1/d; what is added to x starts smaller, so that the sum over blocks stays as large."""
    d, depth = options.width, options.depth
    f = features_between(d)
    draw = lambda k, *shape, spread=1.0: spread * d**-0.5 * jax.random.normal(k, shape)
    keys = jax.random.split(key, 6)
    ones = jnp.ones((depth, d))
    added = (2 * depth) ** -0.5
    blocks = Block(
        attention_norm=ones,
        qkv=draw(keys[0], depth, d, 3, d),
        mixed=AffineParams(draw(keys[1], depth, d, d, spread=added), None),
        swiglu_norm=ones,
        gate_up=draw(keys[2], depth, d, 2, f),
        down=AffineParams(draw(keys[3], depth, f, d, spread=added * (d / f) ** 0.5), None),
    )
    table, characters = draw(keys[4], vocabulary, d, spread=d**0.5), draw(keys[5], d, vocabulary)
    return Params(table, blocks, jnp.ones(d), AffineParams(characters, None))


SPELLED = Layers(
    embed=adjax.embed,
    rms_norm=lambda scale, x: adjax.rms_norm((scale, None), x),
    several=functools.partial(adjax.einsum, "dkp,btd->btkp"),
    affine=adjax.affine,
    rotary=adjax.rotary,
    attention=functools.partial(adjax.attention, causal=True),
    split_attention=functools.partial(adjax.ring_attention, axis_name="sequence", causal=True),
    swiglu=adjax.swiglu,
    linear_cross_entropy=adjax.linear_cross_entropy,
)
