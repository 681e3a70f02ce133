"""Einsum: products of any number of operands, summed over the axes that the output does not name.

    Y[out] = Σ A[a] B[b] C[c] …        the terms a, b, c, … and out are letters, one an axis

Seen as a form in all its operands and the cotangent dY, it is symmetric: Y's term is one among the others,

    ⟨Y, dY⟩ = Σ_letters A[a] B[b] C[c] … dY[out]        so  dA[a] = Σ dY[out] B[b] C[c] …

the einsum in which A's term and the output change places. For "nd,dp->np" that is dX = "np,dp->nd" of dY and W, and
dW = "nd,np->dp" of X and dY. Where the swap names a letter twice, or one that no operand has, it stays true:

    Y = Σ_i A_ii                    dA_ij = δ_ij dY         a trace puts its cotangent on the diagonal
    Y_d = Σ_n A_nd                  dA_nd = dY_d            a sum repeats it
    Y_nd = A_nd b_1d                db_1d = Σ_n A_nd dY_nd  a broadcast sums it

Any einsum is a tree of such steps with one or two operands (`subscripts.steps`), each value used once. The backward
pass goes back through the tree, swapping at each step, so cotangents of shared intermediates are computed once.

Residuals: the operands, each only where the cotangent of another needs it; of a single operand only its type. Values
inside the tree are computed again: under one jit with the forward pass XLA merges the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..adjoint import Like, any_mode, contract, is_inexact, layout_of, like, partitioned, wide
from ..adjoint.subscripts import axes_of, natural, parse, read, steps, swap
from .checks import check_array, kind


class EinsumResiduals(NamedTuple):
    """What the backward pass keeps."""

    operands: tuple[Any, ...]           # arrays: the cotangents of the others need them; or one `Like`


def einsum(spec: str, *operands: Array) -> Array:
    """Y[out] = Σ A[a] B[b] …, summed over the letters that the output does not name: `jnp.einsum`, its adjoint spelled.

    Args:
        spec: `"nd,dp->np"`: a term for each operand, a letter for each axis, then the output's. Without an output, the
            letters named once, sorted. An ellipsis stands for any number of axes, aligned on the right; one that the
            output lacks is summed. A letter twice in a term takes the diagonal. Axes of size 1 are stretched to the
            other operands' size, not within an operand. Spaces are ignored.
        operands: as many arrays as terms, of any dtypes that promote to one.

    Returns:
        Y in the operands' promoted dtype. Half precision accumulates in float32 and is rounded once a step: one product
        or one sum. More than two operands are contracted pairwise along the path that `jnp.einsum` takes.

    Raises:
        TypeError: spec is no string, or an operand no numeric array.
        ValueError: the spec is malformed, or does not fit the operands' number, ranks or sizes.

    Cotangents have the type of their primals; complex ones are not conjugated. Integer operands have none.

    Residuals: the operands that the cotangents of the others need.

    >>> X, W = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0], [-1.0]])
    >>> einsum("nd,dp->np", X, W).tolist(), einsum("ii", X).tolist()
    ([[-1.0], [-1.0]], 5.0)
    >>> jax.grad(lambda W: einsum("nd,dp->", X, W))(W).tolist(), jax.grad(lambda X: einsum("ii", X))(X).tolist()
    ([[4.0], [6.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    _check(spec, operands)
    if any(map(is_inexact, operands)):
        return _einsum(spec, *operands)
    shapes = tuple(x.shape for x in operands)
    inputs, output, _ = read(spec, shapes)
    axes = _layout(inputs, output, operands)
    return partitioned(partial(jnp.einsum, spec), *map(jnp.asarray, operands), axes=axes)


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum(spec: str, *operands: Array) -> Array:
    return _values(spec, operands)[-1]


def _einsum_fwd(spec: str, *operands: Array) -> tuple[Array, EinsumResiduals]:
    kept = operands if len(operands) > 1 else (like(operands[0]),)
    return _einsum.fun(spec, *operands), EinsumResiduals(kept)


def _einsum_bwd(spec: str, residuals: EinsumResiduals, dY: Array) -> tuple[Array | None, ...]:
    operands = residuals.operands
    types = [x.type if isinstance(x, Like) else x for x in operands]
    shapes = tuple(t.shape for t in types)
    sizes, program = read(spec, shapes).sizes, steps(spec, shapes)
    values = list(operands) if len(operands) == 1 else _values(spec, operands, last=False)
    cotangents = {len(values): dY}                                  # of every value: out, then the tree, then operands
    for made, (at, inputs, output) in reversed(list(enumerate(program, len(operands)))):
        dV = cotangents.pop(made)
        for i, place in enumerate(at):
            swapped, term = swap(inputs, output, i)                 # "nd,dp->np": "np,dp->nd" and "nd,np->dp"
            given = [dV if j == i else values[other] for j, other in enumerate(at)]
            cotangents[place] = _step(swapped, term, sizes, given, like=values[place])
    return tuple(cotangents[i] if is_inexact(t) else None for i, t in enumerate(types))


_einsum.defvjp(_einsum_fwd, _einsum_bwd)


def _values(spec: str, operands: Sequence[Array], last: bool = True) -> list[Array]:
    """The operands in their promoted dtype, then the result of every step, perhaps without the last."""
    dtype, shapes = jnp.result_type(*operands), tuple(x.shape for x in operands)
    values = [jnp.asarray(x).astype(dtype) for x in operands]
    program = steps(spec, shapes)
    for at, inputs, output in program if last else program[:-1]:
        values.append(_step(inputs, output, read(spec, shapes).sizes, [values[i] for i in at]))
    return values


def _step(
    inputs: Sequence[str], output: str, sizes: Mapping[str, int], operands: Sequence[Array], like: Any = None
) -> Array:
    """An einsum of one or two operands, in the notation of `subscripts`; with `like`, laid out as that primal."""
    if len(inputs) == 1:
        axes = _layout(inputs, output, operands) if like is None else layout_of(like)
        return partitioned(partial(_rearranged, inputs[0], output, sizes), *operands, axes=axes)
    (a, b), (A, B) = inputs, operands
    if _product_order(b, a, output) == output:                      # then the product needs no transpose
        a, b, A, B = b, a, B, A
    return contract(f"{a},{b}->{output}", A, B, like=like)


def _product_order(a: str, b: str, output: str) -> str:
    return "".join(axis for axis in natural(a, b) if axis in output)


def _rearranged(source: str, target: str, sizes: Mapping[str, int], x: Array) -> Array:
    """One operand: squeezed, its diagonals taken, summed, transposed, repeated, put on diagonals, unsqueezed."""
    axes = source.replace("1", "")
    x = x.reshape([sizes[axis] for axis in axes])
    for axis in [axis for axis, count in Counter(axes).items() if count > 1]:
        x, axes = _diagonal(x, axes, axis)
    summed = tuple(i for i, axis in enumerate(axes) if axis not in target)
    x = jnp.sum(x, summed, dtype=wide(x.dtype)).astype(x.dtype) if summed else x
    order = [axis for axis in dict.fromkeys(target) if axis != "1"]
    left = [axis for axis in axes if axis in target]
    found = [axis for axis in order if axis in left]
    x = x.transpose([left.index(axis) for axis in found])
    x = lax.broadcast_in_dim(x, [sizes[axis] for axis in order], [order.index(axis) for axis in found])
    x = _on_diagonals(x, "".join(order), target.replace("1", ""), sizes)
    return x.reshape([1 if axis == "1" else sizes[axis] for axis in target])


def _diagonal(x: Array, axes: str, axis: str) -> tuple[Array, str]:
    """Where the axes named by one letter are equal: every (1 + n + n² + …)-th entry of these axes laid in a row."""
    count, rest = axes.count(axis), axes.replace(axis, "")
    n = x.shape[axes.index(axis)]
    order = [i for i, c in enumerate(axes) if c != axis] + [i for i, c in enumerate(axes) if c == axis]
    x = x.transpose(order)
    row = x.reshape(*x.shape[: len(rest)], n**count)
    stride = sum(n**k for k in range(count))
    return lax.slice_in_dim(row, 0, None, stride, axis=len(rest)), rest + axis


def _on_diagonals(x: Array, axes: str, target: str, sizes: Mapping[str, int]) -> Array:
    """The adjoint of taking diagonals: `x[axes]` where axes of the same letter are equal, zero elsewhere."""
    if axes == target:
        return x
    shape = [sizes[axis] for axis in target]
    first = [target.index(axis) for axis in axes]
    index = [lax.broadcasted_iota(np.int32, shape, i) for i in range(len(target))]
    equal = [index[i] == index[target.index(axis)] for i, axis in enumerate(target) if target.index(axis) != i]
    on = equal[0]
    for other in equal[1:]:
        on = on & other
    spread = lax.broadcast_in_dim(x, shape, first)
    return jnp.where(on, spread, jnp.zeros_like(spread))


def _layout(inputs: Sequence[str], output: str, operands: Sequence[Array]) -> list[Any]:
    """For each axis of the output the mesh axes it has in the first operand that shards it."""
    found: dict[str, Any] = {}
    for term, x in zip(inputs, operands, strict=True):
        for axis, names in zip(term, layout_of(x), strict=True):
            found[axis] = found.get(axis) or names
    return [found.get(axis) for axis in output]


def _check(spec: Any, operands: Sequence[Any]) -> None:
    """Raises unless spec is a spec and the operands are arrays that fit it."""
    if not isinstance(spec, str):
        raise TypeError(f"einsum: spec must be a string like 'nd,dp->np', got {kind(spec)}")
    terms, _ = parse(spec)
    for i, (term, x) in enumerate(zip(terms, operands, strict=False)):
        check_array("einsum", f"operand {i} of {spec!r}", f"({axes_of(term)})", x)
        if not (jnp.issubdtype(x.dtype, np.number) or x.dtype == bool):
            raise TypeError(f"einsum: operand {i} of {spec!r} must be numeric, got dtype {x.dtype} (shape {x.shape})")
    read(spec, tuple(np.shape(x) for x in operands))
