"""A linear map with a spelled adjoint, valid under every JAX transformation.

    y = A(r) x        fun(r, x)
    x̄ = A(r)ᵀ ȳ       adjoint(r, ȳ)

A primitive that carries both. Its rules are those of any bilinear product A(r) x:

    jvp          ẏ = A(r) ẋ + (∂A/∂r · ṙ) x        the map again; the residuals differentiate like any code
    transpose    x̄ = A(r)ᵀ ȳ                        the map and its adjoint change places
    batch        A and Aᵀ over a batch; an x shared by the batch receives the sum of its cotangents
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive, unmapped_aval
from jax.interpreters import ad, batching, mlir

from .cotangent import cotangent_like
from .linear_map import LinearMap, Traced, is_float0, tangent_type
from .space import struct

PyTree = Any
Types = tuple[Any, ...]
Indices = tuple[int, ...]

linear_call_p = Primitive("linear_call")
linear_call_p.multiple_results = True


def linear_call(
    fun: Callable[[PyTree, PyTree], PyTree],
    adjoint: Callable[[PyTree, PyTree], PyTree],
    residuals: PyTree,
    x: PyTree,
) -> PyTree:
    """y = A(r) x, a linear map whose adjoint is spelled rather than derived.

    The signature of `jax.custom_derivatives.linear_call`, and valid also under `vmap` over any operand, derivatives
    with respect to the residuals, `shard_map` and explicit sharding. Neither map needs to be transposable by JAX: each
    is the other's transpose, however often.

    Args:
        fun: `fun(residuals, x) -> y`, linear in `x`.
        adjoint: `adjoint(residuals, y_bar) -> x_bar`, its transpose (without conjugation): ⟨A x, ȳ⟩ = ⟨x, Aᵀ ȳ⟩.
        residuals: pytree of whatever the two share; may be differentiated.
        x: pytree of floating arrays.

    Returns:
        `fun(residuals, x)`.

    Raises:
        TypeError: `x` or `y` has a leaf that is not floating, or `adjoint` returns another structure or shape than `x`.

    >>> scale = lambda r, x: r * x
    >>> jax.grad(lambda x: linear_call(scale, scale, 3.0, x))(2.0).tolist()
    3.0
    """
    r_leaves, r_tree = jax.tree.flatten(residuals)
    x_leaves, x_tree = jax.tree.flatten(x)
    _check_floating("x", x_leaves)
    n, trees = len(r_leaves), []

    def forward(*operands: Any) -> list[Any]:
        y_leaves, y_tree = jax.tree.flatten(fun(r_tree.unflatten(operands[:n]), x_tree.unflatten(operands[n:])))
        trees.append(y_tree)
        return y_leaves

    there = Traced(jax.jit(forward), (*r_leaves, *x_leaves))
    y_tree, y_types = trees[-1], there.closed.out_avals
    _check_floating("fun's output", [struct(t) for t in y_types])
    x_types = [tangent_type(leaf) for leaf in x_leaves]

    def backward(*operands: Any) -> list[Any]:
        x_bar = adjoint(r_tree.unflatten(operands[:n]), y_tree.unflatten(operands[n:]))
        return _typed_like(x_types, x_tree, x_bar)

    back = Traced(jax.jit(backward), (*r_leaves, *map(struct, y_types)))
    closures = [*there.hoisted, *back.hoisted]
    maps = _pair(there, back, n, len(closures), (_name(fun), _name(adjoint)))
    out = bind(*maps, [*r_leaves, *closures], x_leaves, [t.strip_weak_type() for t in y_types])
    return y_tree.unflatten(out)


def _pair(there: Traced, back: Traced, n: int, n_closures: int, names: tuple[str, str]) -> tuple[LinearMap, LinearMap]:
    """Two traced maps over one list of residuals: the given ones, then what either closes over."""
    split = n + len(there.hoisted)

    def forward(*operands: Any) -> list[Any]:
        given = (*operands[:n], *operands[n + n_closures :])
        return there.evaluate(*there.select(given), *operands[n:split])

    def backward(*operands: Any) -> list[Any]:
        given = (*operands[:n], *operands[n + n_closures :])
        return back.evaluate(*back.select(given), *operands[split : n + n_closures])

    return (
        LinearMap(forward, names[0], there.jaxpr.effects, there.jaxpr),
        LinearMap(backward, names[1], back.jaxpr.effects, back.jaxpr),
    )


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", type(f).__name__).replace("<lambda>", "lambda")


def _check_floating(what: str, leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        if is_float0(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf.dtype.kind in "biu":
            raise TypeError(f"linear_call: {what} must be floating, got a leaf of dtype {leaf.dtype}")


def _typed_like(types: Sequence[Any], tree: Any, cotangents: PyTree) -> list[Any]:
    """The leaves of what an adjoint returned, checked against `x` and typed like it."""
    leaves, got = jax.tree.flatten(cotangents, is_leaf=lambda ct: ct is None)
    if got != tree:
        raise TypeError(f"linear_call: adjoint must return a cotangent of x's structure {tree}, got {got}")
    for type_, leaf in zip(types, leaves, strict=True):
        if leaf is not None and jax.numpy.shape(leaf) != type_.shape:
            raise TypeError(f"linear_call: adjoint returned shape {jax.numpy.shape(leaf)} for an x of {type_}")
    return [cotangent_like(t, leaf) for t, leaf in zip(types, leaves, strict=True)]


def bind(
    fun: LinearMap, adjoint: LinearMap, residuals: Sequence[Any], x: Sequence[Any], out_types: Sequence[Any]
) -> list[Any]:
    """Applies a pair of traced maps; `out_types` are the types of `fun`'s outputs."""
    return linear_call_p.bind(
        *residuals, *x, fun=fun, adjoint=adjoint, out_types=tuple(out_types), n_residuals=len(residuals)
    )


