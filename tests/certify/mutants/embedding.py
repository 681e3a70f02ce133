"""Lookups in a table: repeated, padding, out-of-range, counted and absent ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from tests.certify.planting import planted
from tests.certify.rules import Mutant

PADDING = 0


def look_up(table: Array, ids: Array) -> Array:
    """Y[n, d] = table[ids[n], d]."""
    return table[ids]


def look_up_masked(table: Array, ids: Array) -> Array:
    """The same, with zeros for the padding id."""
    return table[ids] * (ids != PADDING)[:, None].astype(table.dtype)


def look_up_clipped(table: Array, ids: Array) -> Array:
    """The same, where ids beyond the table's ends stand for its first and last row."""
    return table[jnp.clip(ids, 0, table.shape[0] - 1)]


def scattered(table: Array, ids: Array, dY: Array) -> Array:
    return jnp.zeros_like(table).at[ids].add(dY)


def table_rule(dtable: Callable[[Array, Array, Array], Array], primal: Callable[..., Array] = look_up) -> Any:
    """Makes a lookup whose table has the cotangent `dtable(table, ids, dY)`."""
    return planted(primal, lambda args, dY: (dtable(*args, dY), None))


def frequencies(ids: Array) -> Array:
    """How often each id occurs, beside each."""
    return (ids[:, None] == ids).sum(1)[:, None]


def with_empty_groups(table: Array, ids: Array, dY: Array) -> Array:
    """The adjoint where an id occurs, and what happens to lie there where none does."""
    occurs = (jnp.arange(len(table), dtype=ids.dtype)[:, None] == ids).any(1, keepdims=True)
    return jnp.where(occurs, scattered(table, ids, dY), dY[0])


def inverse_permuted(table: Array, ids: Array, dY: Array) -> Array:
    return dY[jnp.argsort(ids)]


def tables(ids: list[int], rows: int = 6) -> Callable[[np.random.Generator], Any]:
    """Makes `(table[rows, 3], ids)`."""
    return lambda rng: (rng.standard_normal((rows, 3)), np.asarray(ids, np.int32))


REPEATED = tables([2, 5, 2, 0, 1, 2, 5, 4])
DISTINCT = tables([3, 1, 4, 0])

MUTANTS = [
    Mutant("lookup: repeated ids overwrite each other",
           table_rule(lambda table, ids, dY: jnp.zeros_like(table).at[ids].set(dY)), REPEATED, law="adjoint"),
    Mutant("lookup: repeated ids overwrite each other, none at the given point",
           table_rule(lambda table, ids, dY: jnp.zeros_like(table).at[ids].set(dY)), DISTINCT, law="points"),
    Mutant("lookup: rows averaged over their occurrences",
           table_rule(lambda table, ids, dY: scattered(table, ids, dY / frequencies(ids).astype(dY.dtype))), REPEATED,
           law="adjoint"),
    Mutant("lookup: rows averaged over their occurrences, none repeated at the given point",
           table_rule(lambda table, ids, dY: scattered(table, ids, dY / frequencies(ids).astype(dY.dtype))), DISTINCT,
           law="points"),
    Mutant("lookup: ids off by one", table_rule(lambda table, ids, dY: scattered(table, (ids + 1) % len(table), dY)),
           REPEATED, law="adjoint", diagnosis="shifted by"),
    Mutant("lookup: the padding id learns nothing, unmasked forward",
           table_rule(lambda table, ids, dY: scattered(table, ids, dY).at[PADDING].set(0)), REPEATED,
           law="adjoint", diagnosis="3 of 18 elements"),
    Mutant("lookup: the padding id learns, masked forward", table_rule(scattered, look_up_masked), REPEATED,
           law="adjoint", diagnosis="mask"),
    Mutant("lookup: the padding id learns, absent at the given point", table_rule(scattered, look_up_masked),
           tables([3, 1, 4, 5]), law="points"),
    Mutant("lookup: rows that no id names learn too", table_rule(with_empty_groups), REPEATED,
           law="adjoint", diagnosis="mask"),
    Mutant("lookup: ids beyond the end wrap around in the backward rule",
           table_rule(lambda table, ids, dY: scattered(table, ids % len(table), dY), look_up_clipped),
           tables([2, 6, 7, 0, -1, 3]), law="adjoint"),
    Mutant("lookup: ids beyond the end dropped in the backward rule",
           table_rule(lambda table, ids, dY: jnp.zeros_like(table).at[ids].add(dY, mode="drop"), look_up_clipped),
           tables([2, 6, 7, 0, 3]), law="adjoint"),
    Mutant("lookup: ids taken for a permutation", table_rule(inverse_permuted), tables([2, 0, 2, 1, 5, 5]),
           law="adjoint"),
    Mutant("lookup: ids taken for a permutation, as they are at the given point", table_rule(inverse_permuted),
           tables([2, 0, 4, 1, 5, 3]), law="points"),
]
