"""Blocks of rows and spans of columns: the loops of `loss_linear`, in which logits exist a block at a time.

Axes: n rows (any number of leading axes), d features, v classes; r rows of a block, of which there are K. Block k has
the rows k, k + K, k + 2K and so on, so that each block takes an equal share from every device that holds rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec
from jaxtyping import Float

from ..adjoint import contract, layout_of, partitioned_trees
from ..adjoint.cotangent import zeros_varying
from .affine import AffineParams
from .loss_rows import (
    Options,
    Statistics,
    classes,
    finished,
    is_index,
    merged,
    over_devices,
    slopes,
    slopes_of_labels,
    sums,
)
from .normalization import fresh, kept, working_dtype


class Sizes(NamedTuple):
    """How much at a time."""

    rows: int
    columns: int


class Operands(NamedTuple):
    """Of the loss. The last three have the same leading axes; keep says which rows count, None for all."""

    params: AffineParams           # W[d v], b[v] | None
    x: Float[Array, "*n d"]
    labels: Array                  # [*n] or [*n v]
    keep: Array | None             # [*n]


class Gradients(NamedTuple):
    """Of the operands; None for those that are not wanted. Sums over rows are float32 or wider."""

    dW: Float[Array, "d v"] | None
    db: Float[Array, " v"] | None
    dX: Float[Array, "*n d"] | None
    dq: Float[Array, "*n v"] | None


Wanted = tuple[bool, bool, bool, bool]


def forward(at: Operands, options: Options, sizes: Sizes) -> tuple[Float[Array, "*n"], Statistics]:
    """L of every row, 0 where it does not count, and its statistics."""

    def run(at: Operands) -> Any:
        step = lambda totals, block: (totals, _loss(at.params, block, options, sizes))
        return _over_blocks(step, (), (at.x, at.labels, at.keep), sizes.rows)[1]

    rows: Any = PartitionSpec(*layout_of(at.x)[:-1])
    weight = None if is_index(at.labels) else rows
    return partitioned_trees(run, (at,), (rows, Statistics(rows, rows, weight)))


def pulled_back(
    at: Operands, statistics: Statistics, dL: Float[Array, "*n"], options: Options, sizes: Sizes, wanted: Wanted
) -> Gradients:
    """dW, db, dX and dq."""

    def run(at: Operands, statistics: Statistics, dL: Array) -> Gradients:
        def step(totals: Any, block: Any) -> Any:
            *rows, known, dL = block
            return _gradients(totals, at.params, rows, known, dL, options, sizes, wanted)

        init = _zero_sums(at, dL, wanted)
        totals, each = _over_blocks(step, init, (at.x, at.labels, at.keep, statistics, dL), sizes.rows)
        return Gradients(*totals, *each)

    return partitioned_trees(run, (at, statistics, dL), _layouts(at, wanted))


def forward_and_back(
    at: Operands, weight: Any, options: Options, sizes: Sizes, wanted: Wanted
) -> tuple[Float[Array, "*n"], Gradients]:
    """L of every row, and the gradients where dL is `weight` in every row."""

    def run(at: Operands, weight: Array) -> Any:
        def step(totals: Any, block: Any) -> Any:
            L, known = _loss(at.params, block, options, sizes)
            totals, each = _gradients(totals, at.params, block, known, weight, options, sizes, wanted)
            return totals, (L, each)

        init = _zero_sums(at, weight, wanted)
        totals, (L, each) = _over_blocks(step, init, (at.x, at.labels, at.keep), sizes.rows)
        return L, Gradients(*totals, *each)

    layouts = PartitionSpec(*layout_of(at.x)[:-1]), _layouts(at, wanted)
    return partitioned_trees(run, (at, weight), layouts)


def block_dtype(at: Operands) -> Any:
    """That of logits and of all sums."""
    return working_dtype(at.x, *at.params, None if is_index(at.labels) else at.labels)


# One block of rows

def _loss(params: AffineParams, rows: Any, options: Options, sizes: Sizes) -> tuple[Float[Array, " r"], Statistics]:
    """L and the statistics of its rows."""
    x, labels, keep = _counted(rows)
    v = params.W.shape[1]
    parts = []
    for span in _spans(v, sizes):
        Z = _logits(params, x, labels, span)
        parts.append(sums(Z, _columns(labels, span), classes(v, options, span.start or 0), options))
    whole = over_devices(functools.reduce(merged, parts), options)
    L, known = finished(whole, labels, classes(v, options).of_all, options)
    return kept(L, keep), known


def _gradients(
    totals: tuple[Any, Any], params: AffineParams, rows: Any, known: Statistics, dL: Array, options: Options,
    sizes: Sizes, wanted: Wanted,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:  # fmt: skip
    """(dW, db) with those of the block added, and (dX, dq) of its rows."""
    x, labels, keep = _counted(rows)
    W, b, X, q = wanted
    v, spans = params.W.shape[1], _spans(params.W.shape[1], sizes)
    if len(spans) > 1:                                                       # logits again, not those of `_loss`
        (x,) = fresh(x)
    dL, keep = jnp.expand_dims(dL, -1), None if keep is None else keep[:, None]
    (dW, db), dX, dq = totals, [], []
    for span in spans:
        Z, of = _logits(params, x, labels, span), classes(v, options, span.start or 0)
        dZ = kept(dL * slopes(Z, _columns(labels, span), known, of, options), keep)          # (r, v)
        part = params.W[:, span].astype(Z.dtype)
        product = contract("rd,rv->dv", x.astype(Z.dtype), dZ) if W else None                # (d, r)(r, v) -> (d, v)
        dW = None if product is None else _added(dW, product, (0, span.start or 0))
        db = _added(db, jnp.sum(dZ, 0), (span.start or 0,)) if b else None                   #       (r, v) -> (v,)
        dX += [contract("rv,dv->rd", dZ, part)] if X else []                                 # (r, v)(v, d) -> (r, d)
        dq += [kept(dL * slopes_of_labels(Z, known, options), keep)] if q else []            # (r, v)
    joined = lambda parts: jnp.concatenate(parts, -1) if len(parts) > 1 else (parts or [None])[0]
    of_x = functools.reduce(jnp.add, dX).astype(x.dtype) if X else None                      # over the spans
    return (dW, db), (of_x, joined(dq).astype(labels.dtype) if q else None)


def _added(total: Array, part: Array, start: tuple[int, ...]) -> Array:
    """The part added to the total, from an entry on."""
    if part.shape == total.shape:
        return total + part
    here = lax.dynamic_slice(total, start, part.shape)
    return lax.dynamic_update_slice(total, here + part, start)


def _counted(rows: Any) -> Any:
    """x, labels and keep, with zero for x where rows do not count: whatever was there has no part in dW."""
    x, labels, keep = rows
    return kept(x, None if keep is None else keep[:, None]), labels, keep


def _logits(params: AffineParams, x: Array, labels: Array, span: slice) -> Float[Array, "r v"]:
    """Z at some columns, not rounded."""
    dtype = block_dtype(Operands(params, x, labels, None))
    Z = contract("rd,dv->rv", x.astype(dtype), params.W[:, span].astype(dtype))             # (r, d)(d, v) -> (r, v)
    return Z if params.b is None else Z + params.b[None, span].astype(dtype)


def _spans(v: int, sizes: Sizes) -> list[slice]:
    """The columns, all at once where they are few."""
    if v <= sizes.columns:
        return [slice(None)]
    return [slice(start, min(start + sizes.columns, v)) for start in range(0, v, sizes.columns)]


def _columns(labels: Array, span: slice) -> Array:
    """Distributions at some columns; class numbers as they are."""
    return labels if is_index(labels) else labels[:, span]


# All blocks

def _over_blocks(
    step: Callable[[Any, Any], tuple[Any, Any]], init: Any, rows: Any, size: int
) -> tuple[Any, Any]:
    """The totals that `step` hands on from block to block, and for every row what it returns second.

    To differentiate it nothing is kept but the rows: every block is computed again.
    """
    leading = rows[0].shape[:-1]
    rows = jax.tree.map(lambda t: t.reshape(-1, *t.shape[len(leading) :]), rows)
    n = rows[0].shape[0]
    K = max(1, -(-n // size))
    r = max(1, -(-n // K))                                                   # as equal as can be: few rows are padding
    if K * r > n and rows[2] is None:
        rows = (*rows[:2], jnp.ones(n, bool), *rows[3:])
    again = jax.checkpoint(step, prevent_cse=False)
    total, each = lax.scan(again, init, jax.tree.map(lambda t: _split(t, r, K), rows))
    return total, jax.tree.map(lambda t: _joined(t, n).reshape(*leading, *t.shape[2:]), each)


def _split(t: Array, r: int, K: int) -> Array:
    """`[n, ...]` as K blocks of r rows, zeros (False) at the end."""
    t = jnp.pad(t, ((0, K * r - t.shape[0]), *[(0, 0)] * (t.ndim - 1)))
    return t.reshape(r, K, *t.shape[1:]).swapaxes(0, 1)


def _joined(t: Array, n: int) -> Array:
    """The inverse."""
    return t.swapaxes(0, 1).reshape(-1, *t.shape[2:])[:n]


def _zero_sums(at: Operands, dL: Array, wanted: Wanted) -> tuple[Any, Any]:
    """What dW and db start from, varying over whatever mesh axis an operand varies over."""
    W, b = at.params
    dtype = block_dtype(at)

    def zeros(like: Any, wanted: bool) -> Any:
        return zeros_varying((at, dL), like.shape, dtype) if wanted else None

    return zeros(W, wanted[0]), zeros(b, wanted[1])


def _layouts(at: Operands, wanted: Wanted) -> Gradients:
    """That of each gradient on a mesh with explicit axes: its operand's."""
    pairs = zip((*at.params, at.x, at.labels), wanted, strict=True)
    layouts: list[Any] = [PartitionSpec(*layout_of(t)) if w else None for t, w in pairs]
    return Gradients(*layouts)
