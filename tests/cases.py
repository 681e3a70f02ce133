"""The layers under test, one table: function, naive reference, arguments. Every law runs over every case.

Sizes are small and all axes differ, so that a transposed or swapped axis cannot go unnoticed. Values are signed and
have at most 8 significant bits, so that they are the same numbers in every dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adjax import AffineParams, affine

PyTree = Any


@dataclass(frozen=True)
class Case:
    """A layer, the same in plain JAX, and how to make arguments for both."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: Callable[[np.random.Generator], tuple[Any, ...]]     # in float64
    linear_in: tuple[int, ...] = ()                                 # the arguments in each of which the map is linear

    def __repr__(self) -> str:
        return self.name


def plain_affine(params: Any, X: Array) -> Array:
    """What autodiff is asked about."""
    W, b = params
    return X @ W if b is None else X @ W + b


def affine_arguments(*leading: int, d: int = 5, p: int = 3, bias: bool = True) -> Callable[[np.random.Generator], Any]:
    """A maker of `(AffineParams(W[d, p], b[p]), X[*leading, d])`."""

    def make(rng: np.random.Generator) -> tuple[AffineParams, Array]:
        return AffineParams(normal(rng, d, p), normal(rng, p) if bias else None), normal(rng, *leading, d)

    return make


AFFINE = Case("affine", affine, plain_affine, affine_arguments(4), linear_in=(0,))
AFFINE_VARIANTS = [
    Case("no-bias", affine, plain_affine, affine_arguments(4, bias=False), linear_in=(0, 1)),
    Case("one-example", affine, plain_affine, affine_arguments(), linear_in=(0,)),
    Case("many-axes", affine, plain_affine, affine_arguments(2, 4), linear_in=(0,)),
]


def normal(rng: np.random.Generator, *shape: int, dtype: Any = jnp.float64) -> Array:
    """Standard normal entries, rounded to bfloat16 and then given in `dtype`."""
    return jnp.asarray(rng.standard_normal(shape).astype(jnp.bfloat16).astype(dtype))


def normal_like(rng: np.random.Generator, tree: PyTree) -> PyTree:
    """A tree of the same shapes and dtypes with such entries."""
    return jax.tree.map(lambda x: normal(rng, *x.shape, dtype=x.dtype), tree)


def as_dtype(tree: PyTree, dtype: Any) -> PyTree:
    """Every leaf in another dtype."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(dtype)), tree)


def assert_close(got: PyTree, want: PyTree, rtol: float) -> None:
    """Leaf by leaf: the same shape, and max |got - want| ≤ rtol · max |want|. Where `want` is zero, so is `got`."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(want)]
    for path, a, b in zip(paths, jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape, f"{path}: shape {a.shape}, expected {b.shape}"
        wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
        a, b = np.asarray(a).astype(wide), np.asarray(b).astype(wide)
        assert np.isfinite(b).all(), f"{path}: the reference itself is not finite"
        error, scale = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
        assert error <= rtol * scale, f"{path}: error {error:.3g} > {rtol:.3g} * {scale:.3g}"


def assert_same_types(got: PyTree, want: PyTree) -> None:
    """The same structure, and leaf by leaf the same shape and dtype."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    types = [[(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (got, want)]
    assert types[0] == types[1]
