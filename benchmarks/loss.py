"""cross_entropy and linear_cross_entropy in float32, the mean over rows: L, then the cotangents from a random dL.

Axes: n rows, d features, v classes. "plain autodiff" subtracts the logit of the label from logsumexp; optax is
softmax_cross_entropy_with_integer_labels; PyTorch's are cross_entropy of linear and, where it has one, its own
linear_cross_entropy. The FLOPs of the linear one are those of three products of n × d × v.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adjax import AffineParams, cross_entropy, linear_cross_entropy
from benchmarks.harness import (
    Contender,
    Options,
    Row,
    Table,
    contest,
    copy_ceiling,
    faster_at_least,
    gemm_ceiling,
    growth_table,
    jax_contender,
    jax_contenders,
    normal,
    peer,
    quickest,
    sweep_table,
    temporaries_at_most,
    torch_contender,
)

Sizes = tuple[int, ...]                                             # (n, v), or (n, d, v)
JUDGED: tuple[Sizes, Sizes] = ((4096, 32000), (1024, 512, 32000))
SHAPES: tuple[Sizes, ...] = ((65536, 10), (1024, 1000), (256, 50257), (16384, 256))
LINEAR_SHAPES: tuple[Sizes, ...] = ((8192, 256, 8192), (256, 768, 50257), (4096, 128, 1000), (16384, 64, 96))
TORCH = ("PyTorch", "PyTorch, fused")
SMOKE: tuple[Sizes, Sizes] = ((8, 12), (8, 4, 12))


def rows(options: Options) -> Iterator[Row]:
    """A contest for each loss, how the memory of the linear one grows, then other shapes in one table."""
    for sizes in SMOKE if options.smoke else JUDGED:
        yield Row(_label(sizes), partial(contest_of, sizes))
    yield Row("linear_cross_entropy, memory of 1024 rows and of 8192", growth)
    yield Row("cross_entropy, other shapes", partial(sweep, SMOKE[:1] if options.smoke else SHAPES))
    yield Row("linear_cross_entropy, other shapes", partial(sweep, SMOKE[1:] if options.smoke else LINEAR_SHAPES))


def contest_of(sizes: Sizes, options: Options) -> Table:
    """Ours against autodiff, optax and PyTorch, judged."""
    linear = len(sizes) == 3
    ceiling = gemm_ceiling(*sizes) if linear else copy_ceiling(1 if options.smoke else 64)
    table = compare(sizes, options, [ceiling])
    best = quickest(table, TORCH[: 2 if linear else 1])
    bars = [faster_at_least(table, "plain autodiff", 1.0 if linear else 1.2), faster_at_least(table, "optax", 1.0)]
    bars += [faster_at_least(table, best, 1.2)] if linear else []
    if not options.smoke:
        bars.append(temporaries_at_most(table, "plain autodiff", 0.4 if linear else 0.5))
    return table.with_bars(bars)


def problem(sizes: Sizes) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The logits, or W[d, v] and x[n, d]; and the labels."""
    n, *inner, v = sizes
    labels = jnp.asarray(np.random.default_rng(0).integers(0, v, n), jnp.int32)
    if not inner:
        return tuple(normal((n, v))), labels
    W, x = normal((inner[0], v), (n, inner[0]))
    return (W / inner[0] ** 0.5, x), labels


def ours(*inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The layers."""
    if len(inputs) == 1:
        return cross_entropy(*inputs, labels)
    return linear_cross_entropy(AffineParams(inputs[0], None), inputs[1], labels)


def plain(*inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate."""
    logits = inputs[0] if len(inputs) == 1 else inputs[1] @ inputs[0]
    true = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - true)


def in_optax(*inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """A peer that autodiff differentiates."""
    import optax

    logits = inputs[0] if len(inputs) == 1 else inputs[1] @ inputs[0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def compare(sizes: Sizes, options: Options, ceilings: Any = ()) -> Table:
    """Ours against autodiff, optax and PyTorch."""
    inputs, labels = problem(sizes)
    (dL,) = normal(())
    of = lambda f: partial(f, labels=labels)
    linear = len(inputs) == 2
    kinds = TORCH if linear else TORCH[:1]
    return contest(
        f"{_label(sizes)}, float32, forward + backward",
        [
            *jax_contenders({"adjax": of(ours), "plain autodiff": of(plain)}, inputs, dL),
            peer("optax", lambda: jax_contender("optax", of(in_optax), inputs, dL)),
            *[peer(kind, partial(in_torch, kind, inputs, labels, dL)) for kind in kinds],
        ],
        options,
        flops=6.0 * float(np.prod(sizes)) if linear else None,
        bytes_moved=None if linear else 3.0 * inputs[0].nbytes,
        judged=["plain autodiff", "optax", *kinds],
        ceilings=ceilings,
    )


def in_torch(kind: str, inputs: tuple[jax.Array, ...], labels: jax.Array, dL: jax.Array) -> Contender:
    """On all cores; W is [v, d] there."""
    import torch
    from torch.nn import functional

    y = torch.from_numpy(np.array(labels, np.int64))
    if len(inputs) == 1:
        return torch_contender(kind, lambda z: functional.cross_entropy(z, y), inputs, dL)
    fused = getattr(functional, "linear_cross_entropy", None)
    if kind == TORCH[1]:
        if fused is None:
            return Contender(kind, missing="this PyTorch has no linear_cross_entropy")
        loss = lambda W, x: fused(x, W, y)
    else:
        loss = lambda W, x: functional.cross_entropy(functional.linear(x, W), y)
    W, x = inputs
    view = lambda leaves: [leaves[0], leaves[1].T, leaves[2]]
    return torch_contender(kind, loss, (np.ascontiguousarray(np.asarray(W).T), x), dL, view)


def growth(options: Options) -> Table:
    """Temporaries of the forward and backward pass of eight times as many rows."""
    n, d, v = SMOKE[1] if options.smoke else JUDGED[1]

    def work(n: int) -> Any:
        inputs = jax.ShapeDtypeStruct((d, v), jnp.float32), jax.ShapeDtypeStruct((n, d), jnp.float32)
        of = lambda f: partial(f, labels=jnp.zeros(n, jnp.int32))
        return {"adjax": of(ours), "autodiff": of(plain)}, inputs, jnp.float32(1)

    return growth_table("linear_cross_entropy, memory", {f"n = {m}": work(m) for m in (n, 8 * n)}, 1.3, options)


def sweep(shapes: tuple[Sizes, ...], options: Options) -> Table:
    """One line a shape: how many times as long autodiff takes, and PyTorch."""
    each = replace(options, seconds=options.seconds / 10)
    tables = {_label(sizes): compare(sizes, each) for sizes in shapes}
    linear = len(shapes[0]) == 3
    name = f"{'linear_' * linear}cross_entropy, other shapes, float32, forward + backward"
    return sweep_table(name, tables, TORCH[: 1 + linear], "gflops" if linear else "gbs", 1.0, options)


def _label(sizes: Sizes) -> str:
    return ("linear_" if len(sizes) == 3 else "") + "cross_entropy " + "×".join(map(str, sizes))
