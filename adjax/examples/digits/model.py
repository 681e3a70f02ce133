"""What the networks of this example share: a network twice, its dtypes, its loss and the gradient of that.

A `Model` is the same network on spelled layers and on plain ones. The first is trained, the second is what `compare`
sets beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from adjax.examples.digits.options import Options

LABEL_SMOOTHING = 0.1

Params = Any
Apply = Callable[[Params, Array], Array]


class Model(NamedTuple):
    """A network: how its parameters start, and the same network on spelled layers and on plain ones.

    Attributes:
        init: (key, options, dtype) ↦ parameters.
        spelled, autodiff: (parameters, images[n, 64]) ↦ logits[n, 10].
        sizes: options ↦ what an image becomes on its way, in words.
        layers, plain: what the layers are, and what stands for them in plain JAX, in words.
    """

    init: Callable[[Array, Options, Any], Params]
    spelled: Apply
    autodiff: Apply
    sizes: Callable[[Options], str]
    layers: str
    plain: str


def master_dtype(dtype: str) -> Any:
    """The dtype of parameters, loss and optimizer: float32 for layers in half precision, else the layers' own."""
    return jnp.float64 if dtype == "float64" else jnp.float32


def logits(params: Params, X: ArrayLike, *, dtype: str, apply: Apply) -> Array:
    """The logits, with the layers in `dtype` and the result in the master dtype."""
    cast = lambda x: jnp.asarray(x, dtype)
    return apply(jax.tree.map(cast, params), cast(X)).astype(master_dtype(dtype))


def loss(params: Params, X: ArrayLike, y: ArrayLike, *, dtype: str, apply: Apply) -> Array:
    """Softmax cross-entropy against smoothed labels, the mean over a batch."""
    Z = logits(params, X, dtype=dtype, apply=apply)
    labels = optax.smooth_labels(jax.nn.one_hot(y, Z.shape[-1], dtype=Z.dtype), LABEL_SMOOTHING)
    return optax.softmax_cross_entropy(Z, labels).mean()
