"""A multi-layer perceptron whose every gradient comes from a spelled adjoint.

Axes: n images of a batch, d = 64 pixels, then `width` features `depth` times, then p = 10 classes.

    H_0 = X,    H_i = relu(H_{i-1} W_i + b_i),    logits = H_depth W + b

`affine` is used as any function of JAX is.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax

from adjax import AffineParams, affine
from adjax.adjoint import wide
from adjax.adjoint.cotangent import varying
from adjax.examples.digits.data import CLASSES, PIXELS
from adjax.examples.digits.model import Model
from adjax.examples.digits.options import Options

Params = list[AffineParams]
Layer = Callable[[AffineParams, Array], Array]


def plain_affine(params: AffineParams, X: Array) -> Array:
    """Y = X W + b, left to autodiff."""
    W, b = params
    return X @ W if b is None else X @ W + b


def forward(params: Params, X: Array, layer: Layer, remat: bool = False) -> Array:
    """The logits of a batch, (n, d) -> (n, p)."""

    def rectified(params: AffineParams, X: Array) -> Array:
        return jax.nn.relu(summed(layer, params, X))

    *hidden, last = params
    for layer_params in hidden:
        X = (jax.checkpoint(rectified) if remat else rectified)(layer_params, X)
    return summed(layer, last, X)


def summed(layer: Layer, params: AffineParams, X: Array) -> Array:
    """A layer; where `shard_map` gives a device a part of the features in, the sum over the devices."""
    if "model" not in varying(jax.typeof(X)):
        return layer(params, X)
    W, b = params
    Y = over_devices(layer(AffineParams(W, None), X))                          # (n, d/m)(d/m, p) -> (n, p)
    return Y if b is None else Y + b[None]


def over_devices(part: Array) -> Array:
    """The sum of what the devices along `model` have, in float32 or wider."""
    return lax.psum(part.astype(wide(part.dtype)), "model").astype(part.dtype)


def init(key: Array, options: Options, dtype: Any) -> Params:
    """One pair (W, b) for each two consecutive sizes, scaled for relu."""
    sizes = [PIXELS, *[options.width] * options.depth, CLASSES]
    keys = jax.random.split(key, len(sizes) - 1)
    return [init_layer(k, d=d, p=p, dtype=dtype) for k, (d, p) in zip(keys, itertools.pairwise(sizes), strict=True)]


@functools.partial(jax.jit, static_argnames=("d", "p", "dtype"))
def init_layer(key: Array, *, d: int, p: int, dtype: Any) -> AffineParams:
    """One pair (W, b); compiled as a whole, which starts sooner than operation by operation."""
    return AffineParams.init(key, d, p, dtype=dtype, kernel_init=jax.nn.initializers.he_normal())


def sizes(options: Options) -> str:
    """`64 → 256 → 256 → 10`."""
    hidden = [str(options.width)] * options.depth if options.depth <= 4 else [f"{options.depth} × {options.width}"]
    return " → ".join([str(PIXELS), *hidden, str(CLASSES)])


MODEL = Model(
    init=init,
    spelled=functools.partial(forward, layer=affine),
    autodiff=functools.partial(forward, layer=plain_affine),
    sizes=sizes,
    layers="adjax.affine",
    plain="X @ W + b",
)
