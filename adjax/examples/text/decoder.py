"""A decoder that predicts each character of a text from those before it; every gradient is a spelled adjoint.

Axes: b examples, t characters, d = `width` features, h heads of e features, f features between, v characters there are.

    x = E[ids]
    x = x + affine(attention(rotary(q), rotary(k), v)),    q, k, v = affine(rms_norm(x))        `depth` times, and
    x = x + affine(swiglu(gate, up)),                      gate, up = affine(rms_norm(x))
    loss = the mean cross-entropy of rms_norm(x) W against the next character

The layers are an argument of the network, so that the very same one also runs on what plain JAX has for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import adjax
from adjax import AffineParams
from adjax.examples.text.options import Options

FEATURES_BETWEEN = 8 / 3                # times d, as swiglu has three products where others have two


class Block(NamedTuple):
    """Parameters of attention and of swiglu, each with the normalization before it."""

    attention_norm: Array                   # (d,)
    qkv: AffineParams                       # (d, 3 d)
    mixed: AffineParams                     # (d, d)
    swiglu_norm: Array                      # (d,)
    gate_up: AffineParams                   # (d, 2 f)
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
    affine: Callable[[AffineParams, Array], Array]
    rotary: Callable[[Array, Array], Array]
    attention: Callable[[Array, Array, Array], Array]
    swiglu: Callable[[Array, Array], Array]
    linear_cross_entropy: Callable[[AffineParams, Array, Array], Array]


def features(params: Params, ids: Array, layers: Layers, *, heads: int, remat: bool = False) -> Array:
    """What the network knows of the next character, (b, t) -> (b, t, d)."""

    def block(x: Array, p: Block) -> tuple[Array, None]:
        return run_block(p, x, layers, heads), None

    x = layers.embed(params.table, ids)                                            # (b, t) -> (b, t, d)
    x, _ = jax.lax.scan(jax.checkpoint(block) if remat else block, x, params.blocks)
    return layers.rms_norm(params.norm, x)


def run_block(p: Block, x: Array, layers: Layers, heads: int) -> Array:
    """(b, t, d) -> (b, t, d)."""
    qkv = layers.affine(p.qkv, layers.rms_norm(p.attention_norm, x))               # (b, t, d) -> (b, t, 3 d)
    q, k, v = jnp.split(qkv.reshape(*x.shape[:-1], 3 * heads, -1), 3, axis=-2)     # (b, t, h, e) each
    positions = jnp.arange(x.shape[-2])
    mixed = layers.attention(layers.rotary(q, positions), layers.rotary(k, positions), v)
    x = x + layers.affine(p.mixed, mixed.reshape(x.shape))                         # (b, t, h e) -> (b, t, d)
    gate, up = jnp.split(layers.affine(p.gate_up, layers.rms_norm(p.swiglu_norm, x)), 2, axis=-1)
    return x + layers.affine(p.down, layers.swiglu(gate, up))                      # (b, t, f) -> (b, t, d)


def loss(params: Params, ids: Array, layers: Layers, *, heads: int, dtype: Any, remat: bool = False) -> Array:
    """The mean cross-entropy of every next character, in nats: ids[b, t + 1] -> a number."""
    cast = jax.tree.map(lambda p: p.astype(dtype), params)
    x = features(cast, ids[:, :-1], layers, heads=heads, remat=remat)
    return layers.linear_cross_entropy(cast.characters, x, ids[:, 1:]).astype(jnp.float32)


def init(key: Array, options: Options, vocabulary: int) -> Params:
    """Normal entries of variance 1/d; what is added to x starts smaller, so that the sum over blocks stays as large."""
    d, depth = options.width, options.depth
    f = 8 * max(1, round(FEATURES_BETWEEN * d / 8))
    draw = lambda k, *shape, spread=1.0: spread * d**-0.5 * jax.random.normal(k, shape)
    keys = jax.random.split(key, 6)
    ones = jnp.ones((depth, d))
    added = (2 * depth) ** -0.5
    blocks = Block(
        attention_norm=ones,
        qkv=AffineParams(draw(keys[0], depth, d, 3 * d), None),
        mixed=AffineParams(draw(keys[1], depth, d, d, spread=added), None),
        swiglu_norm=ones,
        gate_up=AffineParams(draw(keys[2], depth, d, 2 * f), None),
        down=AffineParams(draw(keys[3], depth, f, d, spread=added * (d / f) ** 0.5), None),
    )
    table, characters = draw(keys[4], vocabulary, d, spread=d**0.5), draw(keys[5], d, vocabulary)
    return Params(table, blocks, jnp.ones(d), AffineParams(characters, None))


SPELLED = Layers(
    embed=adjax.embed,
    rms_norm=lambda scale, x: adjax.rms_norm((scale, None), x),
    affine=adjax.affine,
    rotary=adjax.rotary,
    attention=lambda q, k, v: adjax.attention(q, k, v, causal=True),
    swiglu=adjax.swiglu,
    linear_cross_entropy=adjax.linear_cross_entropy,
)
