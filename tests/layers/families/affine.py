"""affine: Y = X W + b."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import AffineParams, affine
from tests.cases import Case, Certified, Layout, normal


def plain_affine(params: Any, X: Array) -> Array:
    """What autodiff is asked about."""
    W, b = params
    return X @ W if b is None else X @ W + b


def arguments(*leading: int, d: int = 5, p: int = 3, bias: bool = True) -> Callable[[np.random.Generator], Any]:
    """A maker of `(AffineParams(W[d, p], b[p]), X[*leading, d])`."""

    def make(rng: np.random.Generator) -> tuple[AffineParams, Array]:
        return AffineParams(normal(rng, d, p), normal(rng, p) if bias else None), normal(rng, *leading, d)

    return make


CASES = [
    Case("affine", affine, plain_affine, arguments(4), linear_in=(0,)),
    Case("affine no-bias", affine, plain_affine, arguments(4, bias=False), linear_in=(0, 1)),
    Case("affine one-example", affine, plain_affine, arguments(), linear_in=(0,)),
    Case("affine many-axes", affine, plain_affine, arguments(2, 4), linear_in=(0,)),
]


def certified(name: str, dtype: Any, *leading: int, d: int = 4, p: int = 3, bias: bool = True) -> Certified:
    rng = np.random.default_rng(0)
    W, b, X = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((d, p), (p,), (*leading, d)))
    return Certified(f"affine, {name}", affine, (AffineParams(W, b if bias else None), X), everywhere=True)


BATCH = certified("a batch", jnp.float32, 6)
CERTIFIED = [
    BATCH,
    certified("no batch", jnp.float32),
    certified("two batch axes", jnp.float64, 2, 5),
    certified("no bias", jnp.float32, 6, bias=False),
    certified("one feature", jnp.float32, 6, d=1, p=2),
    certified("square", jnp.float32, 4, d=4, p=4),
    certified("bfloat16", jnp.bfloat16, 6),
    certified("float16", jnp.float16, 6),
    certified("complex", jnp.complex64, 6),
    Certified("affine, a plain tuple", affine, (tuple(BATCH.arguments[0]), BATCH.arguments[1]), everywhere=True),
]

SHARDED = Case("affine sharded", affine, plain_affine, arguments(8, d=4, p=6), linear_in=(0,))
COLUMNS = AffineParams(P(None, "model"), P("model"))
LAYOUTS = [
    Layout("affine data", SHARDED, (AffineParams(P(), P()), P("data")), P("data")),
    Layout("affine data and model", SHARDED, (COLUMNS, P("data")), P("data", "model")),
]
