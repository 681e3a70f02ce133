"""Attention a block of queries at a time: forward, backward, and the derivative. The names are those of `attention`.

A band is a run of blocks that look at equally many keys: under `causal` each band ends at the last key that its queries
see, and with a `window` each block has its own short run of keys. Bands are loops; their number does not grow with t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from ..adjoint import contract, layout_of
from ..adjoint.cotangent import is_explicit, type_of, varying
from .attention_operands import Operands, Sight
from .normalization import working_dtype

BANDS = 8


class Band(NamedTuple):
    """`count` blocks of `rows` queries from `first` on, each with `keys` keys."""

    first: int
    count: int
    rows: int
    keys: int


def bands(t: int, s: int, sight: Sight) -> Iterator[Band]:
    """The queries in bands, what is left over in one of its own."""
    whole = t // sight.rows
    each = max(1, -(-whole // (BANDS if sight.causal and sight.window is None else 1)))
    runs = [(i * sight.rows, min(each, whole - i), sight.rows) for i in range(0, whole, each)]
    for first, count, rows in [*runs, (whole * sight.rows, 1, t - whole * sight.rows)]:
        if rows:
            yield Band(first, count, rows, _keys(first + count * rows, rows, s, sight))


def _keys(end: int, rows: int, s: int, sight: Sight) -> int:
    if sight.window is not None:
        return min(s, rows + (sight.window - 1) * (1 if sight.causal else 2))
    return min(s, end) if sight.causal else s


# Operands: [b g r t ...] and [b g s ...], wide

class Wide(NamedTuple):
    """The operands with the heads before the rows."""

    q: Array                        # [b, g, r, t, d]
    k: Array                        # [b, g, s, d]
    v: Array                        # [b, g, s, e]
    bias: Array | None              # [b|1, g|1, r|1, t|1, s|1]
    mask: Array | None


def _by_queries(x: Array, g: int, dtype: Any) -> Array:
    """[b, t, h, d] -> [b, g, r, t, d]."""
    b, t, h, d = x.shape
    return x.astype(dtype).reshape(b, t, g, h // g, d).transpose(0, 2, 3, 1, 4)


def _by_heads(x: Array) -> Array:
    """[b, g, r, t, d] -> [b, t, h, d]."""
    b, g, r, t, d = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(b, t, g * r, d)


def _of_groups(x: Array | None, g: int) -> Array | None:
    """[b|1, h|1, t|1, s|1] -> [b|1, g|1, r|1, t|1, s|1]."""
    if x is None:
        return None
    b, h, t, s = x.shape
    return x.reshape(b, 1, 1, t, s) if h == 1 else x.reshape(b, g, h // g, t, s)


def _dtype(at: Operands) -> Any:
    return working_dtype(at.q, at.k, at.v, at.bias)


def _wide(at: Operands) -> Wide:
    g, dtype = at.k.shape[2], _dtype(at)
    bias = None if at.bias is None else at.bias.astype(dtype)
    k, v = (x.astype(dtype).transpose(0, 2, 1, 3) for x in (at.k, at.v))
    return Wide(_by_queries(at.q, g, dtype), k, v, _of_groups(bias, g), _of_groups(at.mask, g))


# One block

class Place(NamedTuple):
    """Where a block is: its first query, a number of the loop, and its first key."""

    row: Any
    key: Any
    band: Band


def _place(i: Any, band: Band, s: int, sight: Sight) -> Place:
    row = band.first + i * band.rows
    lowest = row - (0 if sight.window is None else sight.window - 1)
    return Place(row, 0 if sight.window is None else jnp.clip(lowest, 0, s - band.keys), band)


def _rows_of(x: Array, at: Place, axis: int = 3) -> Array:
    return x if x.shape[axis] == 1 else lax.dynamic_slice_in_dim(x, at.row, at.band.rows, axis)


def _keys_of(x: Array, at: Place, axis: int = 2) -> Array:
    if isinstance(at.key, int):
        return lax.slice_in_dim(x, 0, at.band.keys, axis=axis)
    return lax.dynamic_slice_in_dim(x, at.key, at.band.keys, axis)


def _part(x: Array, at: Place) -> Array:
    """Of bias or mask."""
    x = _rows_of(x, at)
    return x if x.shape[4] == 1 else _keys_of(x, at, 4)


def _seen(w: Wide, at: Place, sight: Sight) -> Array | None:
    """Which keys each query may see; None for all."""
    i, j = (lax.broadcasted_iota(jnp.int32, (1, 1, 1, at.band.rows, at.band.keys), axis) for axis in (3, 4))
    i, j = at.row + i, at.key + j
    seen = None if w.mask is None else _part(w.mask, at)
    both = lambda a, b: b if a is None else a & b
    if sight.causal:
        seen = both(seen, j <= i)
    if sight.window is not None:
        seen = both(seen, abs(i - j) < sight.window)
    return seen


def _scores(w: Wide, at: Place, sight: Sight) -> tuple[Array, Any]:
    """S' and dS'/dS, which is 1 without a softcap."""
    q, k = _rows_of(w.q, at), _keys_of(w.k, at)
    S = sight.scale * contract("bgrtd,bgsd->bgrts", q, k)                       # (b, g, r, t, s)
    slope: Any = None
    if sight.softcap is not None:
        bent = jnp.tanh(S / sight.softcap)
        S, slope = sight.softcap * bent, 1 - jnp.square(bent)
    if w.bias is not None:
        S = S + _part(w.bias, at)
    seen = _seen(w, at, sight)
    return (S if seen is None else jnp.where(seen, S, -jnp.inf)), slope


def _steep(dS: Array, slope: Any) -> Array:
    return dS if slope is None else dS * slope


# Forward

def forward(at: Operands, sight: Sight) -> tuple[Array, Array]:
    """O [b, t, h, e], and lse [b, h, t]."""

    def run(at: Operands) -> tuple[Array, Array]:
        w = _wide(at)

        def block(i: Any, band: Band) -> tuple[Array, Array]:
            place = _place(i, band, w.k.shape[2], sight)
            S, _ = _scores(w, place, sight)
            top = lax.stop_gradient(jnp.max(S, -1, keepdims=True, initial=-jnp.inf))
            top = jnp.where(top == -jnp.inf, 0, top)                            # of a query that sees no key
            P = jnp.exp(S - top)                                                # (b, g, r, t, s)
            total = jnp.sum(P, -1, keepdims=True)
            total = jnp.where(total == 0, 1, total)
            O = contract("bgrts,bgse->bgrte", P, _keys_of(w.v, place)) / total  # (b, g, r, t, e)
            return O, (top + jnp.log(total))[..., 0]

        O, lse = _joined([_mapped(block, band) for band in bands(w.q.shape[3], w.k.shape[2], sight)])
        b, g, r, t = lse.shape
        return _by_heads(O).astype(at.v.dtype), lse.reshape(b, g * r, t)

    b, t, h, d = layout_of(at.q)
    return _anywhere(run, (at,), (PartitionSpec(b, t, h, d), PartitionSpec(b, h, t)))


def _mapped(block: Callable[[Any, Band], Any], band: Band) -> Any:
    """The results of a band's blocks one after the other: [b g r (count rows) ...]."""
    if band.count == 1:
        return block(0, band)
    stacked = lax.map(jax.checkpoint(lambda i: block(i, band)), jnp.arange(band.count, dtype=jnp.int32))
    return jax.tree.map(lambda x: _in_line(x, band), stacked)


