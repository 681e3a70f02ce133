"""Embedding: Y = P E, rows of a table chosen by their numbers.

Axes: n ids (any number of axes), V rows of the table, d features.

    P[n, v] = 1 where ids[n] = v, else 0

The map is linear in E, and P is never made. An id outside [0, V) is no v: its row of P is zero, so is its row of Y, and
it has no part in the gradient.

    ⟨P δE, dY⟩ = ⟨δE, Pᵀ dY⟩        so  dE = Pᵀ dY:  dE[v] = Σ dY[n] over the n with ids[n] = v

Residuals: the ids, no floating point number; of the table only its type.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Inexact, Integer

from ..adjoint import Like, any_mode, layout_of, like, partitioned, wide
from ..adjoint.cotangent import type_of
from .checks import check_array, check_floating


class EmbedResiduals(NamedTuple):
    """What the backward pass keeps."""

    ids: Integer[Array, "*n"]       # they are P
    table: Like | None              # the type of the table, no values: dE must have it


def embed(table: Array, ids: Array) -> Array:
    """Y[..., :] = table[ids[...], :], and 0 where ids is outside [0, V).

    Args:
        table: `[V, d]`, real or complex floating.
        ids: `[...]`, integers. They may repeat: their cotangents are added, half precision in float32.

    Returns:
        `Y[..., d]` in the table's dtype. An id out of range, a negative one included, is no row: its Y is 0 and it has
        no part in the gradient. So −1 serves for padding, and a part of the table gives its part of Y: with rows
        `first` to `first + k` on a device, `psum(embed(part, ids - first))` is the whole.

    Raises:
        TypeError: table is no floating array, or ids is no integer array.
        ValueError: table is no `[V, d]`.

    The gradient is dense, `[V, d]`. Residuals: ids.

    >>> table = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> embed(table, jnp.array([2, 0, 2, -1])).tolist()
    [[5.0, 6.0], [1.0, 2.0], [5.0, 6.0], [0.0, 0.0]]
    >>> jax.grad(lambda table: embed(table, jnp.array([2, 0, 2, -1])).sum())(table).tolist()
    [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]

    With tied weights the table is the last layer, too: logits = H Eᵀ.

    >>> from adjax import einsum
    >>> einsum("nd,vd->nv", embed(table, jnp.array([1])), table).tolist()
    [[11.0, 25.0, 39.0]]
    """
    check_floating("embed", "table", "(V, d)", table)
    if table.ndim != 2:
        raise ValueError(f"embed: table must have the axes (V, d), got shape {table.shape}")
    check_array("embed", "ids", "(...)", ids)
    if not jnp.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"embed: ids must be integers, got dtype {ids.dtype} (shape {ids.shape})")
    return _embed(jnp.asarray(table), jnp.asarray(ids))


@any_mode
@jax.custom_vjp
def _embed(table: Array, ids: Array) -> Array:
    return partitioned(_rows, table, ids, axes=(*layout_of(ids), layout_of(table)[1]))     # (V, d) -> (n, d)


def _embed_fwd(table: Inexact[Array, "V d"], ids: Integer[Array, "*n"]) -> tuple[Array, EmbedResiduals]:
    return _embed.fun(table, ids), EmbedResiduals(ids, like(table))


def _embed_bwd(residuals: EmbedResiduals, dY: Inexact[Array, "*n d"]) -> tuple[Array, None]:
    ids, table = residuals
    sums = partial(_sums, type_of(table).shape)
    return partitioned(sums, ids, dY, like=table), None                                    # (n, d) -> (V, d)


_embed.defvjp(_embed_fwd, _embed_bwd)


def _rows(table: Array, ids: Array) -> Array:
    """P E; of no rows, zeros, where a gather refuses."""
    if len(table) == 0:
        return jnp.zeros((*ids.shape, table.shape[1]), table.dtype)
    return table.at[_within(ids, len(table))].get(mode="fill", fill_value=0)


def _sums(shape: tuple[int, ...], ids: Array, dY: Array) -> Array:
    """Pᵀ dY."""
    if not shape[0]:
        return jnp.zeros(shape, dY.dtype)
    dY_ = dY.astype(wide(dY.dtype))
    return jnp.zeros(shape, dY_.dtype).at[_within(ids, shape[0])].add(dY_, mode="drop")


def _within(ids: Array, V: int) -> Array:
    """The ids as int32, those out of range as V: negative ones would count from the end, and large ones wrap."""
    ids = ids.astype(jnp.int32) if ids.dtype.itemsize < 4 else ids
    return jnp.where((ids >= 0) & (ids < V), ids, V).astype(jnp.int32)
