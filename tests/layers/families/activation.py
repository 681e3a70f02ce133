"""relu, silu, gelu of one array; swiglu, geglu of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erf
from jax.sharding import PartitionSpec as P

from adjax import geglu, gelu, relu, silu, swiglu
from tests.cases import Case, Certified, Layout, normal


def plain_relu(x: Array) -> Array:
    return jnp.where(x > 0, x, jnp.zeros_like(x))


def plain_silu(x: Array) -> Array:
    return x / (1 + jnp.exp(-x))


def plain_gelu(x: Array, approximate: bool = False) -> Array:
    if approximate:
        return x * (1 + jnp.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x))) / 2
    return x * (1 + erf(x / 2**0.5)) / 2


def plain_swiglu(gate: Array, up: Array) -> Array:
    return plain_silu(gate) * up


def plain_geglu(gate: Array, up: Array, approximate: bool = False) -> Array:
    return plain_gelu(gate, approximate) * up


def of_one(x: Array) -> tuple[Array, ...]:
    """Every activation of one array."""
    return relu(x), silu(x), gelu(x), gelu(x, approximate=True)


def plain_of_one(x: Array) -> tuple[Array, ...]:
    return plain_relu(x), plain_silu(x), plain_gelu(x), plain_gelu(x, True)


def of_two(gate: Array, up: Array) -> tuple[Array, ...]:
    """Every gated unit."""
    return swiglu(gate, up), geglu(gate, up), geglu(gate, up, approximate=True)


def plain_of_two(gate: Array, up: Array) -> tuple[Array, ...]:
    return plain_swiglu(gate, up), plain_geglu(gate, up), plain_geglu(gate, up, True)


def arguments(count: int, *shape: int, dtype: Any = jnp.float64) -> Callable[[np.random.Generator], Any]:
    """A maker of some arrays of one shape."""
    return lambda rng: tuple(normal(rng, *shape, dtype=dtype) for _ in range(count))


CASES = [
    Case("swiglu", swiglu, plain_swiglu, arguments(2, 2, 3)),
    Case("relu silu gelu", of_one, plain_of_one, arguments(1, 5)),
    Case("swiglu geglu", of_two, plain_of_two, arguments(2, 4), linear_in=(1,)),
]


def certified(name: str, f: Callable[..., Any], count: int, dtype: Any, *shape: int, **more: Any) -> Certified:
    return Certified(name, f, arguments(count, *shape, dtype=dtype)(np.random.default_rng(1)), **more)


CERTIFIED = [
    certified("swiglu", swiglu, 2, jnp.float32, 3, 2, everywhere=True),
    certified("relu", relu, 1, jnp.float32, 5),
    certified("relu silu gelu, a matrix", of_one, 1, jnp.float64, 2, 3),
    certified("relu silu gelu, a scalar", of_one, 1, jnp.float32),
    certified("relu silu gelu, bfloat16", of_one, 1, jnp.bfloat16, 4),
    certified("swiglu geglu, a matrix", of_two, 2, jnp.float64, 2, 3),
    certified("swiglu geglu, float16", of_two, 2, jnp.float16, 4),
]

SHARDED = Case("swiglu", swiglu, plain_swiglu, arguments(2, 8, 4))
LAYOUTS = [
    Layout("swiglu data and model", SHARDED, (P("data", "model"), P("data", "model")), P("data", "model")),
    Layout("relu silu gelu data", Case("activations", of_one, plain_of_one, arguments(1, 8, 3)), (P("data"),),
           (P("data"),) * 4),
]  # fmt: skip
