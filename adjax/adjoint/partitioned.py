"""Operations that know nothing of layouts, on meshes where layouts are part of the type.

On a mesh with explicit axes an operation must say how its result is laid out, and many (a convolution whose channels
are sharded, a sum over a sharded batch inside a loop) have no way to. `partitioned` leaves such a computation to the
partitioner, as on a mesh with automatic axes, and states the layout of its result. Everywhere else it is a plain call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes

from .cotangent import is_explicit, type_of

Names = tuple[Any, ...]


def layout_of(x: Any) -> Names:
    """For each axis of an array the mesh axes it is sharded over: a name, a tuple of names, or None.

    All None where the layout is not part of the type.

    >>> import jax.numpy as jnp
    >>> layout_of(jnp.zeros((2, 3)))
    (None, None)
    """
    type_ = type_of(x)
    names = tuple(type_.sharding.spec) if is_explicit(type_) else ()
    return (*names, *[None] * (type_.ndim - len(names)))


def may_be_sharded() -> bool:
    """Whether arrays on CPU may lie on several devices, unseen where the partitioner decides.

    A loop over an axis that is sharded gathers it. Where this holds a formulation for CPU computes all at once.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1


def partitioned(
    f: Callable[..., Array], *operands: Array, like: Any = None, axes: Sequence[Any] | None = None
) -> Array:
    """`f(*operands)`, on a mesh with explicit axes left to the partitioner.

    Args:
        f: a function of arrays to one array that says nothing of layouts.
        operands: arrays.
        like: the primal whose layout the result gets, an array or `like(array)`; or
        axes: for each axis of the result what `layout_of` says of it. A mesh axis that occurs twice counts once.

    Returns:
        The result; its layout is part of its type where an operand's is.

    >>> import jax.numpy as jnp
    >>> partitioned(lambda x: x[::2], jnp.arange(4.0), axes=(None,)).tolist()
    [0.0, 2.0]
    """
    spec = PartitionSpec(*_once(layout_of(like) if axes is None else axes))
    result: Array = partitioned_trees(f, operands, spec)
    return result


def partitioned_trees(f: Callable[..., Any], operands: tuple[Any, ...], specs: Any) -> Any:
    """The same of trees of arrays; `specs` is a tree like the results, of `PartitionSpec`s, None where a result is.

    >>> partitioned_trees(lambda xs: (xs[0] + xs[1], None), ((1, 2),), (PartitionSpec(), None))
    (3, None)
    """
    mesh = next((t.sharding.mesh for t in map(type_of, jax.tree.leaves(operands)) if is_explicit(t)), None)
    if mesh is None:
        return f(*operands)
    is_spec = lambda x: isinstance(x, PartitionSpec)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=is_spec)
    axes = zip(mesh.axis_names, mesh.axis_types, strict=True)           # those of an enclosing shard_map are not
    explicit = tuple(name for name, kind in axes if kind == AxisType.Explicit)
    return auto_axes(f, axes=explicit, out_sharding=shardings)(*operands)


def _once(axes: Sequence[Any]) -> Names:
    """The same layout with every mesh axis used at most once, where it occurs first."""
    used: set[str] = set()
    entries: list[Any] = []
    for names in axes:
        named = (names,) if isinstance(names, str) else tuple(names or ())
        free = bool(named) and not used & set(named)
        entries.append(names if free else None)
        used |= set(named)
    return tuple(entries)
