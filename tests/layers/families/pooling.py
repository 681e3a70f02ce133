"""max_pool, avg_pool, global_avg_pool: over windows of x[n *s c]."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from adjax import avg_pool, global_avg_pool, max_pool
from tests.cases import Case, Certified, Layout, normal


def distinct(rng: np.random.Generator, *shape: int, dtype: Any = jnp.float64) -> Array:
    """Signed numbers in random order, no two equal in any dtype: at most 256 of them."""
    size = int(np.prod(shape))
    return jnp.asarray((rng.permutation(size).reshape(shape) - size // 2) / 32, dtype)


def window_over(x: Array, window: Any, stride: Any, padding: Any) -> dict[str, Any]:
    """The options of `lax.reduce_window`, spatial axes before the last."""
    rank = len(window)
    around = lambda entries, other: (other,) * (x.ndim - 1 - rank) + tuple(entries) + (other,)
    return {
        "window_dimensions": around(window, 1),
        "window_strides": around(stride or window, 1),
        "padding": padding if isinstance(padding, str) else around(padding, (0, 0)),
    }


def plain_max(x: Array, window: Any, *, stride: Any = None, padding: Any = "VALID") -> Array:
    """What autodiff is asked about."""
    least = -np.inf if jnp.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    return lax.reduce_window(x, np.array(least, x.dtype), lax.max, **window_over(x, window, stride, padding))


def plain_avg(
    x: Array, window: Any, *, stride: Any = None, padding: Any = "VALID", count_padding: bool = False
) -> Array:
    """The same for averages: the sum over each window, divided by how many it holds."""
    over = window_over(x, window, stride, padding)
    total = lambda x: lax.reduce_window(x, np.zeros((), x.dtype), lax.add, **over)
    return total(x) / (int(np.prod(window)) if count_padding else total(jnp.ones_like(x)))


def plain_global_avg(x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


def case(
    name: str, layer: Callable[..., Any], plain: Callable[..., Any], shape: Any, *window: Any, **options: Any
) -> Case:
    """A layer of these options; the maximum where it has a derivative, the averages anywhere."""
    make = distinct if layer is max_pool else normal
    linear = () if layer is max_pool else (0,)
    ours, theirs = (lambda x, f=f: f(x, *window, **options) for f in (layer, plain))
    return Case(f"{layer.__name__} {name}", ours, theirs, lambda rng: (make(rng, *shape),), linear_in=linear)


UNEVEN = {"stride": (2, 1), "padding": ((1, 1), (0, 1))}
CASES = [
    case("uneven", max_pool, plain_max, (2, 4, 3, 2), (3, 2), **UNEVEN),
    case("gaps", max_pool, plain_max, (2, 7, 3), (2,), stride=(3,)),
    case("uneven", avg_pool, plain_avg, (2, 4, 3, 2), (3, 2), **UNEVEN),
    case("all", global_avg_pool, plain_global_avg, (2, 3, 4, 2)),
]


def certified(name: str, layer: Callable[..., Any], dtype: Any, shape: Any, *window: Any, **options: Any) -> Certified:
    everywhere = options.pop("everywhere", False)
    x = (distinct if layer is max_pool else normal)(np.random.default_rng(0), *shape, dtype=dtype)
    layer_of_x = partial(layer, **options) if not window else lambda x: layer(x, *window, **options)
    return Certified(f"{layer.__name__}, {name}", layer_of_x, (x,), everywhere=everywhere)


f32, f64, bf16, f16 = jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16
CERTIFIED = [
    certified("uneven", max_pool, f32, (2, 4, 3, 2), (3, 2), **UNEVEN, everywhere=True),
    certified("2×2", max_pool, f64, (2, 4, 6, 2), 2),
    certified("1-d", max_pool, f32, (2, 7, 3), 3, stride=2, padding="SAME"),
    certified("3-d", max_pool, f32, (1, 2, 3, 4, 2), 2, stride=1),
    certified("gaps", max_pool, f32, (2, 9, 2), 2, stride=3),
    certified("wide", max_pool, f32, (1, 131, 1), (130,), stride=1),
    certified("bfloat16", max_pool, bf16, (2, 4, 3, 2), (3, 2), stride=1),
    certified("float16", max_pool, f16, (2, 5, 2), 2),
    certified("uneven", avg_pool, f32, (2, 4, 3, 2), (3, 2), **UNEVEN, everywhere=True),
    certified("padding counts", avg_pool, f32, (2, 4, 3, 2), (3, 2), **UNEVEN, count_padding=True),
    certified("2×2", avg_pool, f64, (2, 4, 6, 2), 2),
    certified("1-d, gaps", avg_pool, f32, (2, 9, 2), 2, stride=3),
    certified("3-d", avg_pool, f32, (1, 2, 3, 4, 2), 2, stride=1, padding="SAME"),
    certified("wide", avg_pool, f32, (1, 70, 1), (65,), stride=1),
    certified("bfloat16", avg_pool, bf16, (2, 4, 3, 2), (3, 2), stride=1),
    certified("2-d", global_avg_pool, f32, (3, 4, 2, 2), everywhere=True),
    certified("1-d", global_avg_pool, f64, (3, 4, 2)),
    certified("3-d", global_avg_pool, f32, (2, 3, 1, 2, 2)),
    certified("one element", global_avg_pool, f32, (3, 1, 1, 2)),
    certified("bfloat16", global_avg_pool, bf16, (3, 4, 2)),
    certified("float16", global_avg_pool, f16, (3, 4, 2)),
]

SHARDED = [
    case("sharded", max_pool, plain_max, (4, 5, 3, 4), (3, 2), **UNEVEN),
    case("sharded", avg_pool, plain_avg, (4, 5, 3, 4), (3, 2), **UNEVEN),
    case("sharded", global_avg_pool, plain_global_avg, (4, 5, 3, 4)),
]
OUT = [(P("data"), P("data", None, None, "model"))] * 2 + [(P("data"), P("data", "model"))]
LAYOUTS = [
    Layout(f"{sharded.name} {name}", sharded, (arguments,), output)
    for sharded, outputs in zip(SHARDED, OUT, strict=True)
    for name, arguments, output in (
        ("data", P("data"), outputs[0]),
        ("data and model", P("data", None, None, "model"), outputs[1]),
    )
]
