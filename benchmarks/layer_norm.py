"""layer_norm and rms_norm: one forward and backward pass, Y, then dscale, dbias and dx from a random dY.

Axes: n rows, c features. The work is bound by memory: GB/s counts what cannot be avoided, x read and Y written
forwards, x and dY read and dx written backwards.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from adjax import NormParams, layer_norm, rms_norm
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

Shape = tuple[int, ...]
JUDGED: Shape = (4096, 1024)
SHAPES: tuple[Shape, ...] = ((65536, 64), (8192, 256), (2048, 768), (1024, 4096), (8, 512, 512), (64, 32), (1, 8192))
TORCH = "PyTorch"
EPS = {"layer_norm": 1e-5, "rms_norm": 1e-6}


def rows(options: Options) -> Iterator[Row]:
    """A contest for each layer, one in half precision, then the other shapes in one table."""
    shape = (8, 16) if options.smoke else JUDGED
    for name in EPS:
        yield Row(f"{name} {_label(shape)}", partial(contest_of, name, shape, jnp.float32))
    for name in EPS:
        yield Row(f"{name} {_label(shape)} bfloat16", partial(contest_of, name, shape, jnp.bfloat16))
    yield Row("layer_norm and rms_norm, other shapes", sweep)


def contest_of(name: str, shape: Shape, dtype: Any, options: Options) -> Table:
    """Ours against autodiff and PyTorch, judged."""
    table = compare(name, shape, dtype, options, [copy_ceiling(1 if options.smoke else 64)])
    wide = dtype == jnp.float32
    bars = [faster_at_least(table, "plain autodiff", 2.5 if wide else 1.0)]
    if wide:
        bars.append(faster_at_least(table, TORCH, 0.7))
    return table.with_bars(bars if options.smoke else [*bars, temporaries_at_most(table, "plain autodiff", 0.25)])


def compare(name: str, shape: Shape, dtype: Any, options: Options, ceilings: Any = ()) -> Table:
    """Ours against autodiff and, in float32, PyTorch."""
    c = shape[-1]
    scale, bias, x, dY = (v.astype(dtype) for v in normal((c,), (c,), shape, shape))
    params = NormParams(scale, bias if name == "layer_norm" else None)
    layers = {"layer_norm": (layer_norm, plain_layer_norm), "rms_norm": (rms_norm, plain_rms_norm)}[name]
    wide = dtype == jnp.float32
    peers = [peer(TORCH, partial(torch_norm, name, params, x, dY))] if wide else []
    return contest(
        f"{name} {_label(shape)} {jnp.dtype(dtype)}, forward + backward",
        [*jax_contenders(dict(zip(("adjax", "plain autodiff"), layers, strict=True)), (params, x), dY), *peers],
        options,
        bytes_moved=5.0 * x.nbytes,
        judged=["plain autodiff", *([TORCH] if wide else [])],
        ceilings=ceilings,
        tolerance=1e-3 if wide else 0.05,
    )


def plain_layer_norm(params: NormParams, x: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate; in float32, as flax does."""
    x_ = x.astype(jnp.float32)
    mean, var = x_.mean(-1, keepdims=True), x_.var(-1, keepdims=True)
    return ((x_ - mean) * jax.lax.rsqrt(var + EPS["layer_norm"]) * params.scale + params.bias).astype(x.dtype)


def plain_rms_norm(params: NormParams, x: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate; in float32, as flax does."""
    x_ = x.astype(jnp.float32)
    r = jax.lax.rsqrt(jnp.square(x_).mean(-1, keepdims=True) + EPS["rms_norm"])
    return (x_ * r * params.scale).astype(x.dtype)


def torch_norm(name: str, params: NormParams, x: jax.Array, dY: jax.Array) -> Contender:
    """On all cores."""
    from torch.nn import functional

    c = x.shape[-1:]
    if name == "rms_norm":
        return torch_contender(TORCH, lambda s, x: functional.rms_norm(x, c, s, EPS[name]), (params.scale, x), dY)
    return torch_contender(TORCH, lambda s, b, x: functional.layer_norm(x, c, s, b, EPS[name]), (*params, x), dY)


def sweep(options: Options) -> Table:
    """One line a shape and layer: how many times as long autodiff takes, and PyTorch."""
    each = replace(options, seconds=options.seconds / 10)
    shapes = [(8, 16)] if options.smoke else SHAPES
    tables = {f"{n} {_label(s)}": compare(n, s, jnp.float32, each) for s in shapes for n in EPS}
    return sweep_table("norms of rows, other shapes, float32, forward + backward", tables, [TORCH], "gbs", 1.3, options)


def _label(shape: Shape) -> str:
    return "×".join(map(str, shape))
