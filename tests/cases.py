"""What a layer under test is: function, naive reference, arguments. `tests/layers/families` holds the table of them.

Sizes are small and all axes differ, so that a transposed or swapped axis cannot go unnoticed. Values are signed and
have at most 8 significant bits, so that they are the same numbers in every dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

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


@dataclass(frozen=True)
class Certified:
    """A layer at options and arguments for which it must have a certificate; in all contexts or in the eager one."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    everywhere: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)        # of `certify`

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Layout:
    """A case laid out over a mesh of 4 × 2 devices with the axes "data" and "model".

    Attributes:
        case: its arguments' sharded axes divide.
        arguments: a tree like the arguments whose leaves are `PartitionSpec`s.
        output: the same for the output.
        modes: "auto" (sharded arrays under jit), "explicit" (axis types), "shard_map" (only where the layer works on
            each shard alone).
    """

    name: str
    case: Case
    arguments: Any
    output: Any
    modes: tuple[str, ...] = ("auto", "explicit", "shard_map")

    def __repr__(self) -> str:
        return self.name


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
