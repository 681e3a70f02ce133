"""The feed-forward block of a transformer, Y = swiglu(x Wg, x Wu) Wd, in float32: Y, then dx and dW from a random dY.

Axes: n rows, d features, f features inside. The FLOPs are those of nine products of n × d × f.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from adjax import affine, swiglu
from benchmarks.harness import (
    Bar,
    Contender,
    Options,
    Row,
    Table,
    contest,
    faster_at_least,
    gemm_ceiling,
    jax_contenders,
    normal,
    peer,
    residual_bytes,
    temporaries_at_most,
    torch_contender,
)

Sizes = tuple[int, int, int]
JUDGED: Sizes = (4096, 512, 1376)
SHAPES: tuple[Sizes, ...] = ((512, 1024, 2752), (8192, 128, 344))
TORCH = "PyTorch"


def rows(options: Options) -> Iterator[Row]:
    """A contest for each shape; the first is judged."""
    for sizes in [(8, 4, 12)] if options.smoke else (JUDGED, *SHAPES):
        yield Row("swiglu block n={} d={} f={}".format(*sizes), partial(contest_of, sizes))


def contest_of(sizes: Sizes, options: Options) -> Table:
    """Ours against autodiff and PyTorch."""
    n, d, f = sizes
    *inputs, dY = normal((d, f), (d, f), (f, d), (n, d), (n, d))
    inputs[:3] = [W / W.shape[0] ** 0.5 for W in inputs[:3]]
    table = contest(
        f"swiglu block n={n} d={d} f={f}, float32, forward + backward",
        [
            *jax_contenders({"adjax": ours, "plain autodiff": plain}, tuple(inputs), dY),
            peer(TORCH, partial(in_torch, inputs, dY)),
        ],
        options,
        flops=18.0 * n * d * f,
        judged=["plain autodiff", TORCH],
        ceilings=[gemm_ceiling(n, d, f)],
    )
    kept, theirs = residual_bytes(ours, *inputs), residual_bytes(plain, *inputs)
    bars = [
        faster_at_least(table, "plain autodiff", 1.05 if sizes == JUDGED else 0.95),
        faster_at_least(table, TORCH, 1.0),
        Bar("residual bytes: adjax / plain autodiff", kept / theirs, "<=", 0.7),
    ]
    return table.with_bars(bars if options.smoke else [*bars, temporaries_at_most(table, "plain autodiff")])


def ours(Wg: jax.Array, Wu: jax.Array, Wd: jax.Array, x: jax.Array) -> jax.Array:
    """Of layers."""
    return affine((Wd, None), swiglu(affine((Wg, None), x), affine((Wu, None), x)))


def plain(Wg: jax.Array, Wu: jax.Array, Wd: jax.Array, x: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate."""
    return (jax.nn.silu(x @ Wg) * (x @ Wu)) @ Wd


def in_torch(inputs: list[Any], dY: jax.Array) -> Contender:
    """On all cores."""
    from torch.nn import functional

    return torch_contender(TORCH, lambda g, u, w, x: (functional.silu(x @ g) * (x @ u)) @ w, inputs, dY)
