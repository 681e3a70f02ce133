"""layer_norm and rms_norm: Y = scale (X − μ)/√(σ² + ε) + bias, with the statistics of each row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import NormParams, layer_norm, rms_norm
from tests.cases import Case, Certified, Layout
from tests.layers.families.normalization import arguments, plain

Norm = Callable[..., Array]


def plain_layer_norm(params: Any, x: Array, *, eps: float = 1e-5) -> Array:
    """What autodiff is asked about."""
    return plain(params, x, x.mean(-1, keepdims=True), x.var(-1, keepdims=True), eps)


def plain_rms_norm(params: Any, x: Array, *, eps: float = 1e-6) -> Array:
    """What autodiff is asked about."""
    return plain(params, x, jnp.zeros_like(x), jnp.mean(x * x, -1, keepdims=True), eps)


def both(layer: Norm, rms: Norm) -> Callable[..., Any]:
    """Both, with half of the parameters missing in each."""

    def norms(params: Any, x: Array) -> tuple[Array, Array]:
        scale, bias = params
        return layer((None, bias), x), rms((scale, None), x)

    return norms


NORMS, PLAIN_NORMS = both(layer_norm, rms_norm), both(plain_layer_norm, plain_rms_norm)
CASES = [
    Case("layer_norm", layer_norm, plain_layer_norm, arguments(3, 4), linear_in=(0,)),
    Case("layer_norm rms_norm", NORMS, PLAIN_NORMS, arguments(4, 2, 3)),
]


def certified(name: str, f: Norm, dtype: Any, *shape: int, given: str = "scale bias", **more: Any) -> Certified:
    made = arguments(*shape, given=given)(np.random.default_rng(1))
    return Certified(name, f, jax.tree.map(lambda x: x.astype(dtype), made), **more)


CERTIFIED = [
    certified("layer_norm, two axes", layer_norm, jnp.float32, 3, 2, 5, everywhere=True),
    certified("layer_norm, one row", layer_norm, jnp.float64, 5),
    certified("layer_norm, a large eps", partial(layer_norm, eps=0.5), jnp.float32, 3, 4),
    certified("layer_norm, no parameters", layer_norm, jnp.float32, 3, 4, given=""),
    certified("layer_norm, bfloat16", layer_norm, jnp.bfloat16, 3, 4),
    certified("layer_norm, float16", layer_norm, jnp.float16, 3, 4),
    certified("rms_norm, rows", rms_norm, jnp.float32, 3, 4, given="scale"),
    certified("rms_norm, one row", rms_norm, jnp.float64, 5, given="scale"),
    certified("rms_norm, a large eps", partial(rms_norm, eps=0.5), jnp.float32, 3, 4, given="scale"),
    certified("rms_norm, a bias", rms_norm, jnp.float32, 2, 1, 3),
    certified("rms_norm, bfloat16", rms_norm, jnp.bfloat16, 3, 4, given="scale"),
    certified("rms_norm, no parameters", rms_norm, jnp.float16, 3, 4, given=""),
]

SHARDED = Case("layer_norm rms_norm", NORMS, PLAIN_NORMS, arguments(8, 3, 4))
ROWS = (NormParams(P(), P()), P("data"))
FEATURES = (NormParams(P("model"), P("model")), P("data", None, "model"))
LAYOUTS = [
    Layout("layer_norm rms_norm data", SHARDED, ROWS, (P("data"),) * 2),
    Layout("layer_norm rms_norm features", SHARDED, FEATURES, (P("data", None, "model"),) * 2, ("auto", "explicit")),
]
