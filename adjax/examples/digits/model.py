"""A multi-layer perceptron whose every gradient comes from a spelled adjoint.

Axes: n images of a batch, d = 64 pixels, then `width` features `depth` times, then p = 10 classes.

    H_0 = X,    H_i = relu(H_{i-1} W_i + b_i),    logits = H_depth W + b

`affine` is used as any function of JAX is. The layer is an argument of the model, so that the very same network also
runs on the plain `X @ W + b`, which `compare` sets beside it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from adjax import AffineParams, affine

LABEL_SMOOTHING = 0.1
LOSS_SCALE = {"float16": 2.0**10}  # float16 ends at 6e-8; the other dtypes have room for the smallest cotangents

Params = list[AffineParams]
Layer = Callable[[AffineParams, Array], Array]


def plain_affine(params: AffineParams, X: Array) -> Array:
    """Y = X W + b, left to autodiff."""
    W, b = params
    return X @ W if b is None else X @ W + b


def mlp(params: Params, X: Array, layer: Layer = affine) -> Array:
    """The logits of a batch, (n, d) -> (n, p)."""
    *hidden, last = params
    for layer_params in hidden:
        X = jax.nn.relu(layer(layer_params, X))
    return layer(last, X)


def init(key: Array, sizes: list[int], dtype: Any) -> Params:
    """One pair (W, b) for each two consecutive sizes, scaled for relu."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [init_layer(k, d=d, p=p, dtype=dtype) for k, (d, p) in zip(keys, itertools.pairwise(sizes), strict=True)]


@functools.partial(jax.jit, static_argnames=("d", "p", "dtype"))
def init_layer(key: Array, *, d: int, p: int, dtype: Any) -> AffineParams:
    """One pair (W, b); compiled as a whole, which starts sooner than operation by operation."""
    return AffineParams.init(key, d, p, dtype=dtype, kernel_init=jax.nn.initializers.he_normal())


def master_dtype(dtype: str) -> Any:
    """The dtype of parameters, loss and optimizer: float32 for layers in half precision, else the layers' own."""
    return jnp.float64 if dtype == "float64" else jnp.float32


def logits(params: Params, X: ArrayLike, *, dtype: str, layer: Layer = affine) -> Array:
    """The logits, with the layers in `dtype` and the result in the master dtype."""
    cast = functools.partial(jnp.asarray, dtype=dtype)
    return mlp(jax.tree.map(cast, params), cast(X), layer).astype(master_dtype(dtype))


def loss(params: Params, X: ArrayLike, y: ArrayLike, *, dtype: str, layer: Layer = affine) -> Array:
    """Softmax cross-entropy against smoothed labels, the mean over a batch."""
    Z = logits(params, X, dtype=dtype, layer=layer)
    labels = optax.smooth_labels(jax.nn.one_hot(y, Z.shape[-1], dtype=Z.dtype), LABEL_SMOOTHING)
    return optax.softmax_cross_entropy(Z, labels).mean()


def loss_and_gradient(
    params: Params, X: ArrayLike, y: ArrayLike, *, dtype: str, layer: Layer = affine
) -> tuple[Array, Params]:
    """The loss and its gradient, differentiated at the loss scale of the dtype and scaled back."""
    scale = LOSS_SCALE.get(dtype, 1.0)
    value, gradient = jax.value_and_grad(lambda params: scale * loss(params, X, y, dtype=dtype, layer=layer))(params)
    return value / scale, jax.tree.map(lambda g: g / scale, gradient)
