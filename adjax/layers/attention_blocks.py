"""A block of queries of attention: its keys, its scores, and loops over blocks. The names are those of `attention`.

Blocks of queries are taken head by head, or of several heads, or of all (`Block`): loops in loops.

A band is a run of blocks that look at equally many keys: under `causal` each band ends at the last key that its queries
see, and with a `window` each block has its own short run of keys. Bands are loops; their number does not grow with t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from ..adjoint import contract, layout_of
from .attention_operands import BANDS, Block, Operands, Sight
from .normalization import working_dtype


class Band(NamedTuple):
    """`blocks` blocks of `rows` queries from `first` on, each with `keys` keys."""

    first: int
    blocks: int
    rows: int
    keys: int


def bands(sizes: tuple[int, int], sight: Sight) -> Iterator[Band]:
    """The queries in bands, what is left over in one of its own."""
    t, s = sizes
    whole = t // sight.block.rows
    each = max(1, -(-whole // (BANDS if sight.causal and sight.window is None else 1)))
    rows = sight.block.rows
    runs = [(i * rows, min(each, whole - i), rows) for i in range(0, whole, each)]
    for first, count, size in [*runs, (whole * rows, 1, t - whole * rows)]:
        if size or not t:
            yield Band(first, count, size, _keys(first + count * size, size, s, sight))


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

    @property
    def sizes(self) -> tuple[int, int]:
        """t and s."""
        return self.q.shape[3], self.k.shape[2]


def by_queries(x: Array, g: int, dtype: Any) -> Array:
    """[b, t, h, d] -> [b, g, r, t, d]."""
    b, t, h, d = x.shape
    return x.astype(dtype).reshape(b, t, g, h // g, d).transpose(0, 2, 3, 1, 4)


def by_heads(x: Array) -> Array:
    """[b, g, r, t, d] -> [b, t, h, d]."""
    b, g, r, t, d = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(b, t, g * r, d)


def of_groups(x: Array, g: int) -> Array:
    """[b|1, h|1, t|1, s|1] -> [b|1, g|1, r|1, t|1, s|1]."""
    b, h, t, s = x.shape
    return x.reshape(b, 1, 1, t, s) if h == 1 else x.reshape(b, g, h // g, t, s)


def dtype_of(at: Operands) -> Any:
    """float32, or wider where an operand is."""
    return working_dtype(at.q, at.k, at.v, at.bias)


def widened(at: Operands) -> Wide:
    """The operands in the dtype of all that lies between."""
    g, dtype = at.k.shape[2], dtype_of(at)
    bias, mask = (None if x is None else of_groups(x, g) for x in (at.bias, at.mask))
    k, v = (x.astype(dtype).transpose(0, 2, 1, 3) for x in (at.k, at.v))
    return Wide(by_queries(at.q, g, dtype), k, v, None if bias is None else bias.astype(dtype), mask)


# One block

class Place(NamedTuple):
    """Where a block is: its first query, a number of the loop, and its first key."""

    row: Any
    key: Any
    band: Band


def place_of(i: Any, band: Band, s: int, sight: Sight) -> Place:
    """The place of block i of a band."""
    row = band.first + i * band.rows
    lowest = row - (0 if sight.window is None else sight.window - 1)
    return Place(row, 0 if sight.window is None else jnp.clip(lowest, 0, s - band.keys), band)


def rows_of(x: Array, at: Place, axis: int = 3) -> Array:
    """A block's queries of x; all, where one stands for all."""
    return x if x.shape[axis] == 1 else lax.dynamic_slice_in_dim(x, at.row, at.band.rows, axis)


def keys_of(x: Array, at: Place, axis: int = 2) -> Array:
    """A block's keys of x."""
    if isinstance(at.key, int):
        return lax.slice_in_dim(x, 0, at.band.keys, axis=axis)
    return lax.dynamic_slice_in_dim(x, at.key, at.band.keys, axis)


def part_of(x: Array, at: Place) -> Array:
    """Of bias or mask."""
    x = rows_of(x, at)
    return x if x.shape[4] == 1 else keys_of(x, at, 4)


