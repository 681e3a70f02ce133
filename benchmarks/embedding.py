"""embed in float32: rows looked up, then the gradient of the table, as large as the table, from a random dY.

Plain autodiff differentiates table[ids]. The bytes are those that have to move: the rows read and written forwards; dY
read, the gradient filled with zeros, and its rows read and written backwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adjax import embed
from benchmarks.harness import (
    Contender,
    Options,
    Row,
    Table,
    contest,
    copy_ceiling,
    faster_at_least,
    jax_contenders,
    normal,
    peer,
    sweep_table,
    temporaries_at_most,
    torch_contender,
)

TORCH = "PyTorch"


@dataclass(frozen=True)
class Lookup:
    """n ids of a table of V rows with d features; Zipf: as often as words are, not all alike."""

    n: int
    V: int
    d: int
    zipf: bool = False

    @property
    def label(self) -> str:
        """As a reader writes it."""
        return f"embed, {self.n} ids into {self.V}×{self.d}" + ", Zipf" * self.zipf

    def operands(self) -> list[jax.Array]:
        """The table, ids and dY."""
        rng = np.random.default_rng(0)
        ids = rng.zipf(1.2, self.n) % self.V if self.zipf else rng.integers(0, self.V, self.n)
        table, dY = normal((self.V, self.d), (self.n, self.d))
        return [table, jnp.asarray(ids, jnp.int32), dY]


JUDGED = Lookup(4096, 32000, 512)
SWEEP = [
    Lookup(4096, 32000, 512, zipf=True),
    Lookup(512, 50257, 768),
    Lookup(16384, 8000, 256, zipf=True),
    Lookup(65536, 256, 128),
    Lookup(1024, 100000, 64),
    Lookup(32, 1000, 32),
]


def rows(options: Options) -> Iterator[Row]:
    """A contest for the judged shape, then the others in one table."""
    lookup = Lookup(16, 20, 4) if options.smoke else JUDGED
    yield Row(lookup.label, partial(contest_of, lookup))
    yield Row("embed, other shapes", partial(sweep, SWEEP))


def contest_of(lookup: Lookup, options: Options) -> Table:
    """Ours against autodiff and PyTorch, judged."""
    table = compare(lookup, options, [copy_ceiling(1 if options.smoke else 64)])
    bars = [
        faster_at_least(table, "plain autodiff", 1.0),
        faster_at_least(table, TORCH, 1.2),
        temporaries_at_most(table, "plain autodiff"),
    ]
    return table.with_bars(bars)


def compare(lookup: Lookup, options: Options, ceilings: Any = ()) -> Table:
    """Ours against autodiff and PyTorch."""
    table, ids, dY = lookup.operands()
    plain = lambda table, ids: table[ids]
    return contest(
        f"{lookup.label}, float32, forward + backward",
        [
            *jax_contenders({"adjax": embed, "plain autodiff": plain}, (table, ids), dY),
            peer(TORCH, partial(torch_embed, table, ids, dY)),
        ],
        options,
        bytes_moved=float(table.nbytes + 5 * dY.nbytes),
        judged=["plain autodiff", TORCH],
        ceilings=ceilings,
    )


def torch_embed(table: jax.Array, ids: jax.Array, dY: jax.Array) -> Contender:
    """On all cores."""
    from torch.nn import functional

    return torch_contender(TORCH, lambda table, ids: functional.embedding(ids, table), (table, ids), dY)


def sweep(lookups: list[Lookup], options: Options) -> Table:
    """One line a shape: how many times as long autodiff takes, and PyTorch."""
    each = replace(options, seconds=options.seconds / 10)
    chosen = [Lookup(16, 20, 4)] if options.smoke else lookups
    tables = {lookup.label: compare(lookup, each) for lookup in chosen}
    return sweep_table("embed, other shapes, float32, forward + backward", tables, [TORCH], "gbs", 1.0, options)
