"""Attention block by block: forward, backward, and the derivative. The names are those of `attention`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from ..adjoint import contract, layout_of, partitioned_trees
from ..adjoint.cotangent import zeros_varying
from .attention_blocks import (
    Band,
    Place,
    Wide,
    across,
    bands,
    by_heads,
    by_queries,
    dtype_of,
    in_line,
    in_turn,
    joined,
    keys_of,
    layout,
    mapped,
    of_groups,
    on_each_platform,
    part_of,
    place_of,
    rows_of,
    scores,
    steep,
    widened,
)
from .attention_operands import Operands, Sight


class Rows(NamedTuple):
    """What turns scores into A: A = exp(S' − top) / total. Their lse, top + log total, would round A by |lse| ulps."""

    top: Array                      # [b, h, t], max_s S'
    total: Array                    # [b, h, t], Σ_s exp(S' − top)


# The axes that hold the heads
HEADS = Operands(q=2, k=2, v=2, bias=1, mask=1)
ROWS_HEADS: Any = Rows._make((1, 1))


def _sizes(at: Operands) -> tuple[int, int]:
    """b and g."""
    return at.k.shape[0], at.k.shape[2]


# Forward

def forward(at: Operands, sight: Sight) -> tuple[Array, Rows]:
    """O [b, t, h, e], and two numbers for every query and head."""

    def run(sight: Sight, at: Operands) -> tuple[Array, Rows]:
        _, (O, rows) = in_turn(partial(_forward, sight), None, at, HEADS, _sizes(at), sight.block)
        b, g, r, t = rows.top.shape
        return by_heads(O).astype(at.v.dtype), Rows(*(x.reshape(b, g * r, t) for x in rows))

    b, t, h, d = layout_of(at.q)
    rows: Any = PartitionSpec(b, h, t)
    layouts = PartitionSpec(b, t, h, d), Rows(rows, rows)
    return partitioned_trees(partial(on_each_platform, run, sight), (at,), layouts)


def _forward(sight: Sight, _: None, first: Any, at: Operands) -> tuple[None, tuple[Array, Rows]]:
    w = widened(at)

    def block(i: Any, band: Band) -> tuple[Array, Rows]:
        place = place_of(i, band, w.k.shape[2], sight)
        S, _ = scores(w, place, sight)
        top = lax.stop_gradient(jnp.max(S, -1, keepdims=True, initial=-jnp.inf))
        top = jnp.where(top == -jnp.inf, 0, top)                                # of a query that sees no key
        P = jnp.exp(S - top)                                                    # (b, g, r, t, s)
        total = jnp.sum(P, -1, keepdims=True)
        total = jnp.where(total == 0, 1, total)
        O = contract("bgrts,bgse->bgrte", P, keys_of(w.v, place)) / total      # (b, g, r, t, e)
        return O, Rows(top[..., 0], total[..., 0])

    return None, joined([mapped(block, band) for band in bands(w.sizes, sight)])


def _by_groups(rows: Any, w: Wide) -> Any:
    """[b, h, t] -> [b, g, r, t, 1], in the dtype of all that lies between."""
    return jax.tree.map(lambda x: x.reshape(*w.q.shape[:4], 1).astype(w.q.dtype), rows)


def _probabilities(S: Array, rows: Rows, at: Place) -> Array:
    """A from S'."""
    return jnp.exp(S - rows_of(rows.top, at)) * (1 / rows_of(rows.total, at))


# Backward

class Sums(NamedTuple):
    """What every block adds to."""

    dk: Array                       # [b, g, d, s]: XLA:CPU is slower where the larger factor, dS, is transposed
    dv: Array                       # [b, g, e, s]
    dbias: Array | None             # as bias


def cotangents(at: Operands, sight: Sight, rows: Rows, dO: Array, mean: Array | None = None) -> Operands:
    """dQ, dK, dV and dbias; with the `mean` Σ_s A dA where these are not all keys."""

    def run(sight: Sight, at: Operands, rows: Rows, dO: Array, mean: Any) -> tuple[Array, Array, Array, Any]:
        operands, axes = (at, rows, dO, mean), (HEADS, ROWS_HEADS, 2, 1)
        zeros = partial(zeros_varying, (at, dO))
        total = None if at.bias is None else zeros(of_groups(at.bias, at.k.shape[2]).shape, dtype_of(at))
        run = partial(_cotangents, sight, zeros)
        total, (dq, dk, dv) = in_turn(run, total, operands, axes, _sizes(at), sight.block)
        dk, dv = (x.transpose(0, 3, 1, 2) for x in (dk, dv))
        return by_heads(dq), dk, dv, None if total is None else total.reshape(at.bias.shape)

    layouts = tuple(map(layout, at[:4]))
    dq, dk, dv, dbias = partitioned_trees(partial(on_each_platform, run, sight), (at, rows, dO, mean), layouts)
    return Operands(dq, dk, dv, dbias, None)


def _cotangents(sight: Sight, zeros: Any, total: Array | None, first: Any, operands: Any) -> Any:
    at, rows, dO_, mean = operands
    w = widened(at)
    rows, dO_, mean = _by_groups(rows, w), by_queries(dO_, at.k.shape[2], w.q.dtype), _by_groups(mean, w)

    def block(sums: Sums, i: Any, band: Band) -> tuple[Sums, Array]:
        place = place_of(i, band, w.k.shape[2], sight)
        k, q, dO = keys_of(w.k, place), rows_of(w.q, place), rows_of(dO_, place)
        A, dA, slope = _of_cotangents(w, rows, dO_, place, sight)               # (b, g, r, t, s) each
        dS_ = A * (dA - _mean(A * dA, mean, place))                             # (b, g, r, t, s)
        dS = sight.scale * steep(dS_, slope)                                    # (b, g, r, t, s)
        dQ = contract("bgrts,bgsd->bgrtd", dS, k)                               # (b, g, r, t, d)
        dK = contract("bgrtd,bgrts->bgds", q, dS)                               # (b, g, d, s)
        dV = contract("bgrte,bgrts->bges", dO, A)                               # (b, g, e, s)
        return Sums(_add(sums.dk, dK, place), _add(sums.dv, dV, place), _add_bias(sums.dbias, dS_, place)), dQ

    start = lambda x: zeros(x.shape, x.dtype)
    dbias = None if w.bias is None else start(w.bias)
    sums, parts = Sums(start(w.k.swapaxes(2, 3)), start(w.v.swapaxes(2, 3)), dbias), []
    for band in bands(w.sizes, sight):
        sums, dQ = _folded(block, sums, band)
        parts.append(dQ)
    if total is not None and sums.dbias is not None:
        total = _added(total, sums.dbias, {axis: n for axis, n in enumerate(first) if total.shape[axis] > 1})
    return total, (joined(parts), sums.dk, sums.dv)


def _of_cotangents(w: Wide, rows: Rows, dO: Array, at: Place, sight: Sight) -> tuple[Array, Array, Any]:
    """A, dA = dO Vᵀ, and dS'/dS."""
    S, slope = scores(w, at, sight)
    return _probabilities(S, rows, at), across(rows_of(dO, at), keys_of(w.v, at)), slope    # (b, g, r, t, s)


def _mean(x: Array, given: Array | None, at: Place) -> Array:
    """Σ_s of a block, unless it is given."""
    return jnp.sum(x, -1, keepdims=True) if given is None else rows_of(given, at)


def _folded(block: Callable[..., Any], sums: Sums, band: Band) -> tuple[Sums, Array]:
    """The sums after a band's blocks, and the rows that they give."""
    if band.blocks == 1:
        return block(sums, 0, band)
    step = jax.checkpoint(lambda sums, i: block(sums, i, band))
    sums, stacked = lax.scan(step, sums, jnp.arange(band.blocks, dtype=jnp.int32))
    return sums, in_line(stacked, band)


def _add(total: Array, part: Array, at: Place) -> Array:
    """To the keys of a block."""
    return _added(total, part, {3: at.key})


def _add_bias(total: Array | None, dS: Array, at: Place) -> Array | None:
    """Summed over the axes along which bias was broadcast."""
    if total is None:
        return None
    part = jnp.sum(dS, tuple(axis for axis in range(5) if total.shape[axis] == 1), keepdims=True)
    return _added(total, part, {axis: n for axis, n in ((3, at.row), (4, at.key)) if total.shape[axis] > 1})


def _added(total: Array, part: Array, places: dict[int, Any]) -> Array:
    """The part added to the total, where it lies along some axes."""
    if part.shape == total.shape:
        return total + part
    start = [jnp.asarray(places.get(axis, 0), jnp.int32) for axis in range(total.ndim)]
    return lax.dynamic_update_slice(total, lax.dynamic_slice(total, start, part.shape) + part, start)


# The derivative

def tangent(at: Operands, sight: Sight, rows: Rows, tangents: Operands, mean: Array | None = None) -> Array:
    """δO; with the `mean` Σ_s A δS' where these are not all keys."""

    def run(sight: Sight, at: Operands, rows: Rows, tangents: Operands, mean: Any) -> Array:
        operands, axes = (at, rows, tangents, mean), (HEADS, ROWS_HEADS, HEADS, 1)
        _, δO = in_turn(partial(_tangent, sight), None, operands, axes, _sizes(at), sight.block)
        return by_heads(δO).astype(at.v.dtype)

    b, t, h, d = layout_of(at.q)
    operands = at, rows, tangents._replace(mask=None), mean
    return partitioned_trees(partial(on_each_platform, run, sight), operands, PartitionSpec(b, t, h, d))


def _tangent(sight: Sight, _: None, first: Any, operands: Any) -> tuple[None, Array]:
    at, rows, tangents, mean = operands
    w, δw = widened(at), widened(tangents)
    rows, mean = _by_groups(rows, w), _by_groups(mean, w)

    def block(i: Any, band: Band) -> Array:
        place = place_of(i, band, w.k.shape[2], sight)
        A, AδS = _of_tangents(w, rows, δw, place, sight)                        # (b, g, r, t, s) each
        δA = AδS - A * _mean(AδS, mean, place)                                  # (b, g, r, t, s)
        average = lambda a, v: contract("bgrts,bgse->bgrte", a, keys_of(v, place))
        return average(A, δw.v) + average(δA, w.v)                              # (b, g, r, t, e)

    return None, joined([mapped(block, band) for band in bands(w.sizes, sight)])


def _of_tangents(w: Wide, rows: Rows, δw: Wide, at: Place, sight: Sight) -> tuple[Array, Array]:
    """A and A δS'."""
    (q, δq), (k, δk) = (rows_of(x.q, at) for x in (w, δw)), (keys_of(x.k, at) for x in (w, δw))
    S, slope = scores(w, at, sight)
    A = _probabilities(S, rows, at)                                             # (b, g, r, t, s)
    δS = sight.scale * steep(across(δq, k) + across(q, δk), slope)             # (b, g, r, t, s)
    return A, A * (δS if δw.bias is None else δS + part_of(δw.bias, at))


# Means: what some keys have of them, where others have the rest

def mean_of_cotangents(at: Operands, sight: Sight, rows: Rows, dO: Array) -> Array:
    """Σ_s A dA, [b, h, t]."""

    def weighted(w: Wide, rows: Rows, dO: Array, place: Place, sight: Sight) -> Array:
        A, dA, _ = _of_cotangents(w, rows, dO, place, sight)
        return A * dA

    spread = lambda dO, w: by_queries(dO, w.k.shape[1], w.q.dtype)
    return _means(weighted, spread, at, sight, rows, dO, 2)


def mean_of_tangents(at: Operands, sight: Sight, rows: Rows, tangents: Operands) -> Array:
    """Σ_s A δS', [b, h, t]."""
    return _means(lambda *x: _of_tangents(*x)[1], lambda δ, _: widened(δ), at, sight, rows, tangents, HEADS)


def _means(weighted: Any, spread: Any, at: Operands, sight: Sight, rows: Rows, given: Any, axes: Any) -> Array:
    """Σ_s of `weighted(w, rows, given, place, sight)` by blocks; `spread` puts the heads of `axes` first."""

    def over_keys(sight: Sight, _: None, first: Any, operands: Any) -> tuple[None, Array]:
        at, rows, given = operands
        w = widened(at)
        rows, given = _by_groups(rows, w), spread(given, w)
        block = lambda i, band: jnp.sum(weighted(w, rows, given, place_of(i, band, w.k.shape[2], sight), sight), -1)
        return None, joined([mapped(block, band) for band in bands(w.sizes, sight)])

    def run(sight: Sight, at: Operands, rows: Rows, given: Any) -> Array:
        operands, where = (at, rows, given), (HEADS, ROWS_HEADS, axes)
        _, means = in_turn(partial(over_keys, sight), None, operands, where, _sizes(at), sight.block)
        return means.reshape(rows.top.shape)

    b, t, h, _ = layout_of(at.q)
    return partitioned_trees(partial(on_each_platform, run, sight), (at, rows, given), PartitionSpec(b, h, t))
