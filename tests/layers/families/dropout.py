"""dropout: Y = M X with a random mask M, the same one forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import dropout
from tests.cases import Case, Certified, Layout, normal

KEY = jax.random.key(7)
RATE = 0.3


def plain_dropout(key: Array, x: Array, rate: float) -> Array:
    """What autodiff is asked about."""
    kept = jax.random.bits(key, x.shape, jnp.uint32) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def at(f: Callable[..., Array], rate: float = RATE) -> Callable[[Array], Array]:
    """As a function of x alone: keys have no derivative."""
    return lambda x: f(KEY, x, rate)


def arguments(*shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda rng: (normal(rng, *shape),)


CASES = [Case("dropout", at(dropout), at(plain_dropout), arguments(4, 3), linear_in=(0,))]


def certified(name: str, dtype: Any, *shape: int, rate: float = RATE, **more: Any) -> Certified:
    x = normal(np.random.default_rng(1), *shape).astype(dtype)
    return Certified(f"dropout, {name}", partial(dropout, KEY, rate=rate), (x,), **more)


CERTIFIED = [
    certified("a matrix", jnp.float32, 4, 3, everywhere=True),
    certified("a scalar", jnp.float64),
    certified("no rate", jnp.float32, 5, rate=0.0),
    certified("a high rate", jnp.float32, 8, rate=0.9),
    certified("bfloat16", jnp.bfloat16, 6),
    certified("float16", jnp.float16, 6),
    certified("complex", jnp.complex64, 6),
    Certified("dropout, an old key", lambda key, x: dropout(key, x, RATE),
              (jax.random.PRNGKey(1), jnp.arange(6.0, dtype=jnp.float32))),
]  # fmt: skip

SHARDED = Case("dropout", at(dropout), at(plain_dropout), arguments(8, 4))
LAYOUTS = [Layout("dropout data and model", SHARDED, (P("data", "model"),), P("data", "model"), ("auto", "explicit"))]
