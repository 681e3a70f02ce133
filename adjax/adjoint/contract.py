"""A contraction of two operands, typed like a primal.

    C[out] = Σ A[a] B[b]        summed over the axes that A and B share and the output does not name

One `lax.dot_general`, whose three kinds of axes are read off the letters:

    in A, B and the output   batch           in A and B only   contracted          in one and the output   free
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from .cotangent import cotangent_like, is_explicit, type_of
from .space import wide

Axes = tuple[str, ...]


class Plan(NamedTuple):
    """A spec read for operands of known ranks: `dot_general`'s axes, and the order it gives against the order asked."""

    a: Axes
    b: Axes
    natural: Axes
    out: Axes
    contracted: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]


def contract(spec: str, a: Array, b: Array, like: Any = None) -> Array:
    """An einsum of two operands that accumulates half precision in float32 and is typed like a primal.

    Args:
        spec: an einsum of two operands with an explicit output, ellipsis allowed: `"nd,np->dp"`, `"...d,...p->dp"`
            (an ellipsis that the output does not name is summed). Within an operand letters differ, and a letter that
            the output lacks stands in both operands.
        a, b: the operands.
        like: the primal of which this is a cotangent (array or `like(array)`). Left out, the result has the operands'
            promoted dtype, and on an explicit mesh the layout that its axes have in the operands.

    Returns:
        The contraction, rounded once from its accumulator; with `like`, of that primal's type (`cotangent_like`).

    Raises:
        ValueError: the spec is not of that form, or does not fit the operands' ranks or sizes.

    >>> X, dY = jnp.ones((100_000, 1), jnp.bfloat16), jnp.ones((100_000, 1), jnp.bfloat16)
    >>> contract("nd,np->dp", X, dY).tolist()              # a bfloat16 accumulator would stop at 256
    [[99840.0]]
    """
    plan = _plan(spec, a.ndim, b.ndim)
    _check_sizes(spec, plan, a, b)
    dtype = jnp.result_type(a, b)
    layout = _layout(plan, jax.typeof(a), jax.typeof(b), None if like is None else type_of(like))
    out = _product(a.astype(dtype), b.astype(dtype), (plan.contracted, plan.batch), layout)
    if plan.natural != plan.out:
        out = out.transpose([plan.natural.index(axis) for axis in plan.out])
    return out.astype(dtype) if like is None else cotangent_like(like, out)


def _product(a: Array, b: Array, axes: Any, layout: NamedSharding | None) -> Array:
    """`dot_general` with the accumulator as its result.

    XLA:CPU has no bfloat16 product with a float32 result for every layout (it compiles, then fails when it runs), and
    computes all of them in float32 anyway: there the operands are widened first.
    """
    accumulator = wide(a.dtype)

    def product(a: Array, b: Array) -> Array:
        return lax.dot_general(a, b, axes, preferred_element_type=accumulator, out_sharding=layout)

    if a.dtype != jnp.bfloat16:
        return product(a, b)
    widened = lambda a, b: product(a.astype(accumulator), b.astype(accumulator))
    return lax.platform_dependent(a, b, cpu=widened, default=product)


@lru_cache(maxsize=4096)
def _plan(spec: str, a_rank: int, b_rank: int) -> Plan:
    inputs, arrow, output = spec.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if not arrow or len(operands) != 2:
        raise ValueError(f"contract: expected a spec of two operands and an output like 'nd,np->dp', got {spec!r}")
    a, b = _expand(spec, operands[0], a_rank), _expand(spec, operands[1], b_rank)
    dots = max((axis for axis in (*a, *b) if axis.startswith(".")), default="", key=len)
    out = _expand(spec, output, len(output.replace("...", "")) + (len(dots) if "..." in output else 0))
    shared = [axis for axis in a if axis in b]
    batch = [axis for axis in shared if axis in out]
    contracted = [axis for axis in shared if axis not in out]
    natural = (*batch, *(x for x in a if x not in shared), *(x for x in b if x not in shared))
    if sorted(natural) != sorted(out):
        raise ValueError(f"contract: {spec!r} sums an axis that only one operand has, or names one that none has")

    def where(axes: list[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(a.index, axes)), tuple(map(b.index, axes))

    return Plan(a, b, natural, out, where(contracted), where(batch))


def _expand(spec: str, term: str, rank: int) -> Axes:
    """One letter an axis; the axes of an ellipsis, counted from its right, are '.', '..', '...' and so on."""
    left, dots, right = term.partition("...")
    free = rank - len(left) - len(right)
    axes = (*left, *("." * k for k in range(free, 0, -1)), *right)
    letters = left + right
    fits = free == 0 or (free > 0 and dots)
    if not fits or len(set(axes)) != len(axes) or (letters and not letters.isalpha()):
        raise ValueError(f"contract: {term!r} in {spec!r} does not fit an operand of rank {rank} with distinct axes")
    return axes


def _check_sizes(spec: str, plan: Plan, a: Array, b: Array) -> None:
    sizes = dict(zip(plan.a, a.shape, strict=True))
    for axis, size in zip(plan.b, b.shape, strict=True):
        if sizes.setdefault(axis, size) != size:
            raise ValueError(
                f"contract: axis {axis!r} of {spec!r} is {sizes[axis]} in the first operand (shape {a.shape}) "
                f"but {size} in the second (shape {b.shape})"
            )


def _layout(plan: Plan, a: Any, b: Any, like: Any) -> NamedSharding | None:
    """The `out_sharding` of the product: demanded by explicit meshes when a sharded axis is contracted, else None.

    Each axis keeps the mesh axes it has in the primal, or else in the operands; a mesh axis is used once.
    """
    mesh = next((t.sharding.mesh for t in (a, b) if is_explicit(t)), None)
    if mesh is None:
        return None
    sources = [(plan.out, like)] if like is not None and is_explicit(like) and like.ndim == len(plan.out) else []
    spec_of: dict[str, Any] = {}
    for axes, type_ in sources or [(plan.a, a), (plan.b, b)]:
        for axis, names in zip(axes, type_.sharding.spec, strict=False):
            spec_of[axis] = spec_of.get(axis) or names
    used: set[str] = set()
    entries = []
    for axis in plan.natural:
        names = spec_of.get(axis)
        names = (names,) if isinstance(names, str) else tuple(names or ())
        entries.append(names if names and not used & set(names) else None)
        used |= set(names)
    return NamedSharding(mesh, PartitionSpec(*entries))
