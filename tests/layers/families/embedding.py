"""embed: Y = P E, the rows of a table that the ids name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import embed
from tests.cases import Case, Certified, Layout, normal

IDS = jnp.asarray(np.array([[3, 0, 3], [-1, 5, 2]]))               # repeated, and two that are out of range


def plain_embed(table: Array, ids: Array) -> Array:
    """What autodiff is asked about: the product with P."""
    return (ids[..., None] == jnp.arange(len(table), dtype=ids.dtype)).astype(table.dtype) @ table


def at(f: Callable[..., Array], ids: Array) -> Callable[[Array], Array]:
    """As a function of the table alone: ids have no derivative."""
    return lambda table: f(table, ids)


def case(name: str, ids: Any, *shape: int) -> Case:
    ids = jnp.asarray(ids)
    return Case(name, at(embed, ids), at(plain_embed, ids), lambda rng: (normal(rng, *shape),), linear_in=(0,))


CASES = [
    case("embed", IDS, 5, 4),
    case("embed one id", np.int32(1), 3, 2),
]


def certified(name: str, ids: Any, dtype: Any, *shape: int, everywhere: bool = False) -> Certified:
    table = normal(np.random.default_rng(1), *shape).astype(dtype)
    return Certified(f"embed, {name}", embed, (table, jnp.asarray(ids)), everywhere)


CERTIFIED = [
    certified("two axes", IDS, jnp.float32, 5, 4, everywhere=True),
    certified("one id", np.int32(2), jnp.float64, 5, 3),
    certified("one of two out of range", np.array([-3, 4]), jnp.float32, 5, 3),
    certified("one repeated", np.full(6, 1), jnp.bfloat16, 3, 2),
    certified("float16, small integers", np.array([0, 2, 2], np.uint8), jnp.float16, 3, 2),
    certified("complex", np.array([2, 0]), jnp.complex64, 3, 2),
    certified("one row", np.array([0, 1]), jnp.float32, 1, 2),
]


TOKENS = np.random.default_rng(0).integers(-1, 9, (8, 3))


def token_case(f: Callable[..., Array]) -> Callable[[Array], Array]:
    """The ids laid out over "data" where the mesh has it as an explicit axis."""

    def function(table: Array) -> Array:
        ids = jnp.asarray(TOKENS)
        mesh = jax.sharding.get_abstract_mesh()
        if not mesh.empty and jax.sharding.AxisType.Explicit in mesh.axis_types:
            ids = jax.sharding.reshard(ids, P("data"))
        return f(table, ids)

    return function


TABLE = Case("embed", token_case(embed), token_case(plain_embed), lambda rng: (normal(rng, 8, 4),))
WHOLE = Case("embed", at(embed, jnp.asarray(TOKENS)), at(plain_embed, jnp.asarray(TOKENS)), TABLE.arguments)
LAYOUTS = [
    Layout("embed features", WHOLE, (P(None, "model"),), P(None, None, "model")),
    Layout("embed vocabulary", WHOLE, (P("data"),), P(), ("auto", "explicit")),
    Layout("embed data and features", TABLE, (P(None, "model"),), P("data", None, "model"), ("auto", "explicit")),
    Layout("embed data and vocabulary", TABLE, (P("model"),), P("data"), ("auto", "explicit")),
]
