"""A traced linear map: the flat, closed form in which `linear_call` carries a map and its adjoint.

    (r, x) ↦ y        linear in x, differentiable in r; r are the residuals

Tracing is remembered by `jax.jit` (by operand types, mesh, precision and every other setting that matters), so a map is
traced once however many layers use it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import eval_jaxpr
from jax.interpreters import ad
from jax.interpreters import partial_eval as pe

from .cotangent import type_of
from .space import wide

Flat = Callable[..., list[Any]]


class LinearMap:
    """A pure function of flat operands `(*residuals, *x)`, linear in `x`, with its name and what it derives.

    Compared by identity; maps derived from it (batched, restricted) are made once.
    """

    def __init__(self, call: Flat, name: str, effects: Iterable[Any] = (), equations: Any = None):
        def named(*operands: Any) -> list[Any]:
            return call(*operands)

        named.__name__ = named.__qualname__ = name
        self.call, self.name, self.effects, self.equations = call, name, frozenset(effects), equations
        self.jitted = jax.jit(named)
        self._derived: dict[Hashable, LinearMap] = {}

    def __call__(self, *operands: Any) -> list[Any]:
        return self.jitted(*operands)

    def __repr__(self) -> str:
        return self.name if self.equations is None else f"{self.name} {self.equations}"

    @property
    def axis_names(self) -> frozenset[Any]:
        """The named axes over which the map communicates."""
        return frozenset(e.name for e in self.effects if hasattr(e, "name"))

    def derive(self, key: Hashable, build: Callable[[], Flat], bound: Any = None) -> LinearMap:
        """The map made from this one by `build`, remembered under `key`; `bound` is the axis name it binds."""
        if key not in self._derived:
            effects = [e for e in self.effects if getattr(e, "name", e) != bound]
            self._derived[key] = LinearMap(build(), self.name, effects)
        return self._derived[key]

    def batched(self, axis: Any, in_dims: tuple[int | None, ...], out_dims: tuple[int | None, ...]) -> LinearMap:
        """One map for a whole batch: `vmap` over `in_dims`; an output that is not batched is the sum over the batch.

        The sum is the adjoint of using one `x` for every example.
        """

        def build() -> Flat:
            over = jax.vmap(
                self.call, in_dims, 0, axis_name=axis.name, axis_size=axis.size, spmd_axis_name=axis.spmd_name
            )

            def call(*operands: Any) -> list[Any]:
                return [_settle(y, d) for y, d in zip(over(*operands), out_dims, strict=True)]

            return call

        key = ("batched", axis.name, axis.size, axis.spmd_name, in_dims, out_dims)
        return self.derive(key, build, axis.name)

    def restricted(
        self, n_residuals: int, x_types: Sequence[Any], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> LinearMap:
        """The block of the map from the `x` at `inputs` to the `y` at `outputs`: the other `x` are zero."""
        x_types = tuple(x_types)

        def call(*operands: Any) -> list[Any]:
            given = dict(zip(inputs, operands[n_residuals:], strict=True))
            x = [given[i] if i in given else zero_of(t) for i, t in enumerate(x_types)]
            y = self.call(*operands[:n_residuals], *x)
            return [y[j] for j in outputs]

        return self.derive(("restricted", n_residuals, x_types, inputs, outputs), lambda: call)


def _settle(y: Array, dim: int | None) -> Array:
    """Moves the batch axis from the front to `dim`, or sums it away, accumulating half precision in float32."""
    if dim is None:
        return jnp.sum(y, axis=0, dtype=wide(y.dtype)).astype(y.dtype)
    return jnp.moveaxis(y, 0, dim)


def zero_of(type_: Any) -> Array:
    """The zero of an array type, with its sharding and varying axes."""
    return ad.instantiate_zeros(ad.Zero(type_))


def tangent_type(x: Any) -> Any:
    """The type of the tangents of `x`, an array or the type of one."""
    return type_of(x).to_tangent_aval().strip_weak_type()


def is_float0(x: Any) -> bool:
    """Whether `x` is a point of a discrete space, whose only tangent is the empty one."""
    return np.dtype(tangent_type(x).dtype) == jax.dtypes.float0


class Traced:
    """A flat function traced at some operands: the equations its outputs need, and the tracers it closes over."""

    def __init__(self, function: Any, operands: Sequence[Any]):
        closed = function.trace(*operands).jaxpr
        self.hoisted: list[Any] = []
        self._closure: Sequence[Any] = closed.consts
        if len(closed.in_avals) != len(operands):                   # it closes over tracers: they become operands
            closed = jax.make_jaxpr(function.__wrapped__)(*operands)
            self.hoisted = list(closed.consts)
        equations = getattr(closed, "jaxpr", closed)
        self.closed = closed
        self.jaxpr, used = pe.dce_jaxpr(equations, [True] * len(equations.outvars))
        self.used = tuple(used)

    def select(self, operands: Sequence[Any]) -> list[Any]:
        """Of the operands, those that the equations use."""
        return [x for x, used in zip(operands, self.used, strict=True) if used]

    def evaluate(self, *operands: Any) -> list[Any]:
        """Runs the equations on `select(operands)` followed, where it closes over tracers, by their values."""
        n = len(self.hoisted)
        closure = operands[len(operands) - n :] if n else self._closure
        return eval_jaxpr(self.jaxpr, closure, *operands[: len(operands) - n])
