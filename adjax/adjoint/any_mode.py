"""Lifts a `jax.custom_vjp` to every differentiation mode.

A backward rule is linear in its cotangent, so its transpose is the derivative: with bwd(r, ·) = Jᵀ,

    J v = (bwd(r, ·))ᵀ v = linear_transpose(dy ↦ bwd(r, dy))(v)

One definition, both modes, consistent by construction, and no residual is kept beyond those that `fwd` returns. The
lifted function is a `jax.custom_jvp` whose rule runs `fwd` and then a `linear_call` of that transpose, whose own
transpose is the spelled `bwd` again: reverse mode runs the rule as written, forward mode its transpose.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from . import linear_call
from .linear_map import is_float0, tangent_type, zero_of
from .rule import Lifted, Signature

P = ParamSpec("P")
R = TypeVar("R")


class AnyMode(Generic[P, R]):
    """A function with a spelled backward rule, valid under every differentiation mode; made by `any_mode`.

    Attributes:
        custom_vjp: the `jax.custom_vjp` it lifts.
        fun: the undecorated primal function.
        fwd: the forward rule, as given to `defvjp`.
        bwd: the backward rule.
        tangent: the explicit tangent rule, or None where it is derived from `bwd`.
        nondiff_argnums: positions of the static arguments.

    >>> @any_mode
    ... @jax.custom_vjp
    ... def twice(x):
    ...     return 2 * x
    >>> twice.defvjp(lambda x: (2 * x, None), lambda _, dy: (2 * dy,))
    >>> twice
    <any_mode twice(x)>
    >>> twice.bwd(None, 1.5)
    (3.0,)
    """

    tangent: Callable[..., Any] | None = None
    __qualname__: str

    def __init__(self, f: jax.custom_vjp[R]):
        if not isinstance(f, jax.custom_vjp):
            raise TypeError(f"any_mode: expected a jax.custom_vjp, got {type(f).__name__}; decorate with it first")
        functools.update_wrapper(self, f.fun)
        self.custom_vjp = f
        self.name = getattr(f.fun, "__name__", type(f.fun).__name__)
        self._signature = inspect.signature(f.fun)
        self._rules: dict[Any, Lifted] = {}

    @property
    def fun(self) -> Callable[..., R]:
        """The undecorated primal."""
        return self.custom_vjp.fun

    @property
    def fwd(self) -> Callable[..., tuple[Any, Any]] | None:
        """The forward rule: `(y, residuals) = fwd(*args)`."""
        return self.custom_vjp.fwd

    @property
    def bwd(self) -> Callable[..., Any] | None:
        """The backward rule: `cotangents = bwd(*nondiff, residuals, dy)`."""
        return self.custom_vjp.bwd

    @property
    def nondiff_argnums(self) -> tuple[int, ...]:
        """Positions of the static arguments."""
        return self.custom_vjp.nondiff_argnums

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any], symbolic_zeros: bool = False) -> None:
        """Defines the rule, as `jax.custom_vjp.defvjp` does.

        >>> square = any_mode(jax.custom_vjp(lambda x: x * x))
        >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
        >>> float(jax.grad(square)(3.0))
        6.0
        """
        self.custom_vjp.defvjp(fwd, bwd, symbolic_zeros=symbolic_zeros)
        self._rules.clear()

    def deftangent(self, tangent: Callable[..., Any]) -> Callable[..., Any]:
        """Gives forward mode a rule of its own: `dy = tangent(*nondiff, residuals, tangents)`.

        For a backward rule that JAX cannot transpose (a `while_loop` inside), or where a faster rule exists. It must be
        the transpose of `bwd`. `tangents` is a tuple with the structure of the differentiable arguments; arguments
        that are not differentiated have zero tangents, integer ones float0.

        Returns:
            `tangent`, so that it can decorate.

        >>> square = any_mode(jax.custom_vjp(lambda x: x * x))
        >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
        >>> @square.deftangent
        ... def square_tangent(x, tangents):
        ...     return 2 * x * tangents[0]
        >>> float(jax.jvp(square, (3.0,), (1.0,))[1])
        6.0
        """
        self.tangent = tangent
        self._rules.clear()
        return tangent

    def __repr__(self) -> str:
        return f"<any_mode {self.name}{self._signature}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.fwd is None or self.bwd is None:
            name = self.name
            raise AttributeError(f"any_mode: {name} has no rule yet; give it one with {name}.defvjp(fwd, bwd)")
        bound = self._bind(args, kwargs)
        static = {i: bound[i] for i in self.nondiff_argnums}
        dynamic = tuple(x for i, x in enumerate(bound) if i not in static)
        names = [n for i, n in enumerate(self._names(len(bound))) if i not in static]
        _check_arrays(self.name, names, dynamic)
        _check_static(self.name, self._names(len(bound)), static)

        def merge(values: Sequence[Any]) -> list[Any]:
            rest = iter(values)
            return [static[i] if i in static else next(rest) for i in range(len(bound))]

        def primal(*values: Any) -> R:
            return self.fun(*merge(values))

        primal.__name__, primal.__qualname__ = self.name, self.__qualname__
        lifted = jax.custom_jvp(primal)
        call = functools.partial(self._jvp, merge, tuple(static.values()), names)
        lifted.defjvp(call, symbolic_zeros=True)
        return lifted(*dynamic)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments as positional ones, defaults filled in."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(f"any_mode: {self.name} takes keyword-only arguments, which a jax.custom_vjp cannot have")
        return bound.args

    def _names(self, count: int) -> list[str]:
        """The parameters' names; those of *args are numbered."""
        names: list[str] = []
        for p in self._signature.parameters.values():
            if p.kind is p.VAR_POSITIONAL:
                names += [f"{p.name}[{i}]" for i in range(count - len(names))]
            else:
                names.append(p.name)
        return names[:count]

    def _jvp(
        self,
        merge: Callable[[Sequence[Any]], list[Any]],
        static: tuple[Any, ...],
        names: Sequence[str],
        primals: tuple[Any, ...],
        tangents: tuple[Any, ...],
    ) -> tuple[Any, Any]:
        """The rule of the lifted function: `fwd`, then the derivative as a linear call."""
        leaves, tree = jax.tree.flatten(tangents, is_leaf=_is_zero)
        active = tuple(i for i, t in enumerate(leaves) if not _is_zero(t))
        given = primals
        if self.custom_vjp.symbolic_zeros:
            marked = [CustomVJPPrimal(x, i in active) for i, x in enumerate(jax.tree.leaves(primals))]
            given = tree.unflatten(marked)
        y, residuals = self._forward(merge(given))
        y_leaves, y_tree = jax.tree.flatten(y)
        dy = [np.zeros(np.shape(v), jax.dtypes.float0) if is_float0(v) else None for v in y_leaves]
        inexact = [i for i, v in enumerate(dy) if v is None]
        types = [tangent_type(y_leaves[i]) for i in inexact]
        if active and inexact:
            signature = Signature(self, static, tuple(names), primals, active, y_leaves, y_tree)
            rule = signature.rule(residuals, self._rules)
            out = linear_call.bind(*rule.maps, rule.residuals, [leaves[i] for i in active], types)
        else:
            out = list(map(zero_of, types))
        for i, v in zip(inexact, out, strict=True):
            dy[i] = v
        return y, y_tree.unflatten(dy)


    def _forward(self, args: Sequence[Any]) -> tuple[Any, Any]:
        assert self.fwd is not None
        pair = self.fwd(*args)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"any_mode: the forward rule of {self.name} must return (y, residuals), got {pair}")
        return pair[0], pair[1]


