"""The adjoint of an implicit conversion, in one place.

Between a primal and the value a rule computes with lies a conversion nobody wrote: a cast, a broadcast, a replication
over a mesh axis, a layout. Each is linear, and each has an adjoint that somebody must write:

    forward, implicit                       adjoint, spelled here
    cast              x ↦ x.astype(t)       cast back (real part, if it went from real to complex)
    broadcast         x ↦ 1 xᵀ              sum over the broadcast axes
    replication       x ↦ (x, …, x)         psum over the mesh axes over which x does not vary
    resharding        P ↦ Q                 resharding Q ↦ P

`cotangent_like` applies them; `contract` (next file) is an einsum that ends in it. Every layer goes through these two,
so no layer knows about meshes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import AxisType, reshard

from .space import wide


@jax.tree_util.register_static
@dataclass(frozen=True)
class Like:
    """The type of an array without its values: a residual that costs nothing.

    A backward rule that must return a cotangent *like* `b`, and needs no value of `b`, keeps `like(b)`. It is a pytree
    without leaves.

    >>> kept = Like(jax.typeof(jnp.zeros((4, 3))))
    >>> jax.tree.leaves(kept), cotangent_like(kept, jnp.ones((2, 4, 3))).shape
    ([], (4, 3))
    """

    type: Any


def like(x: Array | None) -> Like | None:
    """`x`'s type (shape, dtype, sharding, varying axes) as a leafless pytree; None stays None.

    >>> like(jnp.zeros((4, 3), jnp.bfloat16)).type.shape, like(None)
    ((4, 3), None)
    """
    return None if x is None else Like(jax.typeof(x))


def type_of(x: Any) -> Any:
    """The type of an array, a `Like`, or a type itself."""
    if isinstance(x, Like):
        return x.type
    return x if isinstance(x, jax.core.AbstractValue) else jax.typeof(x)


def varying(type_: Any) -> frozenset[str]:
    """The manual mesh axes over which an array of this type differs from device to device."""
    return frozenset(type_.manual_axis_type.varying)


def zeros_varying(operands: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros for a sum over a tree of arrays to start from: they vary over every mesh axis over which an operand does.

    >>> zeros_varying((jnp.ones(3), None), (2,), jnp.float32).tolist()
    [0.0, 0.0]
    """
    axes = tuple(sorted(frozenset().union(*(varying(type_of(x)) for x in jax.tree.leaves(operands)))))
    zeros = jnp.zeros(shape, dtype)
    return jax.lax.pcast(zeros, axes, to="varying") if axes else zeros


def cotangent_like(primal: Any, ct: Any) -> Array:
    """Types a cotangent like its primal: same shape, dtype, sharding and varying mesh axes.

    Applies the adjoint of the conversion that implicitly took the primal to what the rule computed with: of a broadcast
    the sum, of a cast the cast back, of a replication over mesh axes the `psum`, of a resharding the reverse.

    Args:
        primal: an array, or `like(array)`: only its type is read.
        ct: the cotangent a rule computed; its shape must be one the primal's broadcasts to. `None` and symbolic zeros
            stand for zero.

    Returns:
        An array of the primal's type. Sums of half precision accumulate in float32.

    Raises:
        ValueError: the primal's shape does not broadcast to the cotangent's.

    >>> b = jnp.zeros(3, jnp.bfloat16)
    >>> cotangent_like(b, jnp.ones((5, 3))).tolist(), cotangent_like(b, jnp.ones((5, 3))).dtype
    ([5.0, 5.0, 5.0], dtype(bfloat16))
    """
    target = type_of(primal)
    if ct is None or isinstance(ct, SymbolicZero):
        ct = jnp.zeros(target.shape, target.dtype)
    ct = _unreplicate(target, _unbroadcast(target, jnp.asarray(ct)))
    if jnp.iscomplexobj(ct) and not jnp.issubdtype(target.dtype, np.complexfloating):
        ct = ct.real
    return _relayout(target, ct.astype(target.dtype))


def _unbroadcast(target: Any, ct: Array) -> Array:
    """The adjoint of broadcasting `target.shape` to `ct.shape`: the sum over the axes that were added or stretched."""
    if ct.shape == target.shape:
        return ct
    added = ct.ndim - len(target.shape)
    pairs = list(zip(target.shape, ct.shape[max(added, 0) :], strict=False))
    if added < 0 or any(p not in (1, c) for p, c in pairs):
        raise ValueError(
            f"cotangent_like: a cotangent of shape {ct.shape} cannot belong to a primal of shape {target.shape}: "
            "no broadcast takes the one to the other"
        )
    stretched = tuple(added + i for i, (p, c) in enumerate(pairs) if p == 1 and c != 1)
    total = jnp.sum(ct, axis=(*range(added), *stretched), dtype=wide(ct.dtype), keepdims=True)
    return total.reshape(target.shape).astype(ct.dtype)


def _unreplicate(target: Any, ct: Array) -> Array:
    """The adjoint of replication over manual mesh axes: a psum; where the cotangent is the constant one, a cast."""
    have, want = varying(jax.typeof(ct)), varying(target)
    if extra := tuple(sorted(have - want)):
        ct = lax.psum(ct.astype(wide(ct.dtype)), extra).astype(ct.dtype)
    if missing := tuple(sorted(want - have)):
        ct = lax.pcast(ct, missing, to="varying")
    return ct


def _relayout(target: Any, ct: Array) -> Array:
    """The adjoint of resharding, on meshes whose layouts are part of the type."""
    if not is_explicit(target) or jax.typeof(ct).sharding == target.sharding:
        return ct
    return reshard(ct, target.sharding)


def is_explicit(type_: Any) -> bool:
    """Whether the layout over a mesh is part of the type."""
    mesh = type_.sharding.mesh
    return not mesh.empty and AxisType.Explicit in mesh.axis_types


def sum_leading(x: Array, like: Any) -> Array:
    """Σ over the leading axes: the adjoint of adding one row to every row, `b ↦ 1 bᵀ`.

    Args:
        x: array `[..., p]`.
        like: the primal `b[p]`, or `like(b)`.

    >>> sum_leading(jnp.ones((2, 4, 3)), jnp.zeros(3)).tolist()
    [8.0, 8.0, 8.0]
    """
    return cotangent_like(like, jnp.sum(x, axis=tuple(range(x.ndim - 1)), dtype=wide(x.dtype)))