def _apply(*operands: Any, fun: LinearMap, **_: Any) -> list[Any]:
    return fun(*operands)


def _abstract(*_: Any, fun: LinearMap, out_types: tuple[Any, ...], **__: Any) -> tuple[Sequence[Any], frozenset[Any]]:
    return out_types, fun.effects


def _jvp(
    primals: Any, tangents: Any, *, fun: LinearMap, adjoint: LinearMap, out_types: Types, n_residuals: int
) -> tuple[Any, Any]:
    y = linear_call_p.bind(*primals, fun=fun, adjoint=adjoint, out_types=out_types, n_residuals=n_residuals)
    r, x = primals[:n_residuals], primals[n_residuals:]
    r_dot, x_dot = tangents[:n_residuals], tangents[n_residuals:]
    terms = []
    if live := _live(x_dot):                                              # A(r) ẋ
        x_types, all_y = [tangent_type(v) for v in x], tuple(range(len(y)))
        there, back = _block(fun, adjoint, n_residuals, x_types, out_types, live, all_y)
        terms.append(bind(there, back, r, [x_dot[i] for i in live], out_types))
    if live := _live(r_dot):                                              # (∂A/∂r · ṙ) x

        def of_residuals(*active: Any) -> list[Any]:
            full = dict(enumerate(r)) | dict(zip(live, active, strict=True))
            return fun(*full.values(), *x)

        terms.append(jax.jvp(of_residuals, [r[i] for i in live], [r_dot[i] for i in live])[1])
    if not terms:
        return y, [ad.Zero(t) for t in out_types]
    return y, terms[0] if len(terms) == 1 else [ad.add_tangents(a, b) for a, b in zip(*terms, strict=True)]


def _transpose(
    cts: Any, *operands: Any, fun: LinearMap, adjoint: LinearMap, out_types: Types, n_residuals: int
) -> list[Any]:
    r, x = operands[:n_residuals], operands[n_residuals:]
    if any(map(ad.is_undefined_primal, r)):
        return _transpose_residuals(cts, operands, fun)
    wanted = tuple(i for i, v in enumerate(x) if ad.is_undefined_primal(v))
    live = _live(cts)
    x_types = [v.aval.to_ct_aval() if ad.is_undefined_primal(v) else tangent_type(v) for v in x]
    there, back = _block(fun, adjoint, n_residuals, x_types, out_types, wanted, live)
    x_bar = bind(back, there, r, [cts[j] for j in live], [x_types[i] for i in wanted])
    by_index = dict(zip(wanted, x_bar, strict=True))
    return [None] * n_residuals + [by_index.get(i) for i in range(len(x))]


def _transpose_residuals(cts: Any, operands: Any, fun: LinearMap) -> list[Any]:
    """Linear in a residual (the map is bilinear there): transpose the map's own equations."""
    wanted = [i for i, v in enumerate(operands) if ad.is_undefined_primal(v)]

    def of_wanted(*values: Any) -> list[Any]:
        return fun(*(dict(enumerate(operands)) | dict(zip(wanted, values, strict=True))).values())

    cts = [ad.instantiate_zeros(ct) for ct in cts]
    given = jax.linear_transpose(of_wanted, *(struct(operands[i].aval) for i in wanted))(cts)
    by_index = dict(zip(wanted, given, strict=True))
    return [by_index.get(i) for i in range(len(operands))]


def _live(vectors: Sequence[Any]) -> Indices:
    return tuple(i for i, v in enumerate(vectors) if type(v) is not ad.Zero)


def _block(
    fun: LinearMap, adjoint: LinearMap, n: int, x_types: Any, y_types: Any, columns: Indices, rows: Indices
) -> tuple[LinearMap, LinearMap]:
    """The block (rows, columns) of the map, and its adjoint; the whole map stays as it is."""
    if len(columns) == len(x_types) and len(rows) == len(y_types):
        return fun, adjoint
    return fun.restricted(n, x_types, columns, rows), adjoint.restricted(n, y_types, rows, columns)


def _batch(
    axis: Any, operands: Any, dims: Any, *, fun: LinearMap, adjoint: LinearMap, out_types: Types, n_residuals: int
) -> tuple[list[Any], Any]:
    dims, y_dims = tuple(dims), (0,) * len(out_types)
    if all(d is None for d in dims) and axis.name not in fun.axis_names | adjoint.axis_names:
        r, x = operands[:n_residuals], operands[n_residuals:]
        return bind(fun, adjoint, r, x, out_types), (None,) * len(out_types)
    types = [unmapped_aval(axis.size, 0, t, axis.explicit_mesh_axis) for t in out_types]
    there = fun.batched(axis, dims, y_dims)
    back = adjoint.batched(axis, (*dims[:n_residuals], *y_dims), dims[n_residuals:])
    return bind(there, back, operands[:n_residuals], operands[n_residuals:], types), y_dims


linear_call_p.def_impl(_apply)
linear_call_p.def_effectful_abstract_eval(_abstract)
ad.primitive_jvps[linear_call_p] = _jvp
ad.primitive_transposes[linear_call_p] = _transpose
batching.fancy_primitive_batchers[linear_call_p] = _batch
mlir.register_lowering(linear_call_p, mlir.lower_fun(_apply, multiple_results=True))
