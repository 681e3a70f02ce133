"""cross_entropy and linear_cross_entropy: L = −Σ q log P."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import AffineParams, cross_entropy, linear_cross_entropy
from adjax.layers.loss_linear import Operands, Options, Sizes, in_blocks
from tests.cases import Case, Certified, Layout, normal


def plain_cross_entropy(
    logits: Array, labels: Array, *, where: Any = None, label_smoothing: float = 0.0, z_loss: float = 0.0,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """What autodiff is asked about."""
    v = logits.shape[-1]
    q = jax.nn.one_hot(labels, v, dtype=logits.dtype) if labels.ndim < logits.ndim else labels
    q = (1 - label_smoothing) * q + label_smoothing / v
    lse = jnp.log(jnp.sum(jnp.exp(logits), -1))
    L = jnp.sum(q * (lse[..., None] - logits), -1) + z_loss * lse**2
    keep = jnp.broadcast_to(True if where is None else where, L.shape)
    L = jnp.where(keep, L, 0)
    return L if reduction == "none" else L.sum() / (keep.sum().astype(L.dtype) if reduction == "mean" else 1)


def labels(seed: int, *rows: int, v: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, v, rows))


def distribution(rng: np.random.Generator, *shape: int) -> Array:
    """Positive, and no sum is 1."""
    return jnp.abs(normal(rng, *shape)) + 0.125


def of_logits(f: Callable[..., Array], y: Array | None = None, **options: Any) -> Callable[..., Array]:
    """The loss as a function of logits, and of distributions where no labels are given."""
    return partial(f, **options) if y is None else lambda logits: f(logits, y, **options)


def arguments(*shape: int, soft: bool = False) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    return lambda rng: (normal(rng, *shape), *([distribution(rng, *shape)] if soft else []))


def case(name: str, *shape: int, soft: bool = False, **options: Any) -> Case:
    y = None if soft else labels(2, *shape[:-1], v=shape[-1])
    functions = (of_logits(f, y, **options) for f in (cross_entropy, plain_cross_entropy))
    return Case(f"cross_entropy {name}", *functions, arguments(*shape, soft=soft))


def linear(name: str, *shape: int, v: int, soft: bool = False, **options: Any) -> Case:
    """Of W, b and x (and distributions), in blocks of few rows and columns."""
    fixed = Options(options.get("label_smoothing", 0.0), options.get("z_loss", 0.0), None)
    numbers = labels(2, *shape[:-1], v=v)

    def ours(W: Array, b: Array, x: Array, y: Array = numbers) -> Array:
        at = Operands(AffineParams(W, b), x, y, options.get("where"))
        return in_blocks(at, fixed, options["reduction"], Sizes(3, 2))

    def made(rng: np.random.Generator) -> tuple[Array, ...]:
        of_row = [distribution(rng, *shape[:-1], v)] if soft else []
        return normal(rng, shape[-1], v), normal(rng, v), normal(rng, *shape), *of_row

    plain = lambda W, b, x, y=numbers: plain_cross_entropy(x @ W + b, y, **options)
    return Case(f"linear_cross_entropy {name}", ours, plain, made)


KEEP = jnp.array([True, False, True, True])
EVERYTHING: dict[str, Any] = {"label_smoothing": 0.25, "z_loss": 0.125}
CASES = [
    case("none", 4, 3, reduction="none", where=KEEP, **EVERYTHING),
    case("distributions", 2, 3, soft=True, **EVERYTHING),
    linear("none", 4, 2, v=3, reduction="none", where=KEEP, **EVERYTHING),
    linear("mean", 4, 2, v=3, reduction="mean"),
]


def certified(name: str, dtype: Any, *shape: int, soft: bool = False, everywhere: bool = False, **options: Any) -> Any:
    made = arguments(*shape, soft=soft)(np.random.default_rng(1))
    y = None if soft else labels(2, *shape[:-1], v=shape[-1] - 1)         # in range also where an axis is made smaller
    args = tuple(x.astype(dtype) for x in made)
    return Certified(f"cross_entropy, {name}", of_logits(cross_entropy, y, **options), args, everywhere)


CERTIFIED = [
    certified("mean", jnp.float32, 4, 5, everywhere=True),
    certified("none, everything", jnp.float64, 4, 3, reduction="none", where=KEEP, **EVERYTHING),
    certified("sum of distributions", jnp.float32, 2, 3, soft=True, reduction="sum", label_smoothing=0.25),
    certified("z-loss", jnp.float32, 2, 3, 4, z_loss=0.5),
    certified("bfloat16", jnp.bfloat16, 4, 5, reduction="none"),
    certified("float16", jnp.float16, 4, 3, where=KEEP),
]



def certified_linear(name: str, dtype: Any, *, bias: bool = True, soft: bool = False, **options: Any) -> Certified:
    """Of W[2, 3], b and x[4, 2]."""
    rng = np.random.default_rng(1)
    made = normal(rng, 2, 3), normal(rng, 3), normal(rng, 4, 2), distribution(rng, 4, 3)
    W, b, x, q = (t.astype(dtype) for t in made)
    y = labels(2, 4, v=2)

    def f(W: Array, x: Array, *more: Array) -> Array:
        params = AffineParams(W, more[0] if bias else None)
        return linear_cross_entropy(params, x, more[-1] if soft else y, **options)

    args = W, x, *([b] if bias else []), *([q] if soft else [])
    return Certified(f"linear_cross_entropy, {name}", f, args)


CERTIFIED += [
    certified_linear("mean", jnp.float32),
    certified_linear("none, everything", jnp.float64, reduction="none", where=KEEP, **EVERYTHING),
    certified_linear("sum of distributions", jnp.float32, bias=False, soft=True, reduction="sum"),
    certified_linear("z-loss", jnp.float32, bias=False, z_loss=0.5),
    certified_linear("bfloat16", jnp.bfloat16, bias=False, reduction="none"),
    certified_linear("float16", jnp.float16, where=KEEP),
]

SHARDED = case("sharded", 8, 6, reduction="none", **EVERYTHING)
SOFT = case("sharded distributions", 8, 6, soft=True, **EVERYTHING)
SOFT_ROWS = case("sharded rows", 8, 3, soft=True, reduction="none")
LINEAR = linear("sharded", 8, 2, v=3, soft=True, reduction="none", **EVERYTHING)
LINEAR_MEAN = linear("sharded mean", 8, 2, v=4, reduction="mean", **EVERYTHING)
DATA = P("data")
LAYOUTS = [
    Layout("cross_entropy data", SHARDED, (DATA,), DATA, ("auto", "explicit")),
    Layout("cross_entropy rows", SOFT_ROWS, (DATA, DATA), DATA, ("shard_map",)),
    Layout("cross_entropy data and model", SHARDED, (P("data", "model"),), DATA, ("auto", "explicit")),
    Layout("cross_entropy distributions", SOFT, (P("data", "model"), P("data", "model")), P(), ("auto", "explicit")),
    Layout("linear_cross_entropy data", LINEAR, (P(), P(), DATA, DATA), DATA),
    Layout("linear_cross_entropy model", LINEAR_MEAN, (P(None, "model"), P("model"), DATA), P(), ("auto", "explicit")),
]
