"""max_pool, avg_pool, global_avg_pool in float32: one forward and backward pass, Y, then dx from a random dY.

Plain autodiff differentiates lax.reduce_window. PyTorch runs in both of its memory formats, and the quicker is judged.
The bytes are those that have to move: x and dY read, Y and dx written. `Pool.kind` is "max", "avg" or "global".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adjax import avg_pool, global_avg_pool, max_pool
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
    quickest,
    sweep_table,
    temporaries_at_most,
    torch_contender,
)

TORCH = ("PyTorch contiguous", "PyTorch channels_last")


@dataclass(frozen=True)
class Pool:
    """A layer with its options and the shape of x: [n *s c]."""

    kind: str
    shape: tuple[int, ...]
    window: int
    stride: int
    padding: int = 0

    @property
    def label(self) -> str:
        """As a reader writes it."""
        size = "×".join([str(self.window)] * (len(self.shape) - 2))
        options = f" {size}/{self.stride}" + f" pad {self.padding}" * bool(self.padding)
        options = "" if self.kind == "global" else options
        return f"{self.kind}_pool{options}, x {'×'.join(map(str, self.shape))}"

    def ours(self, x: jax.Array) -> jax.Array:
        """The layer."""
        if self.kind == "global":
            return global_avg_pool(x)
        layer = max_pool if self.kind == "max" else partial(avg_pool, count_padding=True)
        return layer(x, self.window, stride=self.stride, padding=self.padding)

    def plain(self, x: jax.Array) -> jax.Array:
        """What autodiff gets to differentiate."""
        rank = x.ndim - 2
        if self.kind == "global":
            return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        over = {
            "window_dimensions": (1, *[self.window] * rank, 1),
            "window_strides": (1, *[self.stride] * rank, 1),
            "padding": ((0, 0), *[(self.padding, self.padding)] * rank, (0, 0)),
        }
        if self.kind == "max":
            return lax.reduce_window(x, -jnp.inf, lax.max, **over)
        return lax.reduce_window(x, 0.0, lax.add, **over) / self.window**rank

    def torch(self, x: Any) -> Any:
        """PyTorch's, of x[n c *s]."""
        from torch.nn import functional

        rank = x.dim() - 2
        if self.kind == "global":
            return x.mean(dim=tuple(range(2, x.dim())))
        layer = getattr(functional, f"{self.kind}_pool{rank}d")
        return layer(x, self.window, self.stride, self.padding)


X = (32, 56, 56, 64)
JUDGED = {                                                  # at least so many times as fast as autodiff, as PyTorch
    Pool("max", X, 2, 2): (20.0, 1.0),
    Pool("max", X, 3, 2, 1): (10.0, 0.8),
    Pool("avg", X, 2, 2): (1.0, 1.0),
}
SWEEP = [
    Pool("max", (32, 112, 112, 16), 3, 2, 1),
    Pool("max", (32, 28, 28, 64), 3, 1, 1),
    Pool("max", (64, 7, 7, 512), 2, 2),
    Pool("max", (32, 57, 55, 64), 2, 2),
    Pool("max", (32, 64, 64, 3), 2, 2),
    Pool("max", (64, 28, 28, 1), 2, 2),
    Pool("max", (8, 28, 28, 64), 5, 1, 2),
    Pool("max", (16, 28, 28, 32), 2, 3),
    Pool("max", (32, 4000, 32), 4, 4),
    Pool("max", (16, 4000, 32), 3, 1, 1),
    Pool("max", (4, 16, 28, 28, 32), 2, 2),
    Pool("max", (2, 16, 28, 28, 32), 3, 2, 1),
    Pool("max", (8, 8, 8, 8), 2, 2),
    Pool("avg", X, 3, 1, 1),
    Pool("avg", X, 3, 2, 1),
    Pool("avg", (64, 7, 7, 512), 2, 2),
    Pool("avg", (32, 64, 64, 3), 2, 2),
    Pool("avg", (32, 4000, 32), 4, 4),
    Pool("avg", (4, 16, 28, 28, 32), 2, 2),
    Pool("avg", (8, 32, 32, 32), 9, 1, 4),
    Pool("avg", (8, 8, 8, 8), 2, 2),
    Pool("global", (32, 28, 28, 256), 0, 0),
    Pool("global", (64, 7, 7, 2048), 0, 0),
]


def rows(options: Options) -> Iterator[Row]:
    """A contest for each judged layer, then all the others in one table."""
    for pool, bars in JUDGED.items():
        pool = _tiny(pool) if options.smoke else pool
        yield Row(pool.label, partial(contest_of, pool, bars))
    yield Row("pooling, other shapes", partial(sweep, SWEEP))


def _tiny(pool: Pool) -> Pool:
    return replace(pool, shape=(2, *[8] * (len(pool.shape) - 2), 4))


def contest_of(pool: Pool, least: tuple[float, float], options: Options) -> Table:
    """Ours against autodiff and PyTorch, judged."""
    table = compare(pool, options, [copy_ceiling(1 if options.smoke else 64)])
    bars = [
        faster_at_least(table, "plain autodiff", least[0]),
        faster_at_least(table, quickest(table, TORCH), least[1]),
        temporaries_at_most(table, "plain autodiff"),
    ]
    return table.with_bars(bars)


def compare(pool: Pool, options: Options, ceilings: Any = ()) -> Table:
    """Ours against autodiff and PyTorch."""
    (x,) = normal(pool.shape)
    (dY,) = normal(jax.eval_shape(pool.plain, x).shape, seed=1)
    return contest(
        f"{pool.label}, float32, forward + backward",
        [
            *jax_contenders({"adjax": pool.ours, "plain autodiff": pool.plain}, (x,), dY),
            *[peer(name, partial(torch_pool, name, pool, x, dY)) for name in TORCH],
        ],
        options,
        bytes_moved=2.0 * (x.nbytes + dY.nbytes),
        judged=["plain autodiff", *TORCH],
        ceilings=ceilings,
    )


def torch_pool(name: str, pool: Pool, x: jax.Array, dY: jax.Array) -> Contender:
    """PyTorch, with the channels stored last, of the same arrays, or stored second, of transposed copies."""
    if name == TORCH[1]:
        last = lambda y: y.movedim(1, -1)
        return torch_contender(name, lambda x: last(pool.torch(x.movedim(-1, 1))), (x,), dY)
    second = lambda x: np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))
    back: Callable[..., Any] = lambda leaves: [np.moveaxis(leaf, 1, -1) for leaf in leaves]
    return torch_contender(name, pool.torch, (second(x),), second(dY), back)


def sweep(pools: list[Pool], options: Options) -> Table:
    """One line a layer: how many times as long autodiff takes, and PyTorch."""
    each = replace(options, seconds=options.seconds / 10)
    chosen = [_tiny(pool) for pool in pools[:2]] if options.smoke else pools
    tables = {pool.label: compare(pool, each) for pool in chosen}
    return sweep_table("pooling, other shapes, float32, forward + backward", tables, TORCH, "gbs", 2.0, options)
