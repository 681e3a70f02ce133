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
    name = function_name(f)
    rule = exposed_rule(f)
    names = argument_names(f, len(args))
    static = set(rule.nondiff_argnums) if rule is not None and not isinstance(f, functools.partial) else set()
    chosen = _chosen(argnums, len(args))
    leaves, tree = jax.tree.flatten(args)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(args)]
    active, passive, where = [], [], {}
    values: tuple[list[Any], list[Any]] = ([], [])
    for i, (path, value) in enumerate(zip(paths, leaves, strict=True)):
        position = path[0].idx
        if position in static or not _is_array(value):
            continue
        value = value if isinstance(value, jax.Array) else np.asarray(value)
        value = _strong(value)
        label = names[position] + jax.tree_util.keystr(path[1:])
        leaf = Leaf(label, position, value.shape, value.dtype)
        is_active = is_inexact(value) and (chosen is None or position in chosen)
        where[i] = (is_active, len(values[not is_active]))
        (active if is_active else passive).append(leaf)
        values[not is_active].append(value)
    if not active:
        raise BadInput(f"certify: {name} has no floating argument to differentiate, got {_kinds(names, args)}")

    def assemble(a: Sequence[Any], p: Sequence[Any]) -> tuple[Any, ...]:
        both = (a, p)
        return tree.unflatten(
            [both[not where[i][0]][where[i][1]] if i in where else value for i, value in enumerate(leaves)]
        )

    _check_finite(name, active, values[0])
    options = _options(f, names, args, set(where), paths, static)
    plain = reference if reference is not None else primal(f)
    ref = reference if reference is not None else undecorated(plain)
    found = Subject(
        name, f, ref, reference is not None, plain, rule, options, tuple(active), tuple(passive),
        (tuple(values[0]), tuple(values[1])), tuple(names), (), (), assemble,
    )  # fmt: skip
    return _with_outputs(found)


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
    return Subject(**{**s.__dict__, "outputs": floating, "other_outputs": others})


def _raised(name: str, error: Exception) -> str:
    """What a function's own error means for certifying it."""
    said = str(error).strip().split("\n")[0]
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
    try:
        parameters = inspect.signature(inner).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            names += [f"{p.name}[{i}]" for i in range(count - len(names))]
        elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            names.append(p.name)
    return [*names, *(f"argument[{i}]" for i in range(len(names), count))][:count]


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
    return np.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))


def _check_finite(name: str, leaves: Sequence[Leaf], values: Sequence[Any]) -> None:
    for leaf, value in zip(leaves, values, strict=True):
        bad = ~np.isfinite(np.asarray(value).astype(np.complex128))
        if bad.any():
            where = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(bad)))
            raise BadInput(
                f"certify: {name} cannot be judged at a point that is not finite: {leaf.name} is "
                f"{np.atleast_1d(np.asarray(value))[where]} at {list(where)}; give it finite values"
            )


def _kinds(names: Sequence[str], args: Sequence[Any]) -> str:
    kinds = [getattr(x, "dtype", None) or type(x).__name__ for x in args]
    return ", ".join(f"{n}: {k}" for n, k in zip(names, kinds, strict=True)) or "no argument"


def _options(
    f: Any, names: Sequence[str], args: Sequence[Any], arrays: set[int], paths: Sequence[Any], static: set[int]
) -> dict[str, Any]:
    """Static arguments and keywords, by name: what a rule could ignore."""
    dynamic = {paths[i][0].idx for i in arrays}
    found = {names[i]: x for i, x in enumerate(args) if i in static or i not in dynamic}
    if isinstance(f, functools.partial):
        found |= f.keywords
    return found
