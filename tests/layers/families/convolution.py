"""conv and conv_transpose, beside `lax.conv_general_dilated` and its transpose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from adjax import ConvParams, conv, conv_transpose
from tests.cases import Case, Certified, Layout, normal


def plain_conv(
    params: Any, x: Array, stride: Any = 1, padding: Any = "SAME", dilation: Any = 1, groups: int = 1
) -> Array:
    """What autodiff is asked about."""
    W, b = params
    rank = W.ndim - 2
    each = lambda v: (v,) * rank if isinstance(v, int) else v
    stride, dilation = each(stride), each(dilation)
    if padding == "CIRCULAR":
        span = [(k - 1) * d + 1 for k, d in zip(W.shape, dilation, strict=False)]
        around = lax.padtype_to_pads(x.shape[-1 - rank : -1], span, stride, "SAME")
        x, padding = jnp.pad(x, [(0, 0), *around, (0, 0)], mode="wrap"), "VALID"
    axes = "DHW"[-rank:]
    y = lax.conv_general_dilated(
        x, W, stride, padding, rhs_dilation=dilation, feature_group_count=groups,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )
    return y if b is None else y + b


def plain_transpose(params: Any, y: Array, size: Any, **options: Any) -> Array:
    """The transpose that JAX derives."""
    W, b = params
    x = jax.ShapeDtypeStruct((y.shape[0], *size, W.shape[-2] * options.get("groups", 1)), y.dtype)
    X = jax.linear_transpose(lambda x: plain_conv((W, None), x, **options), x)(y)[0]
    return X if b is None else X + b


def arguments(x: tuple[int, ...], W: tuple[int, ...], b: int | None) -> Callable[[np.random.Generator], Any]:
    """A maker of `(ConvParams(W, b), x)`."""
    return lambda rng: (ConvParams(normal(rng, *W), None if b is None else normal(rng, b)), normal(rng, *x))


STRIDED = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "groups": 2}


def case(name: str, x: tuple[int, ...], W: tuple[int, ...], b: int | None, **options: Any) -> Case:
    functions = partial(conv, **options), partial(plain_conv, **options)
    return Case(f"conv {name}", *functions, arguments(x, W, b), linear_in=(0, 1) if b is None else (0,))


def transposed(name: str, y: tuple[int, ...], W: tuple[int, ...], b: int | None, size: Any, **options: Any) -> Case:
    functions = partial(conv_transpose, size=size, **options), partial(plain_transpose, size=size, **options)
    return Case(f"conv_transpose {name}", *functions, arguments(y, W, b), linear_in=(0, 1) if b is None else (0,))


CASES = [
    case("2-d", (1, 4, 3, 4), (2, 2, 2, 2), 2, **STRIDED),
    case("depthwise", (1, 5, 3, 2), (3, 2, 1, 4), None, groups=2),
    transposed("2-d", (1, 2, 2, 2), (3, 2, 3, 2), 3, (4, 2), stride=(2, 1)),
]


def certified(name: str, f: Any, x: tuple[int, ...], W: tuple[int, ...], b: int | None, *dtype: Any,
              everywhere: bool = False, **options: Any) -> Certified:  # fmt: skip
    rng = np.random.default_rng(0)
    params, x = jax.tree.map(lambda a: jnp.asarray(a, *(dtype or (jnp.float32,))), arguments(x, W, b)(rng))
    return Certified(f"{f.__name__}, {name}", partial(f, **options), (params, x), everywhere)


CERTIFIED = [
    certified("2-d", conv, (2, 5, 4, 3), (3, 2, 3, 2), 2, everywhere=True),
    certified("1-d, strided, dilated", conv, (2, 9, 2), (3, 2, 3), 3, stride=2, dilation=2),
    certified("3-d", conv, (1, 3, 4, 2, 2), (2, 3, 2, 2, 1), None),
    certified("groups, explicit padding", conv, (2, 5, 4, 4), (2, 3, 2, 6), 6, padding=((1, 0), (2, 1)), groups=2),
    certified("depthwise, strided", conv, (2, 6, 5, 3), (3, 3, 1, 6), 6, stride=2, groups=3),
    certified("circular", conv, (2, 5, 4, 2), (3, 2, 2, 3), 3, padding="CIRCULAR"),
    certified("bfloat16", conv, (2, 5, 4, 3), (3, 2, 3, 2), 2, jnp.bfloat16, padding="VALID"),
    certified("kernel larger than the input", conv, (2, 3, 2), (5, 2, 3), None, jnp.float64),
    certified("2-d", conv_transpose, (2, 5, 4, 2), (3, 2, 3, 2), 3, everywhere=True),
    certified("1-d, strided", conv_transpose, (2, 5, 3), (3, 2, 3), 2, stride=2),
    certified("sized, dilated", conv_transpose, (2, 3, 3), (2, 2, 3), 2, stride=2, dilation=2, size=6),
    certified("groups", conv_transpose, (2, 3, 4, 6), (2, 3, 2, 6), None, padding=((1, 0), (1, 1)), groups=2),
    certified("circular", conv_transpose, (2, 5, 3), (3, 2, 3), 2, padding="CIRCULAR"),
    certified("bfloat16", conv_transpose, (2, 5, 3), (3, 2, 3), 2, jnp.bfloat16, padding="VALID"),
]

WIDE = Case("conv sharded", conv, plain_conv, arguments((8, 5, 3), (3, 3, 4), 4), linear_in=(0,))
DEEP = Case("conv of 4 channels", conv, plain_conv, arguments((8, 5, 4), (3, 4, 6), 6), linear_in=(0,))
WIDE_BACK = Case(
    "conv_transpose to 4 channels", partial(conv_transpose, size=(5,)), partial(plain_transpose, size=(5,)),
    arguments((8, 5, 3), (3, 4, 3), 4), linear_in=(0,),
)  # fmt: skip
BACK = Case(
    "conv_transpose sharded", partial(conv_transpose, size=(5,)), partial(plain_transpose, size=(5,)),
    arguments((8, 5, 4), (3, 3, 4), 3), linear_in=(0,),
)  # fmt: skip
AROUND = Case(
    "conv_transpose around", partial(conv_transpose, padding="CIRCULAR"),
    partial(plain_transpose, size=(5,), padding="CIRCULAR"), arguments((8, 5, 4), (3, 3, 4), 3), linear_in=(0,),
)  # fmt: skip
WHOLE, COLUMNS = ConvParams(P(), P()), ConvParams(P(None, None, "model"), P("model"))
LAYOUTS = [
    Layout("conv data", WIDE, (WHOLE, P("data")), P("data")),
    Layout("conv data and model", WIDE, (COLUMNS, P("data")), P("data", None, "model")),
    Layout("conv rows", DEEP, (ConvParams(P(None, "model"), P()), P("data", None, "model")), P("data"),
           ("auto", "explicit")),
    Layout("conv_transpose around, data", AROUND, (WHOLE, P("data")), P("data"), ("explicit", "shard_map")),
    Layout("conv_transpose data", BACK, (WHOLE, P("data")), P("data")),
    Layout("conv_transpose data and model", WIDE_BACK, (ConvParams(P(None, "model"), P("model")), P("data")),
           P("data", None, "model")),
]  # fmt: skip
