"""attention in float32: one forward and backward pass, O, then dq, dk, dv from a random dO; and one jvp.

Plain autodiff differentiates jax.nn.dot_product_attention; PyTorch's is scaled_dot_product_attention. The FLOPs are
those of six products, Q Kᵀ and A V forwards and the four of their adjoints, over the keys that a query sees; what a
backward pass computes again is not counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adjax import attention
from benchmarks.harness import (
    Contender,
    Options,
    Row,
    Table,
    contest,
    faster_at_least,
    gemm_ceiling,
    growth_table,
    jax_contenders,
    jax_program,
    normal,
    peer,
    sweep_table,
    temporaries_at_most,
    torch_contender,
)

TORCH = "PyTorch sdpa"


@dataclass(frozen=True)
class Heads:
    """b examples, t queries and keys, h heads of queries and g of keys, d features."""

    b: int
    t: int
    h: int
    d: int
    g: int = 0
    causal: bool = False
    window: int | None = None

    @property
    def label(self) -> str:
        """As a reader writes it."""
        options = " causal" * self.causal + f" window {self.window}" * (self.window is not None)
        return f"attention{options}, {self.b}×{self.t}×{self.h}×{self.d}" + f", {self.g} of keys" * bool(self.g)

    def operands(self) -> list[jax.Array]:
        """q, k, v and dO."""
        of = lambda h: (self.b, self.t, h, self.d)
        return normal(of(self.h), of(self.g or self.h), of(self.g or self.h), of(self.h))

    def seen(self) -> np.ndarray:
        """Which keys each query sees, [t, t]."""
        i, j = np.arange(self.t)[:, None], np.arange(self.t)
        seen = (j <= i) if self.causal else np.ones((self.t, self.t), bool)
        return seen if self.window is None else seen & (abs(i - j) < self.window)

    @property
    def flops(self) -> float:
        """Of the six products."""
        return 12.0 * self.b * self.h * self.d * float(self.seen().sum())

    def ours(self, q: Any, k: Any, v: Any) -> jax.Array:
        """The layer."""
        return attention(q, k, v, causal=self.causal, window=self.window)

    def plain(self, q: Any, k: Any, v: Any) -> jax.Array:
        """What autodiff gets to differentiate."""
        near = None if self.window is None else (self.window - 1, 0 if self.causal else self.window - 1)
        return jax.nn.dot_product_attention(q, k, v, is_causal=self.causal, local_window_size=near)

    def torch(self, dO: Any, *qkv: Any) -> Contender:
        """PyTorch's, of arrays in its own order [b, h, t, d]."""
        import torch
        from torch.nn import functional

        mask = None if self.window is None else torch.from_numpy(self.seen())
        causal = self.causal and mask is None

        def f(q: Any, k: Any, v: Any) -> Any:
            return functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=bool(self.g)
            )

        own = lambda x: np.ascontiguousarray(np.swapaxes(np.asarray(x), 1, 2))
        back = lambda leaves: [np.swapaxes(leaf, 1, 2) for leaf in leaves]
        return torch_contender(TORCH, f, list(map(own, qkv)), own(dO), back)


CAUSAL = Heads(1, 2048, 8, 64, causal=True)
JUDGED = {                                                  # at least so many times as fast as autodiff, as PyTorch
    CAUSAL: (3.0, 0.8),
    Heads(1, 4096, 8, 64): (1.3, 0.8),
    Heads(1, 4096, 8, 64, window=256): (5.0, 0.8),
}
SWEEP = [
    Heads(4, 512, 8, 64, causal=True),
    Heads(16, 197, 12, 64),
    Heads(8, 128, 12, 64),
    Heads(32, 64, 4, 32, causal=True),
    Heads(2, 1000, 8, 48),
    Heads(2, 1024, 16, 64, 4, causal=True),
    Heads(1, 1024, 32, 128, 8, causal=True),
    Heads(1, 1500, 6, 80, 1),
    Heads(1, 4096, 2, 64, causal=True, window=128),
    Heads(2, 3000, 4, 64, window=65),
    Heads(1, 6000, 1, 32, causal=True),
    Heads(1, 777, 3, 40),
]