def any_mode(f: jax.custom_vjp[R]) -> AnyMode[..., R]:
    """The same function with its spelled backward rule, valid also in forward mode and everything built on it.

    `jax.jvp`, `linearize`, `jacfwd`, `hessian` and `linear_transpose` work; so do `shard_map` with `check_vma=True` and
    explicit sharding, since every cotangent is typed like its primal (`cotangent_like`). Reverse mode runs the rule as
    written; forward mode runs its transpose, or the rule given to `deftangent`. Nothing is computed or kept for
    arguments that are not differentiated. Rules are traced once per operand types, so they must be pure.

    Args:
        f: a `jax.custom_vjp`, with or without its rule yet. `nondiff_argnums`, `nondiff_argnames`, keyword calls,
            integer arguments and outputs, `None` leaves and `symbolic_zeros=True` mean what they mean there (a rule
            with symbolic zeros sees arguments that are not differentiated; an output's zero cotangent is given as
            zeros). Leaves of the residuals that are no arrays are kept as they are.

    Returns:
        An `AnyMode`: call it, or give it its rule with `.defvjp(fwd, bwd)`.

    Raises:
        TypeError: `f` is not a `jax.custom_vjp`; when called: an argument that is no array, a rule of the wrong
            structure or shape; in forward mode: a backward rule that is not linear, or that JAX cannot transpose.

    >>> @any_mode
    ... @jax.custom_vjp
    ... def square(x):
    ...     return x * x
    >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
    >>> jax.grad(square)(3.0).tolist(), jax.jvp(square, (3.0,), (1.0,))[1].tolist()
    (6.0, 6.0)
    """
    return AnyMode(f)


def _is_zero(t: Any) -> bool:
    return isinstance(t, SymbolicZero)


def _check_arrays(name: str, names: Sequence[str], args: Sequence[Any]) -> None:
    for argument, value in zip(names, args, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
                where = argument + jax.tree_util.keystr(path)
                raise TypeError(f"{name}: {where} must be an array, got {type(leaf).__name__}")
            if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind not in "biufcV":
                where = argument + jax.tree_util.keystr(path)
                raise TypeError(f"{name}: {where} must be a numeric array, got dtype {leaf.dtype}")


def _check_static(name: str, names: Sequence[str], static: dict[int, Any]) -> None:
    for i, value in static.items():
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"{name}: argument {names[i]} is declared nondiff, hence static, but got a traced array; "
                "pass it as an ordinary argument (integer arguments have no derivative anyway)"
            )
