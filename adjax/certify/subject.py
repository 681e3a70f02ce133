"""What is to be certified: a function, its plain reference, and arguments taken apart into leaves.

The laws see one form of every function: floating leaves that are differentiated (active), all other arrays (passive),
and outputs split the same way. Python values and declared static arguments are closed over.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..adjoint import AnyMode, is_inexact
from ..adjoint.undecorated import undecorated
from .errors import BadInput

Arrays = tuple[Any, ...]


class Leaf(NamedTuple):
    """One array among the arguments or outputs."""

    name: str           # params.W
    position: int       # of the argument it belongs to
    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.name} {short(self.dtype)}[{','.join(map(str, self.shape))}]"


class Outputs(NamedTuple):
    """Of a function: floating leaves, and the others."""

    floating: Arrays
    others: Arrays


@dataclass(frozen=True)
class Subject:
    """A function in leaf form.

    Attributes:
        name: of the function.
        fun, reference: functions of the arguments as the caller gives them; `reference` is differentiated by autodiff.
        given_reference: whether the caller gave the reference.
        plain_primal: the given reference, or the primal of `fun` with the custom rules that may be inside it.
        rule: the `jax.custom_vjp` whose rule is examined, or None where none is exposed.
        options: keyword options and static arguments, by name.
        active, passive: leaves that are differentiated, and the other arrays.
        values: their values (active leaves, then passive).
        names: of the positional arguments.
        outputs, other_outputs: the floating output leaves, and the others.
        assemble: arguments from active and passive values.
    """

    name: str
    fun: Callable[..., Any]
    reference: Callable[..., Any]
    given_reference: bool
    plain_primal: Callable[..., Any]
    rule: Any
    options: dict[str, Any]
    active: tuple[Leaf, ...]
    passive: tuple[Leaf, ...]
    values: tuple[Arrays, Arrays]
    names: tuple[str, ...]
    outputs: tuple[Leaf, ...]
    other_outputs: tuple[Leaf, ...]
    assemble: Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]

    def leaf_form(self, fun: Callable[..., Any]) -> Callable[[Sequence[Any], Sequence[Any]], Outputs]:
        """`fun` as a function of active and passive leaves."""

        def form(active: Sequence[Any], passive: Sequence[Any]) -> Outputs:
            leaves = [jnp.asarray(y) for y in jax.tree.leaves(fun(*self.assemble(active, passive)))]
            return Outputs(tuple(filter(is_inexact, leaves)), tuple(y for y in leaves if not is_inexact(y)))

        return form

    @property
    def signature(self) -> str:
        """`X f32[8,16], ids i32[8] -> f32[8,4]`."""
        outputs = [str(y).split(" ")[-1] for y in (*self.outputs, *self.other_outputs)]
        return f"{', '.join(map(str, (*self.active, *self.passive)))} -> {', '.join(outputs)}"


def short(dtype: Any) -> str:
    """A dtype in JAX's short form: f32, bf16, c64, i32."""
    name = str(dtype)
    for long, brief in (("bfloat", "bf"), ("float", "f"), ("complex", "c"), ("uint", "u"), ("int", "i")):
        if name.startswith(long):
            return brief + name[len(long) :]
    return name


def subject(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    reference: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
) -> Subject:
    """Takes a function and its arguments apart.

    Raises:
        BadInput: it is not callable, has nothing to differentiate, raises, returns no arrays, needs static arguments,
            or is not finite at the given point.
    """
    if not callable(f):
        raise BadInput(f"certify: expected a function, got {type(f).__name__}")
    if reference is not None and not callable(reference):
        raise BadInput(f"certify: reference must be a function, got {type(reference).__name__}")
    name, rule, names = function_name(f), exposed_rule(f), argument_names(f, len(args))
    static = set(rule.nondiff_argnums) if rule is not None and not isinstance(f, functools.partial) else set()
    parts = _take_apart(args, names, static, _chosen(argnums, len(args)))
    active = [leaf for leaf, is_active in zip(parts.leaves, parts.is_active, strict=True) if is_active]
    passive = [leaf for leaf in parts.leaves if leaf not in active]
    if not active:
        raise BadInput(f"certify: {name} has no floating argument to differentiate, got {_kinds(names, args)}")
    values = tuple(tuple(v for v, a in zip(parts.values, parts.is_active, strict=True) if a is wanted)
                   for wanted in (True, False))
    _check_finite(name, active, values[0])
    dynamic = {leaf.position for leaf in parts.leaves}
    options = {n: x for i, (n, x) in enumerate(zip(names, args, strict=True)) if i not in dynamic}
    options |= f.keywords if isinstance(f, functools.partial) else {}
    plain = reference if reference is not None else primal(f)
    found = Subject(
        name, f, reference if reference is not None else undecorated(plain), reference is not None, plain, rule,
        options, tuple(active), tuple(passive), (values[0], values[1]), tuple(names), (), (), parts.assemble,
    )  # fmt: skip
    return _with_outputs(found)


class Parts(NamedTuple):
    """Arguments taken apart: the arrays among their leaves, and how to put them back."""

    leaves: tuple[Leaf, ...]
    values: Arrays
    is_active: tuple[bool, ...]
    assemble: Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]


