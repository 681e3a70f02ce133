"""The vector space of a pytree: inner products, norms, probes and zeros.

A pytree of floating arrays is a vector; its leaves are blocks of one long column. `inner` is JAX's bilinear pairing
⟨a, b⟩ = Σ a b (no conjugation), the one in which `jax.vjp` is the transpose of `jax.jvp`: ⟨J v, u⟩ = ⟨v, Jᵀ u⟩.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

PyTree = Any


def is_inexact(x: Any) -> bool:
    """Whether an array (or its type) is real or complex floating point, hence a point of a vector space."""
    return jnp.issubdtype(jax.typeof(x).dtype if isinstance(x, (int, float, complex)) else x.dtype, np.inexact)


def wide(dtype: Any) -> np.dtype:
    """The dtype in which sums of `dtype` accumulate: float32 for half precision, `dtype` itself otherwise.

    >>> wide(jnp.bfloat16), wide(jnp.float32), wide(jnp.complex64)
    (dtype('float32'), dtype('float32'), dtype('complex64'))
    """
    dtype = np.dtype(dtype)
    narrow = jnp.issubdtype(dtype, np.floating) and dtype.itemsize < 4
    return np.dtype(np.float32) if narrow else dtype


def struct(type_: Any) -> jax.ShapeDtypeStruct:
    """A value-free stand-in for an array type that keeps its sharding and its varying mesh axes."""
    sharding = None if type_.sharding.mesh.empty else type_.sharding
    return jax.ShapeDtypeStruct(
        type_.shape, type_.dtype, sharding=sharding, manual_axis_type=type_.manual_axis_type
    )


def zeros_like(tree: PyTree) -> PyTree:
    """The zero vector of the space of `tree`; integer leaves get the empty tangent type float0, as in JAX.

    >>> zero = zeros_like((jnp.ones(3), jnp.arange(4)))
    >>> zero[0].tolist(), zero[1].dtype
    ([0.0, 0.0, 0.0], dtype([('float0', 'V')]))
    """

    def zero(x: Any) -> Any:
        x = jnp.asarray(x)
        return jnp.zeros_like(x) if is_inexact(x) else np.zeros(x.shape, jax.dtypes.float0)

    return jax.tree.map(zero, tree)


def inner(a: PyTree, b: PyTree) -> Array:
    """⟨a, b⟩ = Σ a b over all leaves, without conjugation, accumulated in float32 or wider.

    Args:
        a, b: pytrees of the same structure and shapes. Integer and float0 leaves contribute nothing.

    Returns:
        A scalar in the widest dtype among the leaves.

    Raises:
        ValueError: the two trees differ in structure or in a leaf's shape.

    >>> float(inner({"w": jnp.arange(3.)}, {"w": jnp.ones(3)}))
    3.0
    """
    if jax.tree.structure(a) != jax.tree.structure(b):
        raise ValueError(f"inner: structures differ: {jax.tree.structure(a)} and {jax.tree.structure(b)}")
    total = np.zeros((), np.float32)
    with jax.numpy_dtype_promotion("standard"):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            if np.shape(x) != np.shape(y):
                raise ValueError(f"inner: leaves of shapes {np.shape(x)} and {np.shape(y)}")
            if is_inexact(x) and is_inexact(y):
                dtype = wide(jnp.promote_types(x.dtype, y.dtype))
                total = total + jnp.sum(jnp.asarray(x, dtype) * jnp.asarray(y, dtype))
    return jnp.asarray(total)


def norm(a: PyTree) -> Array:
    """‖a‖ = √⟨a, ā⟩, the Euclidean norm over all leaves.

    >>> float(norm((jnp.array([3.0]), jnp.array(4.0))))
    5.0
    """
    return jnp.sqrt(inner(a, jax.tree.map(jnp.conj, a)).real)


def random_like(key: Array, tree: PyTree) -> PyTree:
    """A random signed probe in the space of `tree`: independent standard normal entries, float0 for integer leaves.

    >>> probe = random_like(jax.random.key(0), (jnp.zeros((2, 3)), jnp.arange(4)))
    >>> probe[0].shape, probe[1].dtype
    ((2, 3), dtype([('float0', 'V')]))
    """
    leaves, tree_def = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))

    def probe(k: Array, x: Any) -> Any:
        x = jnp.asarray(x)
        return jax.random.normal(k, x.shape, x.dtype) if is_inexact(x) else np.zeros(x.shape, jax.dtypes.float0)

    return tree_def.unflatten([probe(k, x) for k, x in zip(keys, leaves, strict=False)])
