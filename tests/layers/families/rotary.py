"""rotary: pairs of features turned by angles proportional to their position."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import rotary
from tests.cases import Case, Certified, Layout, normal

BASE = 100.0


def plain_rotary(x: Array, positions: Array, *, base: float = 10000.0) -> Array:
    """What autodiff is asked about: pairs as complex numbers, written out."""
    half = x.shape[-1] // 2
    theta = positions[..., None, None].astype(x.dtype) / base ** (jnp.arange(half).astype(x.dtype) / half)
    x1, x2 = x[..., :half], x[..., half:]
    return jnp.concatenate([x1 * jnp.cos(theta) - x2 * jnp.sin(theta), x2 * jnp.cos(theta) + x1 * jnp.sin(theta)], -1)


def at(f: Callable[..., Array], *shape: int, base: float = BASE) -> Callable[[Array], Array]:
    """As a function of x alone, at integer positions: they have no derivative."""
    positions = jnp.asarray(np.random.default_rng(0).integers(0, 20, shape))
    return lambda x: f(x, positions, base=base)


def arguments(*shape: int, positions: tuple[int, ...] | None = None) -> Callable[[np.random.Generator], Any]:
    """A maker of x, and of floating positions where they have a shape."""

    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        x = normal(rng, *shape)
        return (x,) if positions is None else (x, 3 * normal(rng, *positions))

    return make


CASES = [
    Case("rotary", at(rotary, 3), at(plain_rotary, 3), arguments(3, 2, 4), linear_in=(0,)),
    Case("rotary floating positions", partial(rotary, base=BASE), partial(plain_rotary, base=BASE),
         arguments(2, 3, 1, 4, positions=(3,)), linear_in=(0,)),
]  # fmt: skip


def certified(name: str, dtype: Any, *shape: int, positions: Any, base: float = BASE, **more: Any) -> Certified:
    x = normal(np.random.default_rng(1), *shape, dtype=dtype)
    return Certified(f"rotary, {name}", partial(rotary, base=base), (x, jnp.asarray(positions)), **more)


CERTIFIED = [
    certified("integer positions", jnp.float32, 3, 2, 4, positions=np.array([0, 2, 5]), everywhere=True),
    certified("floating positions", jnp.float64, 3, 2, 4, positions=np.array([0.5, -2.0, 1.0])),
    certified("positions of each example", jnp.float32, 2, 3, 1, 2, positions=np.array([[0, 1, 2], [7, 8, 9]])),
    certified("one position for all", jnp.float32, 2, 1, 6, positions=np.array([3])),
    certified("another base", jnp.float32, 2, 1, 4, positions=np.array([3, 4]), base=2.0),
    certified("bfloat16", jnp.bfloat16, 2, 3, 4, positions=np.array([1, 4])),
    certified("float16", jnp.float16, 2, 3, 4, positions=np.array([1, 4])),
]

SHARDED = Case("rotary", at(rotary, 3), at(plain_rotary, 3), arguments(8, 3, 2, 4), linear_in=(0,))
FLOATING = Case("rotary floating", rotary, plain_rotary, arguments(8, 3, 2, 4, positions=(8, 1)), linear_in=(0,))
HEADS = P("data", None, "model")
LAYOUTS = [
    Layout("rotary data and heads", SHARDED, (HEADS,), HEADS),
    Layout("rotary features", SHARDED, (P("data", None, None, "model"),), P("data", None, None, "model"),
           ("auto", "explicit")),
    Layout("rotary floating positions", FLOATING, (HEADS, P("data")), HEADS),
]  # fmt: skip
