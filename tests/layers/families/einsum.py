"""einsum: products summed over the axes that the output does not name."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from adjax import einsum
from tests.cases import Case, Certified, Layout, normal


def case(name: str, spec: str, *shapes: tuple[int, ...]) -> Case:
    """Ours, jnp.einsum and random operands; an einsum is linear in each."""

    def make(rng: np.random.Generator) -> tuple[Any, ...]:
        return tuple(normal(rng, *shape) for shape in shapes)

    f, plain = partial(einsum, spec), partial(jnp.einsum, spec)
    return Case(f"einsum {name}", f, plain, make, linear_in=tuple(range(len(shapes))))


CASES = [
    case("diagonal-and-product", "iid,dp->pi", (2, 2, 3), (3, 4)),
    case("three", "ij,jk,kl->li", (2, 3), (3, 4), (4, 5)),
    case("stretched-ellipsis", "n...d,...d->...n", (2, 1, 3), (4, 3)),
    case("summed-out", "aab,c->c", (2, 2, 3), (4,)),
]


def certified(
    spec: str, *shapes: tuple[int, ...], dtype: Any = jnp.float32, everywhere: bool = False
) -> Certified:
    name = f"einsum, {spec!r} of {', '.join(map(str, shapes))} in {jnp.dtype(dtype).name}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    operands = tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    return Certified(name, partial(einsum, spec), operands, everywhere)


CERTIFIED = [
    certified("nd,dp->np", (5, 3), (3, 4), everywhere=True),
    certified("iij,jk,k->ik", (2, 2, 3), (3, 4), (4,), everywhere=True),
    certified("...d,dp->...p", (2, 4, 3), (3, 5), dtype=jnp.float64),
    certified("ii", (4, 4)),
    certified("nd->d", (5, 3), dtype=jnp.bfloat16),
    certified("nd,dp->np", (5, 3), (3, 4), dtype=jnp.float16),
    certified("nd,dp->np", (5, 3), (3, 4), dtype=jnp.complex64),
    certified("nd,nd->nd", (5, 3), (1, 3)),
    certified("a,b->ba", (3,), (4,)),
    certified("bij,bjk->bik", (2, 3, 4), (2, 4, 5), dtype=jnp.bfloat16),
]

AFFINE = case("sharded", "nd,dp->np", (8, 3), (3, 6))
CONTRACTED = case("contracted", "nd,dp->np", (8, 4), (4, 6))
BATCHED = case("batched", "b...ij,bjk->...ibk", (8, 1, 3, 2), (8, 2, 4))
TREE = case("tree", "nii,id,n->nd", (8, 3, 3), (3, 4), (8,))
SUM = case("sum", "nd->d", (8, 4))
STRETCHED = case("stretched", "nd,nd->nd", (8, 4), (1, 4))
LAYOUTS = [
    Layout("einsum data and model", AFFINE, (P("data"), P(None, "model")), P("data", "model")),
    Layout("einsum contracted", CONTRACTED, (P("data", "model"), P("model")), P("data"), ("auto", "explicit")),
    Layout("einsum batched", BATCHED, (P("data"), P("data", None, "model")), P(None, None, "data", "model")),
    Layout("einsum tree", TREE, (P("data"), P(None, "model"), P("data")), P("data", "model")),
    Layout("einsum sum", SUM, (P("data", "model"),), P("model"), ("auto", "explicit")),
    Layout("einsum stretched", STRETCHED, (P("data", "model"), P(None, "model")), P("data", "model")),
]
