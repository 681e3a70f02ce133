"""A small convolutional network whose every gradient comes from a spelled adjoint.

Axes: n images of a batch, h w their pixels, c channels: `width` in the first block, twice as many in each further one.

    x = relu(group_norm(conv 3 × 3 (x))),  x = max_pool 2 × 2 (x)       `depth` times; then  logits = x W + b

The layers are an argument of the network, so that the very same one also runs on what plain JAX has for them. A
convolution has no bias: that of the normalization behind it does the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from adjax import AffineParams, ConvParams, NormParams, affine, conv, group_norm, max_pool
from adjax.adjoint.cotangent import varying
from adjax.examples.digits.data import CLASSES, SIDE
from adjax.examples.digits.mlp import init_layer, over_devices, plain_affine
from adjax.examples.digits.model import Model
from adjax.examples.digits.options import GROUPS, Options


class Block(NamedTuple):
    """Parameters of a convolution and of the normalization behind it."""

    conv: ConvParams
    norm: NormParams


class Layers(NamedTuple):
    """What the network is made of, each a function of its parameters, if it has any, and of x[n, h, w, c]."""

    conv: Callable[[ConvParams, Array], Array]
    norm: Callable[..., Array]
    pool: Callable[[Array], Array]
    affine: Callable[[AffineParams, Array], Array]


Params = tuple[list[Block], AffineParams]


def forward(params: Params, X: Array, layers: Layers, remat: bool = False) -> Array:
    """The logits of a batch, (n, h w) -> (n, p)."""

    def run_block(block: Block, x: Array) -> Array:
        x = summed(layers.conv, block.conv, x)                                  # (n, h, w, c) -> (n, h, w, o)
        x = jax.nn.relu(layers.norm(block.norm, x, groups=groups_of(x)))
        return layers.pool(x)                                                   # (n, h, w, o) -> (n, h/2, w/2, o)

    blocks, last = params
    x = X.reshape(-1, SIDE, SIDE, 1)
    for block in blocks:
        x = (jax.checkpoint(run_block) if remat else run_block)(block, x)
    return layers.affine(last, x.reshape(len(x), -1))                           # (n, h w c) -> (n, p)


def summed(layer: Callable[[ConvParams, Array], Array], params: ConvParams, x: Array) -> Array:
    """A convolution; where `shard_map` gives a device a part of the channels in, the sum over the devices."""
    y = layer(params, x)                                                        # (n, h, w, c/m) -> (n, h, w, o)
    return over_devices(y) if "model" in varying(jax.typeof(x)) else y


def groups_of(x: Array) -> int:
    """The groups of channels; where `shard_map` gives a device a part of the channels, those of that part."""
    devices = lax.axis_size("model") if "model" in varying(jax.typeof(x)) else 1
    return math.gcd(GROUPS, x.shape[-1] * devices) // devices


def plain_conv(params: ConvParams, x: Array) -> Array:
    """A convolution that keeps the size of the image, left to autodiff."""
    return lax.conv_general_dilated(x, params.W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_group_norm(params: Any, x: Array, groups: int, eps: float = 1e-5) -> Array:
    """Each group of channels of each image less its mean, divided by its deviation, left to autodiff."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    mean, var = (statistic(grouped, axis=(1, 2, 4), keepdims=True) for statistic in (jnp.mean, jnp.var))
    return ((grouped - mean) * lax.rsqrt(var + eps)).reshape(x.shape) * params.scale + params.bias


def plain_max_pool(x: Array) -> Array:
    """The largest of each two by two pixels, left to autodiff."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def init(key: Array, options: Options, dtype: Any) -> Params:
    """Filters and weights scaled for relu; every normalization starts as the bare one."""
    channels = [1, *_channels(options)]
    *keys, last = jax.random.split(key, options.depth + 1)
    blocks = [init_block(k, c=c, o=o, dtype=dtype) for k, c, o in zip(keys, channels, channels[1:], strict=False)]
    features = channels[-1] * (SIDE >> options.depth) ** 2
    return blocks, init_layer(last, d=features, p=CLASSES, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("c", "o", "dtype"))
def init_block(key: Array, *, c: int, o: int, dtype: Any) -> Block:
    """A block from c to o channels; compiled as a whole, which starts sooner than operation by operation."""
    W = jax.nn.initializers.he_normal()(key, (3, 3, c, o), dtype)
    return Block(ConvParams(W, None), NormParams.init(o, dtype))


def sizes(options: Options) -> str:
    """`8×8×1 → 4×4×32 → 2×2×64 → 10`."""
    sides = [SIDE >> i for i in range(options.depth + 1)]
    images = [f"{s}×{s}×{c}" for s, c in zip(sides, [1, *_channels(options)], strict=True)]
    return " → ".join([*images, str(CLASSES)])


def _channels(options: Options) -> list[int]:
    return [options.width << i for i in range(options.depth)]


MODEL = Model(
    init=init,
    spelled=functools.partial(forward, layers=Layers(conv, group_norm, functools.partial(max_pool, window=2), affine)),
    autodiff=functools.partial(
        forward, layers=Layers(plain_conv, plain_group_norm, plain_max_pool, plain_affine)
    ),
    sizes=sizes,
    layers="adjax.conv, group_norm, max_pool, affine",
    plain="lax.conv, lax.reduce_window, jnp.mean",
)
