"""One use of a lifted rule: the pair of maps that a spelled backward rule becomes at given argument types.

`Signature` says at what types a rule is used; `Lifted` is the rule traced there: the adjoint as spelled, restricted to
the active arguments and to the residuals these need, and the derivative, its transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero

from .cotangent import cotangent_like
from .derivative import derivative
from .linear_map import LinearMap, Traced, is_float0, tangent_type, zero_of
from .space import struct


class Rule(NamedTuple):
    """A pair of maps (derivative, adjoint) and the residuals both work with."""

    maps: tuple[LinearMap, LinearMap]
    residuals: list[Any]


@dataclass(eq=False)
class Signature:
    """The types at which a rule is used: which arguments are active, what the outputs look like."""

    owner: Any
    static: tuple[Any, ...]
    names: tuple[str, ...]
    primals: tuple[Any, ...]
    active: tuple[int, ...]
    y_leaves: Sequence[Any]
    y_tree: Any

    def __post_init__(self) -> None:
        self.tree = jax.tree.structure(self.primals)
        self.types = tuple(jax.typeof(x) for x in jax.tree.leaves(self.primals))
        self.y_types = tuple(tangent_type(y) for y in self.y_leaves)
        self.inexact = tuple(i for i, y in enumerate(self.y_leaves) if not is_float0(y))
        self.primals = ()                                           # only types from here on: rules outlive values
        self.y_leaves = ()

    def rule(self, residuals: Any, remembered: dict[Any, Lifted]) -> Rule:
        """The maps at these types, traced once and remembered, with the residuals they use."""
        leaves, tree = jax.tree.flatten(residuals)
        arrays = [isinstance(x, (jax.Array, np.ndarray, np.generic)) for x in leaves]
        dynamic = [x for x, is_array in zip(leaves, arrays, strict=True) if is_array]
        constants = tuple(None if is_array else x for x, is_array in zip(leaves, arrays, strict=True))
        kinds = (*map(type, self.static), *map(type, constants))    # 1, 1.0 and True are equal, and not the same
        key = (self.static, kinds, self.tree, self.types, self.active, self.y_tree, self.y_types, tree, constants)
        known = remembered.get(key) if _hashable(key) else None
        lifted = known or Lifted(self, tree, tuple(arrays), constants)
        rule, closed = lifted.at(dynamic)
        if closed and _hashable(key):
            remembered[key] = lifted
        return rule

    def cotangents(self, returned: Any) -> list[Any]:
        """What `bwd` returned, checked against the arguments; the active leaves, typed like their primals."""
        who = f"the backward rule of {self.owner.name}"
        returned = tuple(returned) if isinstance(returned, list) else returned
        if not isinstance(returned, tuple) or len(returned) != len(self.names):
            got = f"{len(returned)} of them" if isinstance(returned, tuple) else _show(returned)
            names = ", ".join(self.names)
            raise TypeError(f"any_mode: {who} must return a tuple of one cotangent per argument ({names}), got {got}")
        found: list[Any] = []
        for name, like, ct in zip(self.names, self.tree.children(), returned, strict=True):
            found += _leaves_like(f"{who}, argument {name}", like, ct)
        paths = self._paths()
        return [_typed(who, paths[i], self.types[i], found[i]) for i in self.active]

    def _paths(self) -> list[str]:
        dummy = self.tree.unflatten(range(self.tree.num_leaves))
        flat = jax.tree_util.tree_leaves_with_path(dummy)
        return [self.names[p[0].idx] + jax.tree_util.keystr(p[1:]) for p, _ in flat]


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _leaves_like(who: str, tree: Any, ct: Any) -> list[Any]:
    """The leaves of a cotangent of the structure `tree`; a None stands for the zero of a whole subtree."""
    leaf, found = object(), []

    def collect(part: Any, below: Any) -> None:
        if part is not None and below is not leaf:
            raise TypeError(f"any_mode: {who}: {_show(part)} stands for a whole pytree; give every leaf its own")
        found.extend([part] * (1 if below is leaf else jax.tree.structure(below).num_leaves))

    marks = _plain(tree.unflatten([leaf] * tree.num_leaves))
    try:
        jax.tree.map(collect, _plain(ct), marks, is_leaf=lambda part: part is None)
    except ValueError as error:
        raise TypeError(f"any_mode: {who}: expected a cotangent of structure {tree}, got {_show(ct)}") from error
    return found


def _plain(tree: Any) -> Any:
    """The same tree with tuples for NamedTuples and lists: the three are taken for one another."""
    if isinstance(tree, (tuple, list)):
        return tuple(map(_plain, tree))
    return {k: _plain(v) for k, v in tree.items()} if type(tree) is dict else tree


def _show(ct: Any) -> str:
    return str(jax.typeof(ct)) if isinstance(ct, (jax.Array, np.ndarray)) else str(jax.tree.structure(ct))


def _typed(who: str, path: str, type_: Any, ct: Any) -> Any:
    if ct is None or isinstance(ct, SymbolicZero):
        return zero_of(tangent_type(type_))
    if np.shape(ct) != type_.shape:
        raise TypeError(
            f"any_mode: {who} returned {_show(ct)} as the cotangent of {path}, which is {type_.str_short()}: "
            "a cotangent has its primal's shape"
        )
    return cotangent_like(type_, ct)


class Lifted:
    """A rule at one signature and one structure of residuals."""

    def __init__(self, signature: Signature, tree: Any, arrays: tuple[bool, ...], constants: tuple[Any, ...]):
        self.signature, self.tree, self.arrays, self.constants = signature, tree, arrays, constants
        self.n = sum(arrays)
        self.x_types = [tangent_type(signature.types[i]) for i in signature.active]
        self.dy_types = [signature.y_types[i] for i in signature.inexact]
        self.spelled = jax.jit(_named(self._spelled, signature.owner.bwd, "bwd"))
        tangent = signature.owner.tangent
        self.explicit = None if tangent is None else jax.jit(_named(self._explicit, tangent, "tangent"))
        self._made: dict[Any, tuple[Any, Any]] = {}

    def at(self, residuals: Sequence[Any]) -> tuple[Rule, bool]:
        """The rule on these residuals, and whether it may be remembered: whether it closes over no tracer."""
        adjoint = Traced(self.spelled, (*residuals, *map(struct, self.dy_types)))
        key = id(adjoint.closed)
        if key not in self._made or adjoint.hoisted:
            tangent = None
            if self.explicit is not None:
                tangent = Traced(self.explicit, (*residuals, *map(struct, self.x_types)))
            self._made[key] = adjoint, self._pair(adjoint, tangent)
        _, (maps, used, hoisted) = self._made[key]
        kept = [r for r, needed in zip(residuals, used, strict=True) if needed]
        return Rule(maps, [*kept, *hoisted]), not hoisted

    def _pair(self, adjoint: Traced, tangent: Traced | None) -> Any:
        """The two maps over one list of residuals: those that either uses, then what they close over."""
        needed = [a or (tangent is not None and tangent.used[i]) for i, a in enumerate(adjoint.used[: self.n])]
        hoisted = [*adjoint.hoisted, *(tangent.hoisted if tangent else [])]
        kept, total = sum(needed), sum(needed) + len(hoisted)

        def runner(traced: Traced, start: int) -> Callable[..., list[Any]]:
            stop = start + len(traced.hoisted)

            def run(*operands: Any) -> list[Any]:
                given = iter(operands[:kept])
                full = [next(given) if n else None for n in needed]
                return traced.evaluate(*traced.select([*full, *operands[total:]]), *operands[start:stop])

            return run

        owner = self.signature.owner
        back = LinearMap(runner(adjoint, kept), f"{owner.name}_bwd", adjoint.jaxpr.effects, adjoint.jaxpr)
        if tangent is None:
            call = derivative(owner.name, back, total, [struct(t) for t in self.dy_types])
            named_axes = [e for e in adjoint.jaxpr.effects if hasattr(e, "name")]
            there = LinearMap(call, f"{owner.name}_bwd_transpose", named_axes)
        else:
            run = runner(tangent, kept + len(adjoint.hoisted))
            there = LinearMap(run, f"{owner.name}_tangent", tangent.jaxpr.effects, tangent.jaxpr)
        return (there, back), needed, hoisted

    def _unpack(self, operands: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """The residuals as `fwd` returned them, and the remaining operands."""
        given = iter(operands)
        leaves = [next(given) if a else c for a, c in zip(self.arrays, self.constants, strict=True)]
        return self.tree.unflatten(leaves), list(given)

    def _spelled(self, *operands: Any) -> list[Any]:
        s = self.signature
        residuals, cts = self._unpack(operands)
        given = dict(zip(s.inexact, cts, strict=True))
        dy = [given[i] if i in given else self._no_cotangent(t) for i, t in enumerate(s.y_types)]
        return s.cotangents(s.owner.bwd(*s.static, residuals, s.y_tree.unflatten(dy)))

    def _no_cotangent(self, type_: Any) -> Any:
        """What a rule receives for an integer output."""
        return SymbolicZero(type_) if self.signature.owner.custom_vjp.symbolic_zeros else _float0(type_)

    def _explicit(self, *operands: Any) -> list[Any]:
        s = self.signature
        residuals, given = self._unpack(operands)
        active = dict(zip(s.active, given, strict=True))
        tangents = [active[i] if i in active else self._no_tangent(t) for i, t in enumerate(s.types)]
        dy, tree = jax.tree.flatten(s.owner.tangent(*s.static, residuals, s.tree.unflatten(tangents)))
        if tree != s.y_tree:
            raise TypeError(f"any_mode: the tangent rule of {s.owner.name} must return {s.y_tree}, got {tree}")
        who = f"the tangent rule of {s.owner.name}"
        return [_typed(who, f"output {i}", s.y_types[i], dy[i]) for i in s.inexact]

    @staticmethod
    def _no_tangent(type_: Any) -> Any:
        tangent = tangent_type(type_)
        return _float0(tangent) if tangent.dtype == jax.dtypes.float0 else zero_of(tangent)


def _float0(type_: Any) -> np.ndarray:
    return np.zeros(type_.shape, jax.dtypes.float0)


def _named(call: Callable[..., Any], source: Any, default: str) -> Callable[..., Any]:
    def named(*operands: Any) -> Any:
        return call(*operands)

    named.__name__ = named.__qualname__ = getattr(source, "__name__", default).replace("<lambda>", default)
    return named