def _in_line(x: Array, band: Band) -> Array:
    """[count b g r rows ...] -> [b g r (count rows) ...]."""
    x = jnp.moveaxis(x, 0, 3)
    return x.reshape(*x.shape[:3], band.count * band.rows, *x.shape[5:])


def _joined(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.concatenate(xs, 3) if len(xs) > 1 else xs[0], *parts)


# Backward

class Sums(NamedTuple):
    """What every block adds to."""

    dk: Array                       # [b, g, s, d]
    dv: Array                       # [b, g, s, e]
    dbias: Array | None             # as bias


def cotangents(at: Operands, sight: Sight, o: Array, lse: Array, dO: Array) -> Operands:
    """dQ, dK, dV and dbias."""

    def run(at: Operands, o: Array, lse: Array, dO: Array) -> tuple[Array, Array, Array, Any]:
        w, (g, dtype) = _wide(at), (at.k.shape[2], _dtype(at))
        dO_, o_ = (_by_queries(x, g, dtype) for x in (dO, o))                   # (b, g, r, t, e)
        lse = lse.reshape(dO_.shape[:4]).astype(dtype)
        delta = jnp.sum(dO_ * o_, -1)                                           # Δ (b, g, r, t)

        def block(sums: Sums, i: Any, band: Band) -> tuple[Sums, Array]:
            place = _place(i, band, w.k.shape[2], sight)
            k, v = (_keys_of(x, place) for x in (w.k, w.v))
            q, dO, lse_, delta_ = (_rows_of(x, place) for x in (w.q, dO_, lse, delta))
            S, slope = _scores(w, place, sight)
            A = jnp.exp(S - lse_[..., None])                                    # (b, g, r, t, s)
            dA = contract("bgrte,bgse->bgrts", dO, v)                           # (b, g, r, t, s)
            dS_ = A * (dA - delta_[..., None])                                  # (b, g, r, t, s)
            dS = sight.scale * _steep(dS_, slope)                               # (b, g, r, t, s)
            dQ = contract("bgrts,bgsd->bgrtd", dS, k)                           # (b, g, r, t, d)
            dK = contract("bgrts,bgrtd->bgsd", dS, q)                           # (b, g, s, d)
            dV = contract("bgrts,bgrte->bgse", A, dO)                           # (b, g, s, e)
            return Sums(_add(sums.dk, dK, place), _add(sums.dv, dV, place), _add_bias(sums.dbias, dS_, place)), dQ

        sums, parts = _zeros(w, (at, dO)), []
        for band in bands(w.q.shape[3], w.k.shape[2], sight):
            sums, dQ = _folded(block, sums, band)
            parts.append(dQ)
        dk, dv = (x.transpose(0, 2, 1, 3) for x in sums[:2])
        dbias = None if at.bias is None else sums.dbias.reshape(at.bias.shape)
        return _by_heads(_joined(parts)), dk, dv, dbias

    return Operands(*_anywhere(run, (at, o, lse, dO), tuple(map(_layout, at[:4]))), None)


