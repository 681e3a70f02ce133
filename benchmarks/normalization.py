"""batch_norm in training and group_norm: one forward and backward pass, Y, then dscale, dbias and dX from a random dY.

Axes: n examples, positions, c channels. The work is bound by memory: GB/s counts what cannot be avoided, X read and Y
written forwards, X and dY read and dX written backwards, though the statistics need X three times more and dY once.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from adjax import BatchState, NormParams, batch_norm, group_norm
from benchmarks.harness import (
    Contender,
    Options,
    Row,
    Table,
    contest,
    copy_ceiling,
    faster_at_least,
    jax_contender,
    jax_contenders,
    normal,
    peer,
    temporaries_at_most,
    torch_contender,
)

Shape = tuple[int, ...]
Problem = tuple[NormParams, jax.Array, jax.Array]
IMAGES = (32, 28, 28, 64)                       # the shape with the bars against autodiff of 2 and PyTorch of 0.8
SHAPES: tuple[Shape, ...] = (IMAGES, (32, 7, 7, 512), (16, 56, 56, 16), (8, 4096, 32), (1024, 256), (4, 8, 16, 16, 32))
HALF: tuple[Shape, ...] = (IMAGES,)
SMOKE_SHAPES: tuple[Shape, ...] = ((2, 3, 4, 16),)
GROUPS = 8
EPS = 1e-5
TORCH = ("PyTorch, channels last", "PyTorch, channels first")


def rows(options: Options) -> Iterator[Row]:
    """A contest for each layer and shape, then in half precision."""
    for shape in SMOKE_SHAPES if options.smoke else SHAPES:
        yield Row("batch_norm " + _label(shape), partial(batch_contest, shape))
        yield Row("group_norm " + _label(shape), partial(group_contest, shape))
    for shape in SMOKE_SHAPES if options.smoke else HALF:
        yield Row(f"batch_norm {_label(shape)} bfloat16", partial(batch_contest, shape, dtype=jnp.bfloat16))
        yield Row(f"group_norm {_label(shape)} bfloat16", partial(group_contest, shape, dtype=jnp.bfloat16))


def problem(shape: Shape, dtype: Any = jnp.float32) -> Problem:
    """Random parameters, X[... c] and dY[... c]."""
    c = shape[-1]
    scale, bias, x, dY = (v.astype(dtype) for v in normal((c,), (c,), shape, shape))
    return NormParams(scale, bias), x, dY


def batch_contest(shape: Shape, options: Options, dtype: Any = jnp.float32) -> Table:
    """batch_norm with the batch's statistics; what becomes of the state is not part of it."""
    at = problem(shape, dtype)
    name = f"batch_norm {_label(shape)} {jnp.dtype(dtype)}, forward + backward"
    ours = lambda params, x: batch_norm(params, x, BatchState.init(shape[-1]), train=True)[0]
    return _contest(name, ours, plain_batch_norm, flax_batch_norm, torch_batch_norm, at, options)


def group_contest(shape: Shape, options: Options, dtype: Any = jnp.float32) -> Table:
    """group_norm with eight groups."""
    at = problem(shape, dtype)
    name = f"group_norm {_label(shape)} {jnp.dtype(dtype)}, {GROUPS} groups, forward + backward"
    ours = partial(group_norm, groups=GROUPS)
    return _contest(name, ours, plain_group_norm, flax_group_norm, torch_group_norm, at, options)


def _contest(
    name: str,
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    in_flax: Callable[..., Contender],
    in_torch: Callable[..., Any],
    at: Problem,
    options: Options,
) -> Table:
    params, x, dY = at
    wide = x.dtype == jnp.float32
    peers = [peer("flax nnx", partial(in_flax, *at))] if wide else []
    peers += [peer(kind, partial(torch_norm, kind, in_torch, *at)) for kind in TORCH if wide]
    table = contest(
        name,
        [*jax_contenders({"adjax": ours, "plain autodiff": plain}, (params, x), dY), *peers],
        options,
        bytes_moved=5 * x.nbytes,
        judged=["plain autodiff", *(TORCH if wide else [])],
        ceilings=[copy_ceiling(1 if options.smoke else 64)],
        tolerance=1e-3 if wide else 0.05,
    )
    bars = [faster_at_least(table, "plain autodiff", 2 if wide and x.shape == IMAGES else 0.95)]
    if not options.smoke:                                           # where an array is large beside the statistics
        bars.append(temporaries_at_most(table, "plain autodiff"))
    if wide:
        best = min(TORCH, key=lambda kind: table.entry(kind).measures.get("ratio", float("inf")))
        bars.append(faster_at_least(table, best, 0.8))
    return table.with_bars(bars)