def _seen(w: Wide, at: Place, sight: Sight) -> Array | None:
    """Which keys each query may see; None for all."""
    i, j = (lax.broadcasted_iota(jnp.int32, (1, 1, 1, at.band.rows, at.band.keys), axis) for axis in (3, 4))
    i, j = at.row + i, at.key + j
    seen = None if w.mask is None else part_of(w.mask, at)
    both = lambda a, b: b if a is None else a & b
    if sight.causal:
        seen = both(seen, j <= i)
    if sight.window is not None:
        seen = both(seen, abs(i - j) < sight.window)
    return seen


def scores(w: Wide, at: Place, sight: Sight) -> tuple[Array, Any]:
    """S' and dS'/dS, which is 1 without a softcap."""
    S = sight.scale * across(rows_of(w.q, at), keys_of(w.k, at))                # (b, g, r, t, s)
    slope: Any = None
    if sight.softcap is not None:
        bent = jnp.tanh(S / sight.softcap)
        S, slope = sight.softcap * bent, 1 - jnp.square(bent)
    if w.bias is not None:
        S = S + part_of(w.bias, at)
    seen = _seen(w, at, sight)
    return (S if seen is None else jnp.where(seen, S, -jnp.inf)), slope


def across(a: Array, b: Array) -> Array:
    """A Bᵀ: of queries and keys."""
    return contract("bgrtd,bgsd->bgrts", a, b)                                  # (b, g, r, t, s)


def steep(dS: Array, slope: Any) -> Array:
    """dS from dS', or δS' from δS."""
    return dS if slope is None else dS * slope


# Loops over heads and over blocks

def on_each_platform(run: Callable[..., Any], sight: Sight, *operands: Any) -> Any:
    """`run(sight, *operands)`, with the blocks of the platform."""
    if sight.block == sight.other:
        return run(sight, *operands)
    elsewhere = sight._replace(block=sight.other)
    return lax.platform_dependent(*operands, cpu=partial(run, sight), default=partial(run, elsewhere))


def in_turn(run: Callable[..., Any], total: Any, operands: Any, axes: Any, sizes: tuple[int, int], block: Block) -> Any:
    """The total after, and the results of, some heads of keys after the others, each [b g ...].

    `run(total, first, operands)` has the operands of some heads, from `first = (example, head)` on. Their examples lie
    along axis 0, their heads along the axis that `axes` has for each; of queries' heads there are r for one of keys.
    """
    (b, g), (_, few, heads) = sizes, block
    if (few, heads) == (b, g):
        return run(total, (0, 0), operands)

    def step(total: Any, i: Array) -> Any:
        first = i // (g // heads) * few, i % (g // heads) * heads

        def part(x: Array, axis: int) -> Array:
            r = x.shape[axis] // g
            x = x if x.shape[0] == 1 else lax.dynamic_slice_in_dim(x, first[0], few, 0)
            return x if x.shape[axis] == 1 else lax.dynamic_slice_in_dim(x, first[1] * r, heads * r, axis)

        return run(total, first, jax.tree.map(lambda axis, x: None if x is None else part(x, axis), axes, operands))

    turns = jnp.arange(b // few * (g // heads), dtype=jnp.int32)
    total, stacked = lax.scan(jax.checkpoint(step), total, turns)
    return total, jax.tree.map(lambda x: x.reshape(b, g, *x.shape[3:]), stacked)


def mapped(block: Callable[[Any, Band], Any], band: Band) -> Any:
    """The results of a band's blocks one after the other: [b g r (blocks rows) ...]."""
    if band.blocks == 1:
        return block(0, band)
    stacked = lax.map(jax.checkpoint(lambda i: block(i, band)), jnp.arange(band.blocks, dtype=jnp.int32))
    return jax.tree.map(lambda x: in_line(x, band), stacked)


def in_line(x: Array, band: Band) -> Array:
    """[blocks b g r rows ...] -> [b g r (blocks rows) ...]."""
    x = jnp.moveaxis(x, 0, 3)
    return x.reshape(*x.shape[:3], band.blocks * band.rows, *x.shape[5:])


def joined(parts: list[Any]) -> Any:
    """The bands one after the other."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs, 3) if len(xs) > 1 else xs[0], *parts)


def layout(x: Any) -> PartitionSpec | None:
    """That of an array; None for none."""
    return None if x is None else PartitionSpec(*layout_of(x))
