"""The layers under test, one table: function, naive reference, arguments. Every law runs over every case.

Sizes are small and all axes differ, so that a transposed or swapped axis cannot go unnoticed; values are signed.
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
    arguments: Callable[[Array, Any], tuple[Any, ...]]              # (key, dtype) -> arguments
    linear_in: tuple[int, ...] = ()                                 # arguments in each of which the map is linear

    def __repr__(self) -> str:
        return self.name


def plain_affine(params: Any, X: Array) -> Array:
    """What autodiff is asked about."""
    W, b = params
    return X @ W if b is None else X @ W + b


def affine_arguments(*leading: int, d: int = 5, p: int = 3, bias: bool = True) -> Callable[[Array, Any], Any]:
    """A maker of `(AffineParams(W[d, p], b[p]), X[*leading, d])`."""

    def make(key: Array, dtype: Any = jnp.float64) -> tuple[AffineParams, Array]:
        keys = jax.random.split(key, 3)
        W, b, X = (jax.random.normal(k, s, dtype) for k, s in zip(keys, [(d, p), (p,), (*leading, d)], strict=True))
        return AffineParams(W, b if bias else None), X

    return make


AFFINE = Case("affine", affine, plain_affine, affine_arguments(4))
CASES = [
    AFFINE,
    Case("affine-no-bias", affine, plain_affine, affine_arguments(4, bias=False), linear_in=(0, 1)),
    Case("affine-one-example", affine, plain_affine, affine_arguments()),
    Case("affine-many-axes", affine, plain_affine, affine_arguments(2, 4)),
]


def normal_like(key: Array, tree: PyTree) -> PyTree:
    """A tree of the same shapes and dtypes with independent standard normal entries."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    return structure.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=False)])


def as_dtype(tree: PyTree, dtype: Any) -> PyTree:
    """Every leaf in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def assert_close(got: PyTree, want: PyTree, rtol: float) -> None:
    """Leaf by leaf: the same shape, and max |got - want| ≤ rtol · max |want|. Where `want` is zero, so is `got`."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(want)]
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for path, a, b in zip(paths, got, want, strict=True):
        assert a.shape == b.shape, f"{path}: shape {a.shape}, expected {b.shape}"
        wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
        a, b = np.asarray(a).astype(wide), np.asarray(b).astype(wide)
        assert np.isfinite(b).all(), f"{path}: the reference itself is not finite"
        error, scale = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
        assert error <= rtol * scale, f"{path}: error {error:.3g} > {rtol:.3g} x {scale:.3g}"


def assert_same_types(got: PyTree, want: PyTree) -> None:
    """Leaf by leaf the same shape and dtype, in the same structure."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    types = [[(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (got, want)]
    assert types[0] == types[1]