def plain_batch_norm(params: NormParams, x: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate; in float32, as flax does."""
    x_ = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    return _plain(params, x_, x_.mean(axes), x_.var(axes)).astype(x.dtype)


def plain_group_norm(params: NormParams, x: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate; in float32, as flax does."""
    X = x.astype(jnp.float32).reshape(*x.shape[:-1], GROUPS, x.shape[-1] // GROUPS)
    axes = (*range(1, x.ndim - 1), x.ndim)
    mean, var = X.mean(axes, keepdims=True), X.var(axes, keepdims=True)
    centred = ((X - mean) * jax.lax.rsqrt(var + EPS)).reshape(x.shape)
    return _plain(params, centred, jnp.float32(0), jnp.float32(1 - EPS)).astype(x.dtype)


def _plain(params: NormParams, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
    scale, bias = params
    return (x - mean) * jax.lax.rsqrt(var + EPS) * scale + bias


def flax_batch_norm(params: NormParams, x: jax.Array, dY: jax.Array) -> Contender:
    """flax.nnx.BatchNorm, with its fast variance E[X²] − E[X]²."""
    from flax import nnx

    return _flax(nnx.BatchNorm(x.shape[-1], epsilon=EPS, rngs=nnx.Rngs(0)), params, x, dY)


def flax_group_norm(params: NormParams, x: jax.Array, dY: jax.Array) -> Contender:
    """flax.nnx.GroupNorm, with its fast variance."""
    from flax import nnx

    return _flax(nnx.GroupNorm(x.shape[-1], num_groups=GROUPS, epsilon=EPS, rngs=nnx.Rngs(0)), params, x, dY)


def _flax(layer: Any, params: NormParams, x: jax.Array, dY: jax.Array) -> Contender:
    """The parameters of these layers have the leaves bias, scale."""
    from flax import nnx

    graph, learnt, rest = nnx.split(layer, nnx.Param, ...)
    learnt = jax.tree.unflatten(jax.tree.structure(learnt), [params.bias, params.scale])

    def apply(learnt: Any, x: jax.Array) -> jax.Array:
        running = jax.tree.map(jnp.copy, rest)                      # a layer updates only what its own trace made
        return nnx.merge(graph, learnt, running)(x)

    def view(result: Any) -> list[Any]:
        Y, dbias, dscale, dX = jax.tree.leaves(result)
        return [Y, dscale, dbias, dX]

    return jax_contender("flax nnx", apply, (learnt, x), dY, view)


def torch_batch_norm(x: Any, scale: Any, bias: Any) -> Any:
    from torch.nn import functional

    return functional.batch_norm(x, None, None, scale, bias, training=True, eps=EPS)


def torch_group_norm(x: Any, scale: Any, bias: Any) -> Any:
    from torch.nn import functional

    return functional.group_norm(x, GROUPS, scale, bias, eps=EPS)


def torch_norm(kind: str, norm: Callable[..., Any], params: NormParams, x: jax.Array, dY: jax.Array) -> Contender:
    """On all cores. Channels come second there, and lie in memory last or second."""
    last = kind == TORCH[0]
    first, back = (lambda t: t.movedim(-1, 1)), (lambda t: t.movedim(1, -1))
    if last:
        return torch_contender(kind, lambda s, b, x: back(norm(first(x), s, b)), (*params, x), dY)
    x, dY = (jnp.moveaxis(t, -1, 1) for t in (x, dY))

    def view(result: Any) -> list[Any]:
        Y, dscale, dbias, dX = result
        return [back_numpy(Y), dscale, dbias, back_numpy(dX)]

    back_numpy = lambda t: jnp.moveaxis(t, 1, -1)
    return torch_contender(kind, lambda s, b, x: norm(x, s, b), (*params, x), dY, view)


def _label(shape: Shape) -> str:
    return "×".join(map(str, shape))