def _take_apart(args: tuple[Any, ...], names: Sequence[str], static: set[int], chosen: set[int] | None) -> Parts:
    flat, tree = jax.tree.flatten(args)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(args)]
    arrays: dict[int, tuple[Leaf, Any, bool]] = {}
    for i, (path, value) in enumerate(zip(paths, flat, strict=True)):
        position = path[0].idx
        if position not in static and _is_array(value):
            x = _strong(value)
            leaf = Leaf(names[position] + jax.tree_util.keystr(path[1:]), position, x.shape, x.dtype)
            arrays[i] = (leaf, x, is_inexact(x) and (chosen is None or position in chosen))

    def assemble(active: Sequence[Any], passive: Sequence[Any]) -> tuple[Any, ...]:
        some, rest = iter(active), iter(passive)
        return tree.unflatten(
            [value if i not in arrays else next(some if arrays[i][2] else rest) for i, value in enumerate(flat)]
        )

    leaves, values, is_active = zip(*arrays.values(), strict=True) if arrays else ((), (), ())
    return Parts(leaves, values, is_active, assemble)


def _with_outputs(s: Subject) -> Subject:
    """The subject with its outputs named, once it has run."""
    try:
        out = jax.eval_shape(lambda a, p: s.fun(*s.assemble(a, p)), *s.values)
    except Exception as error:
        raise BadInput(_raised(s.name, error)) from error
    leaves = jax.tree_util.tree_leaves_with_path(out)
    outputs = [Leaf("output" + jax.tree_util.keystr(path), 0, y.shape, y.dtype) for path, y in leaves]
    floating = tuple(y for y in outputs if jnp.issubdtype(y.dtype, np.inexact))
    if not floating:
        got = ", ".join(str(y).split(" ")[-1] for y in outputs) or "nothing"
        raise BadInput(f"certify: {s.name} returns no floating array to differentiate, it returns {got}")
    others = tuple(y for y in outputs if y not in floating)
    _check_defined(s.name, floating, s.leaf_form(s.fun)(*s.values).floating)
    return Subject(**{**s.__dict__, "outputs": floating, "other_outputs": others})


def _raised(name: str, error: Exception) -> str:
    """What a function's own error means for certifying it."""
    said = " ".join(str(error).split())
    said = said if len(said) <= 400 else f"{said[:400]} ..."
    kind = type(error).__name__
    if isinstance(error, (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError)):
        return (
            f"certify: {name} needs the value of a traced argument ({kind}): pass that argument as a Python value "
            "(a bool, an int, a string) or bind it with functools.partial"
        )
    if isinstance(error, TypeError) and "not a valid JAX type" in said:
        return f"certify: {name} returns something that is no array: {said}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"certify: {name} raises at the given arguments: {kind}: {said} (in {last.name})"


def primal(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function beneath a decorator that carries a rule, where it is exposed; `f` itself otherwise."""
    if isinstance(f, functools.partial):
        return functools.partial(primal(f.func), *f.args, **f.keywords)
    if isinstance(f, (AnyMode, jax.custom_vjp, jax.custom_jvp)):
        return f.fun
    return f


def exposed_rule(f: Any) -> Any:
    """The `jax.custom_vjp` whose forward and backward rules can be called by themselves, or None."""
    if isinstance(f, functools.partial):
        inner = exposed_rule(f.func)
        return inner if inner is not None and not f.args and not f.keywords else None
    if isinstance(f, AnyMode):
        f = f.custom_vjp
    return f if isinstance(f, jax.custom_vjp) and f.fwd is not None and f.bwd is not None else None


def function_name(f: Any) -> str:
    """What to call it."""
    if isinstance(f, functools.partial):
        return function_name(f.func)
    inner = f.fun if isinstance(f, (AnyMode, jax.custom_vjp, jax.custom_jvp)) else f
    return getattr(inner, "__name__", None) or type(inner).__name__


def argument_names(f: Any, count: int) -> list[str]:
    """The parameters' names, or numbers where it has none."""
    inner = f.fun if isinstance(f, (AnyMode, jax.custom_vjp, jax.custom_jvp)) else f
    names: list[str] = []
    for p in _parameters(inner):
        if p.kind is p.VAR_POSITIONAL:
            names += [f"{p.name}[{i}]" for i in range(count - len(names))]
        elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            names.append(p.name)
    return [*names, *(f"argument[{i}]" for i in range(len(names), count))][:count]


def _parameters(f: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        return []


def _chosen(argnums: int | Sequence[int] | None, count: int) -> set[int] | None:
    if argnums is None:
        return None
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if bad := [i for i in wanted if not -count <= i < count]:
        raise BadInput(f"certify: argnums names argument {bad[0]}, but {count} arguments were given")
    return {i % count for i in wanted}


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, np.generic)) or type(value) in (float, complex)


def _strong(value: Any) -> Any:
    """The array as JAX will see it: without weak type, in a dtype that the current precision has."""
    if isinstance(value, jax.Array):
        return value
    x = np.asarray(value)
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype))


def _check_finite(name: str, leaves: Sequence[Leaf], values: Sequence[Any]) -> None:
    for leaf, value in zip(leaves, values, strict=True):
        bad = ~np.isfinite(np.asarray(value).astype(np.complex128))
        if bad.any():
            where = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(bad)))
            raise BadInput(
                f"certify: {name} cannot be judged at a point that is not finite: {leaf.name} is "
                f"{np.atleast_1d(np.asarray(value))[where]} at {list(where)}; give it finite values"
            )


def _check_defined(name: str, outputs: Sequence[Leaf], values: Sequence[Any]) -> None:
    for leaf, value in zip(outputs, values, strict=True):
        if np.isnan(np.asarray(value).astype(np.complex128)).any():
            raise BadInput(
                f"certify: {name} returns NaN at the given point ({leaf}): "
                "choose a point inside its domain, and give domain= so that no other is visited"
            )


def _kinds(names: Sequence[str], args: Sequence[Any]) -> str:
    kinds = [getattr(x, "dtype", None) or type(x).__name__ for x in args]
    return ", ".join(f"{n}: {k}" for n, k in zip(names, kinds, strict=True)) or "no argument"
