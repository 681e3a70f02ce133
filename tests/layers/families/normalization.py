"""batch_norm and group_norm: Y = scale (X − μ)/√(σ² + ε) + bias."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import BatchState, NormParams, batch_norm, group_norm
from tests.cases import Case, Certified, Layout, normal

EPS = 1e-5


def plain(params: Any, x: Array, mean: Array, var: Array, eps: float = EPS) -> Array:
    """The equation, as it stands."""
    scale, bias = params
    y = (x - mean) / jnp.sqrt(var + eps)
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def plain_batch_norm(
    params: Any, x: Array, state: Any, *, train: bool, momentum: float = 0.9, eps: float = EPS,
    axis_name: Any = None, where: Any = None,
) -> tuple[Array, Any]:  # fmt: skip
    """What autodiff is asked about; `where` has the rank of x."""
    if not train:
        y = plain(params, x, *state, eps)
        return (y if where is None else jnp.where(where, y, 0)), state
    mask = jnp.broadcast_to(True if where is None else where, x.shape)
    total = lambda t: jnp.sum(t, range(x.ndim - 1))
    over = total if axis_name is None else lambda t: jax.lax.psum(total(t), axis_name)
    N = over(mask.astype(x.dtype))
    x = jnp.where(mask, x, 0)
    mean = over(x) / jnp.maximum(N, 1)
    var = over(jnp.where(mask, x - mean, 0) ** 2) / jnp.maximum(N, 1)
    pairs = ((s, v.astype(s.dtype)) for s, v in zip(state, (mean, var), strict=True))
    new = (jnp.where(N > 0, momentum * s + (1 - momentum) * v, s) for s, v in pairs)
    return jnp.where(mask, plain(params, x, mean, var, eps), 0), BatchState(*new)


def plain_group_norm(params: Any, x: Array, *, groups: int, eps: float = EPS) -> Array:
    """What autodiff is asked about."""
    examples = x if x.ndim > 1 else x[None]
    X = examples.reshape(len(examples), -1, groups, x.shape[-1] // groups)
    normal = plain((None, None), X, X.mean((1, 3), keepdims=True), X.var((1, 3), keepdims=True), eps)
    return plain(params, normal.reshape(x.shape), 0, 1 - eps, eps)


def arguments(*shape: int, given: str = "scale bias", state: bool = False) -> Callable[[np.random.Generator], Any]:
    """A maker of `(NormParams, x)`, and the state where it is an argument."""

    def make(rng: np.random.Generator) -> tuple[Any, ...]:
        c = shape[-1]
        params = NormParams(*(normal(rng, c) if name in given else None for name in ("scale", "bias")))
        statistics = (BatchState(normal(rng, c), 1 + jnp.square(normal(rng, c))),) if state else ()
        return params, normal(rng, *shape), *statistics

    return make


def training(norm: Callable[..., Any], **options: Any) -> Callable[..., Array]:
    """Y alone of a batch, as a function of params and x."""
    return lambda params, x: norm(params, x, BatchState.init(x.shape[-1]), train=True, **options)[0]


def evaluating(norm: Callable[..., Any], **options: Any) -> Callable[..., Array]:
    """Y alone, as a function of params, x and state."""
    return lambda params, x, state: norm(params, x, state, train=False, **options)[0]


def train_case(name: str, *shape: int, given: str = "scale bias", **options: Any) -> Case:
    functions = (training(norm, **options) for norm in (batch_norm, plain_batch_norm))
    return Case(f"batch_norm {name}", *functions, arguments(*shape, given=given), linear_in=(0,) if given else ())


def group_case(name: str, *shape: int, groups: int, given: str = "scale bias") -> Case:
    functions = (partial(norm, groups=groups) for norm in (group_norm, plain_group_norm))
    return Case(f"group_norm {name}", *functions, arguments(*shape, given=given), linear_in=(0,) if given else ())


MASK = jnp.asarray(np.random.default_rng(0).random((4, 3, 1)) < 0.7)
EVALUATING = Case(
    "batch_norm evaluating", evaluating(batch_norm), evaluating(plain_batch_norm), arguments(4, 3, state=True),
    linear_in=(0,),
)  # fmt: skip
CASES = [
    train_case("training", 4, 3, 2),
    train_case("masked", 4, 3, 2, where=MASK),
    EVALUATING,
    group_case("images", 2, 3, 4, 6, groups=3),
    group_case("no positions", 3, 8, groups=2),
]


def certified(name: str, f: Callable[..., Any], dtype: Any, *args: Any, everywhere: bool = False) -> Certified:
    made = arguments(*args)(np.random.default_rng(1))
    return Certified(name, f, jax.tree.map(lambda x: x.astype(dtype), made), everywhere)


def batch_certified(name: str, dtype: Any, *shape: int, everywhere: bool = False, **options: Any) -> Certified:
    f = training(batch_norm, **options)
    return certified(f"batch_norm, {name}", f, dtype, *shape, everywhere=everywhere)


def group_certified(name: str, dtype: Any, *shape: int, groups: int, everywhere: bool = False) -> Certified:
    f = partial(group_norm, groups=groups)
    return certified(f"group_norm, {name}", f, dtype, *shape, everywhere=everywhere)


WITH_STATE = arguments(5, 3, state=True)(np.random.default_rng(1))
POSITIVE: dict[str, Any] = {"domain": {"state": (0.1, 8.0)}}
CERTIFIED = [
    batch_certified("images", jnp.float32, 2, 3, 4, 5, everywhere=True),
    batch_certified("rows", jnp.float64, 6, 3),
    batch_certified("bfloat16", jnp.bfloat16, 6, 3),
    batch_certified("float16", jnp.float16, 2, 5, 3),
    batch_certified("a large eps", jnp.float32, 6, 3, eps=0.5),
    batch_certified("masked entries", jnp.float32, 4, 3, 2, where=MASK),
    Certified("batch_norm, the new state", lambda params, x, state: batch_norm(params, x, state, train=True),
              WITH_STATE, options=POSITIVE),
    Certified("batch_norm, evaluating", evaluating(batch_norm), WITH_STATE, True, POSITIVE),
    group_certified("images", jnp.float32, 2, 3, 4, 6, groups=3, everywhere=True),
    group_certified("no positions", jnp.float64, 3, 8, groups=2),
    group_certified("one example", jnp.float32, 8, groups=2),
    group_certified("one group", jnp.float32, 2, 5, 3, groups=1),
    group_certified("a group a channel", jnp.float32, 2, 5, 3, groups=3),
    group_certified("bfloat16", jnp.bfloat16, 2, 3, 4, 6, groups=2),
    group_certified("float16", jnp.float16, 2, 5, 6, groups=2),
]

BATCH = train_case("sharded", 8, 3, 4)
IMAGES = group_case("sharded", 4, 3, 2, 6, groups=3)
WHOLE, CHANNELS = NormParams(P(), P()), NormParams(P("model"), P("model"))
LAYOUTS = [
    Layout("batch_norm data", BATCH, (WHOLE, P("data")), P("data"), ("auto", "explicit")),
    Layout("batch_norm model", BATCH, (CHANNELS, P(None, None, "model")), P(None, None, "model")),
    Layout("batch_norm data and model", BATCH, (CHANNELS, P("data", None, "model")), P("data", None, "model"),
           ("auto", "explicit")),
    Layout("batch_norm evaluating", Case("sharded", evaluating(batch_norm), evaluating(plain_batch_norm),
           arguments(8, 3, 4, state=True)),
           (CHANNELS, P("data", None, "model"), BatchState(*CHANNELS)), P("data", None, "model")),
    Layout("group_norm data", IMAGES, (WHOLE, P("data")), P("data")),
    Layout("group_norm positions", IMAGES, (WHOLE, P("data", None, "model")), P("data", None, "model"),
           ("auto", "explicit")),
    Layout("group_norm channels", IMAGES, (CHANNELS, P(None, None, None, "model")), P(None, None, None, "model"),
           ("auto", "explicit")),
]  # fmt: skip
