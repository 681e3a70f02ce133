"""softmax and log_softmax: P = exp(X) / Σ exp(X)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import log_softmax, softmax
from tests.cases import Case, Certified, Layout, normal


def plain_softmax(x: Array, *, axis: Any = -1, where: Any = None) -> Array:
    """What autodiff is asked about."""
    e = jnp.exp(x) if where is None else jnp.where(where, jnp.exp(x), 0)
    return e / e.sum(axis, keepdims=True)


def plain_log_softmax(x: Array, *, axis: Any = -1) -> Array:
    """What autodiff is asked about."""
    return x - jnp.log(jnp.exp(x).sum(axis, keepdims=True))


def arguments(*shape: int) -> Callable[[np.random.Generator], tuple[Array]]:
    return lambda rng: (normal(rng, *shape),)


def case(name: str, layer: Any, plain: Any, *shape: int, **options: Any) -> Case:
    return Case(name, partial(layer, **options), partial(plain, **options), arguments(*shape))


MASK = jnp.array([True, False, True, True])
CASES = [
    case("softmax", softmax, plain_softmax, 3, 4),
    case("softmax masked", softmax, plain_softmax, 3, 4, where=MASK),
    case("log_softmax", log_softmax, plain_log_softmax, 3, 4),
]


def certified(name: str, layer: Any, dtype: Any, *shape: int, everywhere: bool = False, **options: Any) -> Certified:
    (x,) = arguments(*shape)(np.random.default_rng(1))
    return Certified(f"{layer.__name__}, {name}", partial(layer, **options), (x.astype(dtype),), everywhere)


CERTIFIED = [
    certified("rows", softmax, jnp.float32, 3, 5, everywhere=True),
    certified("masked", softmax, jnp.float64, 3, 4, where=MASK),
    certified("float16", softmax, jnp.float16, 2, 3, axis=0),
    certified("rows", log_softmax, jnp.float32, 3, 5),
    certified("along two axes", log_softmax, jnp.float64, 2, 3, 4, axis=(0, 2)),
    certified("bfloat16", log_softmax, jnp.bfloat16, 2, 3, 4, axis=1),
]

ROWS = case("sharded", softmax, plain_softmax, 8, 6)
LOGS = case("sharded", log_softmax, plain_log_softmax, 8, 6)
LAYOUTS = [
    Layout("softmax data", ROWS, (P("data"),), P("data")),
    Layout("softmax data and model", ROWS, (P("data", "model"),), P("data", "model"), ("auto", "explicit")),
    Layout("log_softmax data", LOGS, (P("data"),), P("data")),
    Layout("log_softmax data and model", LOGS, (P("data", "model"),), P("data", "model"), ("auto", "explicit")),
]
