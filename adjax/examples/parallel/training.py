"""The parts of a training step that are the same for every network, on one device and on a mesh.

A state is a NamedTuple of `params`, of `optimizer`, what optax keeps, and of `scale`, a `LossScale` or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import optax
from jax import Array, lax
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from adjax import cotangent_like
from adjax.examples.parallel.gradients import accumulated, first_scale, unless_overflown
from adjax.examples.parallel.mesh import Placement, placement, vary
from adjax.examples.parallel.options import MeshOptions

Params = TypeVar("Params")
State = TypeVar("State", bound=NamedTuple)
Layouts = Any                               # a tree like the parameters, of PartitionSpecs


def loss_and_gradient(
    loss: Callable[[Params, Any], Array],
    params: Params,
    batch: Any,
    options: MeshOptions,
    layouts: Layouts,
    factor: ArrayLike,
) -> tuple[Array, Params]:
    """The loss and its gradient, in micro-batches and over the mesh of the options; differentiated as factor · loss."""
    on = placement(options)
    both = lambda params, batch, weight: accumulated(loss, params, batch, options.accumulate, weight)
    if on is not None and on.mode == "shard_map":
        both = on_each_device(on, both, layouts)
    value, gradient = both(params, batch, factor)
    if on is not None and on.mode == "auto":
        gradient = jax.tree.map(on.laid_out, gradient, layouts)
    if isinstance(factor, float) and factor == 1:
        return value, gradient
    return value / factor, jax.tree.map(lambda g: g / factor, gradient)


def on_each_device(on: Placement, f: Callable[..., Any], layouts: Layouts) -> Callable[..., Any]:
    """`f(params, batch, weight)`, a loss and its gradient, as `shard_map` runs it: the means over all devices of both.

    A parameter that several devices share is one for each of them inside. The adjoint of that replication is the sum of
    their gradients, taken once, when all micro-batches are through.
    """

    def one(params: Params, batch: Any, weight: Any) -> tuple[Array, Params]:
        own, batch = jax.tree.map(lambda x: vary(x, on.tokens), (params, batch))
        value, gradient = f(own, batch, weight / on.size(*on.tokens))
        return lax.psum(value, on.tokens), jax.tree.map(cotangent_like, params, gradient)

    in_specs = layouts, P(on.batch), P()
    return jax.shard_map(one, mesh=on.mesh, in_specs=in_specs, out_specs=(P(), layouts))


def stepped(optimizer: optax.GradientTransformation, state: State, gradient: Any) -> State:
    """The state after one step of the optimizer: the same with the next loss scale, where the gradient overflowed."""
    at: Any = state
    updates, of_optimizer = optimizer.update(gradient, at.optimizer, at.params)
    new: Any = at._replace(params=optax.apply_updates(at.params, updates), optimizer=of_optimizer)
    if at.scale is not None:
        new, scale = unless_overflown(at.scale, gradient, new, at)
        new = new._replace(scale=scale)
    result: State = new
    return result


def first_state(
    make: Callable[..., State],
    params: Any,
    options: MeshOptions,
    optimizer: optax.GradientTransformation,
    layouts: Layouts,
) -> State:
    """The state before the first step, of these parameters."""
    on = placement(options)
    state = make(params, optimizer.init(params), first_scale(options.dtype))
    return state if on is None else jax.device_put(state, _shardings(on, optimizer, state, layouts))


def laid_out(options: MeshOptions, optimizer: optax.GradientTransformation, state: State, layouts: Layouts) -> State:
    """The state with its layout, which types keep and the compiler is told."""
    on = placement(options)
    if on is None or on.mode == "explicit":
        return state
    return lax.with_sharding_constraint(state, _shardings(on, optimizer, state, layouts))


def _shardings(on: Placement, optimizer: optax.GradientTransformation, state: Any, layouts: Layouts) -> Any:
    """The layout of a state: what the optimizer keeps for a parameter lies as the parameter does."""
    of, whole = jax.tree.map(lambda _, spec: on.sharding(spec), state.params, layouts), on.sharding(P())
    for_each = optax.tree_map_params(
        optimizer, lambda _, sharding: sharding, state.optimizer, of, transform_non_params=lambda _: whole
    )
    return state._replace(params=of, optimizer=for_each, scale=jax.tree.map(lambda _: whole, state.scale))
