"""The rows of the matrix: transformations, each a function of a layer and a `Problem` to a pytree of results.

Nothing here knows which layer it is: a row runs on the layer and on its plain reference, and the results must agree.
Scalars are made by a loss that is nothing special, `L = Σ u sin(f)` with random u, so no derivative of any order
vanishes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.flatten_util import ravel_pytree

Layer = Callable[..., Any]
Row = Callable[[Layer, "Problem"], Any]


class Problem(NamedTuple):
    """Where a layer is evaluated, and in which directions."""

    args: tuple[Any, ...]           # x
    tangents: tuple[Any, ...]       # v, like args
    others: tuple[Any, ...]         # w, like args
    cotangents: Any                 # u, like the output
    batch: tuple[Any, ...]          # like args, with a leading axis of 2
    grid: tuple[Any, ...]           # like args, with leading axes of 2 and 3
    linear_in: tuple[int, ...]      # arguments in each of which the layer is linear


def loss(f: Layer, at: Problem) -> Callable[..., Array]:
    """Σ u sin(f(x))."""

    def L(*args: Any) -> Array:
        terms = jax.tree.map(lambda y, u: jnp.sum(u * jnp.sin(y)), f(*args), at.cotangents)
        return sum(jax.tree.leaves(terms))

    return L


def flat_loss(f: Layer, at: Problem) -> tuple[Callable[[Array], Array], Array]:
    """The loss as a function of one vector, and where it stands."""
    x, unflatten = ravel_pytree(at.args)
    return lambda x: loss(f, at)(*unflatten(x)), x


def all_args(at: Problem) -> tuple[int, ...]:
    return tuple(range(len(at.args)))


def subsets(at: Problem) -> list[tuple[int, ...]]:
    """The non-empty subsets of the leaves of the arguments."""
    n = len(jax.tree.leaves(at.args))
    return [s for size in range(1, n + 1) for s in itertools.combinations(range(n), size)]


def over_leaves(f: Layer, at: Problem, subset: tuple[int, ...]) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """`f` as a function of some leaves of its arguments, their values, and their tangents."""
    leaves, structure = jax.tree.flatten(at.args)
    tangents = jax.tree.leaves(at.tangents)

    def g(*some: Any) -> Any:
        full = dict(enumerate(leaves)) | dict(zip(subset, some, strict=True))
        return f(*structure.unflatten(full.values()))

    return g, [leaves[i] for i in subset], [tangents[i] for i in subset]


# First order

def value(f: Layer, at: Problem) -> Any:
    return f(*at.args)


def grad_of_each_subset(f: Layer, at: Problem) -> Any:
    def grad(subset: tuple[int, ...]) -> Any:
        g, x, _ = over_leaves(f, at, subset)
        return jax.grad(loss(g, at), tuple(range(len(x))))(*x)

    return [grad(s) for s in subsets(at)]


def jvp_of_each_subset(f: Layer, at: Problem) -> Any:
    return [jax.jvp(*over_leaves(f, at, s))[1] for s in subsets(at)]


def value_and_grad(f: Layer, at: Problem) -> Any:
    return jax.value_and_grad(loss(f, at), all_args(at))(*at.args)


def vjp(f: Layer, at: Problem) -> Any:
    y, back = jax.vjp(f, *at.args)
    return y, back(at.cotangents)


def jvp(f: Layer, at: Problem) -> Any:
    return jax.jvp(f, at.args, at.tangents)


def linearize(f: Layer, at: Problem) -> Any:
    y, push = jax.linearize(f, *at.args)
    return y, push(*at.tangents), push(*at.others)


def transpose_of_linearize(f: Layer, at: Problem) -> Any:
    _, push = jax.linearize(f, *at.args)
    return jax.linear_transpose(push, *at.args)(at.cotangents)


def linear_transpose(f: Layer, at: Problem) -> Any:
    def transpose(i: int) -> Any:
        return jax.linear_transpose(lambda x: f(*at.args[:i], x, *at.args[i + 1 :]), at.args[i])(at.cotangents)

    return [transpose(i) for i in at.linear_in]


def jacfwd(f: Layer, at: Problem) -> Any:
    return jax.jacfwd(f, all_args(at))(*at.args)


def jacrev(f: Layer, at: Problem) -> Any:
    return jax.jacrev(f, all_args(at))(*at.args)


# Second and third order

def composed(*modes: Callable[..., Any]) -> Row:
    """The derivative whose order is the number of modes, the last applied first."""

    def row(f: Layer, at: Problem) -> Any:
        L, x = flat_loss(f, at)
        for mode in reversed(modes):
            L = mode(L)
        return L(x)

    return row


def hvp_forward_over_reverse(f: Layer, at: Problem) -> Any:
    return jax.jvp(jax.grad(loss(f, at), all_args(at)), at.args, at.tangents)[1]


def hvp_reverse_over_forward(f: Layer, at: Problem) -> Any:
    def directional(*args: Any) -> Array:
        return jax.jvp(loss(f, at), args, at.tangents)[1]

    return jax.grad(directional, all_args(at))(*at.args)


def hvp_reverse_over_reverse(f: Layer, at: Problem) -> Any:
    def directional(*args: Any) -> Array:
        g = jax.grad(loss(f, at), all_args(at))(*args)
        return sum(jax.tree.leaves(jax.tree.map(lambda g, v: jnp.sum(g * v), g, at.tangents)))

    return jax.grad(directional, all_args(at))(*at.args)


# Batching

def vmap_over(f: Layer, at: Problem, batched: tuple[int, ...], axis: int) -> Any:
    """The batch of outputs where some arguments have a batch axis, and the gradient of a loss over it."""
    in_axes = tuple(axis if i in batched else None for i in all_args(at))
    args = tuple(
        jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), at.batch[i]) if i in batched else at.args[i]
        for i in all_args(at)
    )
    over = jax.vmap(f, in_axes, out_axes=axis)

    def total(*args: Any) -> Array:
        ys = jax.tree.map(lambda y: jnp.moveaxis(y, axis, 0), over(*args))
        terms = jax.tree.map(lambda y, u: jnp.sum(u * jnp.sin(y)), ys, at.cotangents)
        return sum(jax.tree.leaves(terms))

    return over(*args), jax.grad(total, all_args(at))(*args)


def vmap(axis: int) -> Row:
    """Batched along one axis, for every non-empty subset of the arguments."""

    def row(f: Layer, at: Problem) -> Any:
        n = len(at.args)
        chosen = [s for size in range(1, n + 1) for s in itertools.combinations(range(n), size)]
        return [vmap_over(f, at, s, axis) for s in chosen]

    return row


def vmap_nested(f: Layer, at: Problem) -> Any:
    """The first argument batched outside, the last inside; then both twice."""
    rest = at.args[1:]
    inner = jax.vmap(f, (*(None for _ in rest), 0))
    outer = jax.vmap(inner, (0, *(None for _ in rest)))
    crossed = outer(at.batch[0], *rest[:-1], at.batch[-1]) if rest else outer(at.grid[0])
    return crossed, jax.vmap(jax.vmap(f))(*at.grid)


def vmap_of_jvp(f: Layer, at: Problem) -> Any:
    return jax.vmap(lambda *x: jax.jvp(f, x, at.tangents)[1])(*at.batch)


def vmap_of_grad(f: Layer, at: Problem) -> Any:
    """Per-example gradients of the first argument, shared by the examples of the others."""
    in_axes = (None, *(0 for _ in at.args[1:])) if len(at.args) > 1 else (0,)
    return jax.vmap(jax.grad(loss(f, at)), in_axes)(*((at.args[0], *at.batch[1:]) if len(at.args) > 1 else at.batch))


def hessian_of_vmap(f: Layer, at: Problem) -> Any:
    """Second order through a batch."""
    x, unflatten = ravel_pytree(at.args[0])
    in_axes = (None, *(0 for _ in at.args[1:]))
    if len(at.args) == 1:
        return jax.vmap(jax.hessian(loss(f, at)))(*at.batch)
    return jax.hessian(lambda x: jnp.sum(jax.vmap(loss(f, at), in_axes)(unflatten(x), *at.batch[1:])))(x)


# Control flow and rematerialisation

def chosen(branch: Callable[[Layer, tuple[Any, ...]], Any]) -> Row:
    """Value, gradient and tangent of a layer that sits in a branch."""

    def row(f: Layer, at: Problem) -> Any:
        def g(*args: Any) -> Any:
            return branch(f, args)

        L = loss(g, at)
        return L(*at.args), jax.grad(L, all_args(at))(*at.args), jax.jvp(L, at.args, at.tangents)[1]

    return row


def _cond(f: Layer, args: tuple[Any, ...]) -> Any:
    first = jax.tree.leaves(args)[0].ravel()[0]
    return jax.lax.cond(first < jnp.inf, f, lambda *x: jax.tree.map(jnp.zeros_like, f(*x)), *args)


def _switch(f: Layer, args: tuple[Any, ...]) -> Any:
    index = jnp.argmax(jax.tree.leaves(args)[0].ravel()) * 0 + 1
    return jax.lax.switch(index, [lambda *x: jax.tree.map(jnp.negative, f(*x)), f, f], *args)


def checkpoint(policy: Any = None) -> Row:
    """A rematerialised layer, named, with a policy on what to keep: gradient, and second order through it."""

    def row(f: Layer, at: Problem) -> Any:
        def named(*args: Any) -> Any:
            return jax.tree.map(lambda y: checkpoint_name(y, "y"), f(*args))

        L = loss(jax.checkpoint(named, policy=policy), at)
        grad = jax.grad(L, all_args(at))
        return grad(*at.args), jax.jvp(grad, at.args, at.tangents)[1]

    return row


def scan(f: Layer, at: Problem) -> Any:
    """Over a batch of every argument: gradient and tangent."""
    zero = jnp.zeros((), jax.tree.leaves(at.cotangents)[0].dtype)

    def total(*batch: Any) -> Array:
        return jax.lax.scan(lambda s, x: (s + loss(f, at)(*x), None), zero, batch)[0]

    return jax.grad(total, all_args(at))(*at.batch), jax.jvp(total, at.batch, at.batch)[1]


policies = jax.checkpoint_policies
ROWS: dict[str, Row] = {
    "value": value,
    "grad of each subset": grad_of_each_subset,
    "value_and_grad": value_and_grad,
    "vjp": vjp,
    "jvp": jvp,
    "jvp of each subset": jvp_of_each_subset,
    "linearize": linearize,
    "transpose of linearize": transpose_of_linearize,
    "linear_transpose": linear_transpose,
    "jacfwd": jacfwd,
    "jacrev": jacrev,
    "jacfwd of jacrev": composed(jax.jacfwd, jax.jacrev),
    "jacrev of jacfwd": composed(jax.jacrev, jax.jacfwd),
    "jacfwd of jacfwd": composed(jax.jacfwd, jax.jacfwd),
    "jacrev of jacrev": composed(jax.jacrev, jax.jacrev),
    "third derivative, mixed": composed(jax.jacfwd, jax.jacrev, jax.jacfwd),
    "third derivative, reverse": composed(jax.jacrev, jax.jacrev, jax.jacrev),
    "hvp, forward over reverse": hvp_forward_over_reverse,
    "hvp, reverse over forward": hvp_reverse_over_forward,
    "hvp, reverse over reverse": hvp_reverse_over_reverse,
    "vmap, first axis": vmap(0),
    "vmap, last axis": vmap(-1),
    "vmap, nested": vmap_nested,
    "vmap of jvp": vmap_of_jvp,
    "vmap of grad": vmap_of_grad,
    "hessian of vmap": hessian_of_vmap,
    "scan": scan,
    "cond": chosen(_cond),
    "switch": chosen(_switch),
    "checkpoint": checkpoint(),
    "checkpoint, everything_saveable": checkpoint(policies.everything_saveable),
    "checkpoint, nothing_saveable": checkpoint(policies.nothing_saveable),
    "checkpoint, dots_saveable": checkpoint(policies.dots_saveable),
    "checkpoint, only these names": checkpoint(policies.save_only_these_names("y")),
    "checkpoint, any names but these": checkpoint(policies.save_any_names_but_these("y")),
}