def _folded(block: Callable[..., Any], sums: Sums, band: Band) -> tuple[Sums, Array]:
    """The sums after a band's blocks, and the rows that they give."""
    if band.count == 1:
        return block(sums, 0, band)
    step = jax.checkpoint(lambda sums, i: block(sums, i, band))
    sums, stacked = lax.scan(step, sums, jnp.arange(band.count, dtype=jnp.int32))
    return sums, _in_line(stacked, band)


def _zeros(w: Wide, operands: Any) -> Sums:
    """What the sums start from, varying over whatever mesh axis an operand varies over."""
    axes = tuple(sorted(frozenset().union(*(varying(type_of(x)) for x in jax.tree.leaves(operands)))))

    def zeros(like: Array | None) -> Array | None:
        zero = None if like is None else jnp.zeros(like.shape, like.dtype)
        return lax.pcast(zero, axes, to="varying") if zero is not None and axes else zero

    return Sums(*map(zeros, (w.k, w.v, w.bias)))


def _add(total: Array, part: Array, at: Place) -> Array:
    """To the keys of a block."""
    return _added(total, part, {2: at.key})


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

def tangent(at: Operands, sight: Sight, o: Array, lse: Array, tangents: Operands) -> Array:
    """δO."""

    def run(at: Operands, o: Array, lse: Array, tangents: Operands) -> Array:
        w, (g, dtype) = _wide(at), (at.k.shape[2], _dtype(at))
        δw = _wide(tangents)
        o_ = _by_queries(o, g, dtype)
        lse = lse.reshape(o_.shape[:4]).astype(dtype)

        def block(i: Any, band: Band) -> Array:
            place = _place(i, band, w.k.shape[2], sight)
            (q, δq), (k, δk), (v, δv) = (
                [part(x, place) for x in pair]
                for part, pair in zip((_rows_of, _keys_of, _keys_of), zip(w[:3], δw[:3], strict=True), strict=True)
            )
            S, slope = _scores(w, place, sight)
            A = jnp.exp(S - _rows_of(lse, place)[..., None])                    # (b, g, r, t, s)
            product = lambda a, b: contract("bgrtd,bgsd->bgrts", a, b)
            δS = sight.scale * _steep(product(δq, k) + product(q, δk), slope)   # (b, g, r, t, s)
            AδS = A * (δS if δw.bias is None else δS + _part(δw.bias, place))   # (b, g, r, t, s)
            average = lambda a, v: contract("bgrts,bgse->bgrte", a, v)
            mean = jnp.sum(AδS, -1, keepdims=True)                              # (b, g, r, t, 1)
            return average(A, δv) + average(AδS, v) - mean * _rows_of(o_, place)

        δO = _joined([_mapped(block, band) for band in bands(w.q.shape[3], w.k.shape[2], sight)])
        return _by_heads(δO).astype(at.v.dtype)

    return _anywhere(run, (at, o, lse, tangents._replace(mask=None)), _layout(o))


def _anywhere(f: Callable[..., Any], operands: Any, layouts: Any) -> Any:
    """`f(*operands)`; on a mesh with explicit axes as on an automatic one, with these layouts of the results."""
    mesh = next((t.sharding.mesh for t in map(type_of, jax.tree.leaves(operands)) if is_explicit(t)), None)
    if mesh is None:
        return f(*operands)
    is_layout = lambda x: isinstance(x, PartitionSpec)
    return auto_axes(f, out_sharding=jax.tree.map(lambda x: NamedSharding(mesh, x), layouts, is_leaf=is_layout))(
        *operands
    )


def _layout(x: Any) -> PartitionSpec | None:
    return None if x is None else PartitionSpec(*layout_of(x))