def rows(options: Options) -> Iterator[Row]:
    """A contest for each judged shape, the derivative, the growth of memory, then all the other shapes in one table."""
    for heads, bars in JUDGED.items():
        yield Row(heads.label, partial(contest_of, _tiny(heads) if options.smoke else heads, bars))
    yield Row(f"jvp of {CAUSAL.label}", partial(jvp_contest, _tiny(CAUSAL) if options.smoke else CAUSAL))
    yield Row("attention, memory from 2048 to 8192", growth)
    yield Row("attention, other shapes", partial(sweep, SWEEP))


def _tiny(heads: Heads) -> Heads:
    return replace(heads, b=1, t=48, h=2, d=8, g=0, window=heads.window and 8)


def contest_of(heads: Heads, least: tuple[float, float], options: Options) -> Table:
    """Ours against autodiff and PyTorch, judged."""
    m = 64 if options.smoke else 1024
    table = compare(heads, options, [gemm_ceiling(m, m, m)])
    bars = [faster_at_least(table, "plain autodiff", least[0]), faster_at_least(table, TORCH, least[1])]
    return table.with_bars(bars if options.smoke else [*bars, temporaries_at_most(table, "plain autodiff", 0.1)])


def compare(heads: Heads, options: Options, ceilings: Any = ()) -> Table:
    """Ours against autodiff and PyTorch."""
    *qkv, dO = heads.operands()
    functions = {"adjax": heads.ours, "plain autodiff": heads.plain}
    return contest(
        f"{heads.label}, float32, forward + backward",
        [*jax_contenders(functions, tuple(qkv), dO), peer(TORCH, partial(heads.torch, dO, *qkv))],
        options,
        flops=heads.flops,
        judged=["plain autodiff", TORCH],
        ceilings=ceilings,
    )


def jvp_contest(heads: Heads, options: Options) -> Table:
    """The derivative along (δq, δk, δv), which reverse mode knows nothing of."""
    *qkv, _ = heads.operands()
    tangents = tuple(normal(*[x.shape for x in qkv], seed=1))

    def contender(name: str, f: Any) -> Contender:
        return jax_program(name, lambda qkv, tangents: jax.jvp(f, qkv, tangents), (tuple(qkv), tangents))

    table = contest(
        f"jvp of {heads.label}, float32",
        [contender("adjax", heads.ours), contender("plain autodiff", heads.plain)],
        options,
        flops=heads.flops,                                          # Q Kᵀ, A V, and two derivatives of each
        judged=["plain autodiff"],
    )
    bars = [faster_at_least(table, "plain autodiff", 1.5)]
    return table.with_bars(bars if options.smoke else [*bars, temporaries_at_most(table, "plain autodiff", 0.1)])


def growth(options: Options) -> Table:
    """Temporaries of the forward and backward pass of four times as many queries and keys."""

    def work(t: int) -> Any:
        heads = replace(CAUSAL, t=t)
        x = jax.ShapeDtypeStruct((1, t, heads.h, heads.d), jnp.float32)
        return {"adjax": heads.ours, "autodiff": heads.plain}, (x, x, x), x

    sizes = (64, 256) if options.smoke else (2048, 8192)
    return growth_table("attention causal, memory", {f"t = {t}": work(t) for t in sizes}, 4.4, options)


def sweep(shapes: list[Heads], options: Options) -> Table:
    """One line a shape: how many times as long autodiff takes, and PyTorch."""
    each = replace(options, seconds=options.seconds / 10)
    chosen = [_tiny(heads) for heads in shapes[:1]] if options.smoke else shapes
    tables = {heads.label: compare(heads, each) for heads in chosen}
    return sweep_table("attention, other shapes, float32, forward + backward", tables, [TORCH], "gflops", 1.3, options)
