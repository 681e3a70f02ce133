"""The primal beneath custom rules, as equations: to differentiate it plainly, or with one derivative withheld.

A function is traced to its equations, and each call with a custom rule is replaced by a plain call of its primal. What
is left is what autodiff would see, had nobody written a rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.core import primitives

from .space import is_inexact

RULES = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)
CALLS = (primitives.closed_call_p, primitives.jit_p)


def undecorated(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` without the custom rules inside it: the same values, differentiated by autodiff alone.

    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x * x
    >>> square.defvjp(lambda x: (x * x, None), lambda _, dy: (jnp.full_like(dy, 7.0),))
    >>> jax.grad(square)(3.0).tolist(), jax.grad(undecorated(square))(3.0).tolist()
    (7.0, 6.0)
    """

    def plain(*args: Any) -> Any:
        closed, tree, arrays = _equations(f, args)
        return jax.tree.unflatten(tree, core.jaxpr_as_fun(_opened(closed))(*arrays))

    return plain


def _equations(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Any, list[Any]]:
    """The jaxpr of `f`, the structure of its result, and the arrays among its arguments; other values are constants."""
    leaves, tree = jax.tree.flatten(args)
    is_array = [isinstance(x, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)) for x in leaves]

    def of_arrays(*arrays: Any) -> Any:
        given = iter(arrays)
        return f(*tree.unflatten([next(given) if a else x for x, a in zip(leaves, is_array, strict=True)]))

    arrays = [x for x, a in zip(leaves, is_array, strict=True) if a]
    closed, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
    return closed, jax.tree.structure(shape), arrays


def _opened(closed: Any) -> Any:
    """The jaxpr with every custom rule replaced by a call of its primal, at every depth."""
    inner = getattr(closed, "jaxpr", closed)
    equations = [_opened_equation(e) for e in inner.eqns]
    changed = inner.replace(eqns=equations)
    return closed.replace(jaxpr=changed) if inner is not closed else changed


def _opened_equation(equation: Any) -> Any:
    if equation.primitive in RULES:
        call = _opened(equation.params["call_jaxpr"])
        return equation.replace(primitive=primitives.closed_call_p, params={"call_jaxpr": call})
    params = {name: _opened_param(value) for name, value in equation.params.items()}
    return equation.replace(params=params) if any(bodies(equation)) else equation


def _opened_param(value: Any) -> Any:
    if _is_jaxpr(value):
        return _opened(value)
    if isinstance(value, tuple) and any(map(_is_jaxpr, value)):
        opened = (_opened_param(v) for v in value)
        return type(value)(*opened) if hasattr(value, "_fields") else tuple(opened)
    return value


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def bodies(equation: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in equation.params.values():
        yield from (v for v in (value if isinstance(value, tuple) else (value,)) if _is_jaxpr(v))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, those of the bodies inside it included."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for body in bodies(equation):
            yield from equations(body)


def narrowest(f: Callable[..., Any], *args: Any) -> float:
    """The machine epsilon of the narrowest floating dtype that occurs among the equations of `f`, 0 if none does.

    >>> narrowest(lambda x: jnp.sin(x.astype(jnp.bfloat16)), jnp.zeros(3))
    0.0078125
    """
    found = [0.0]
    for equation in equations(jax.make_jaxpr(f)(*args)):
        dtypes = [getattr(v.aval, "dtype", np.dtype(bool)) for v in equation.outvars]
        found += [float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, np.inexact)]
    return max(found)


def opened_equations(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """The jaxpr of `f` without custom rules, as a function of the arrays among its arguments; and its constants."""
    opened = _opened(_equations(f, args)[0])
    return getattr(opened, "jaxpr", opened), getattr(opened, "consts", ())


def withheld(f: Callable[..., Any], *args: Any) -> tuple[list[str], Callable[..., Any]]:
    """`f` with the derivative through one of its equations withheld, as by `lax.stop_gradient`.

    Returns:
        The primitives of the equations, in order, and a function `g(index, *args)`: `f(*args)`, but to autodiff the
        results of equation `index` are constants. The index may be traced. Equations inside loops and branches stay
        whole. The arguments are arrays.

    >>> names, g = withheld(lambda x: x * jnp.sin(x), jnp.array(2.0))
    >>> names, float(jax.grad(lambda x: g(0, x))(2.0)) == float(jnp.sin(2.0))
    (['sin', 'mul'], True)
    """
    closed, tree, _ = _equations(f, args)
    opened = _opened(closed)

    def stopped(index: Any, *args: Any) -> Any:
        count, arrays = itertools.count(), jax.tree.leaves(args)
        out = _evaluate(getattr(opened, "jaxpr", opened), getattr(opened, "consts", ()), arrays, count, index)
        return jax.tree.unflatten(tree, out)

    return [e.primitive.name for e in _flat(opened)], stopped


def _flat(closed: Any) -> Iterator[Any]:
    """The equations in the order in which `_evaluate` counts them: calls inlined."""
    for equation in getattr(closed, "jaxpr", closed).eqns:
        if equation.primitive in CALLS:
            yield from _flat(next(bodies(equation)))
        else:
            yield equation


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], count: Iterator[int], stop: Any) -> list[Any]:
    """Runs the equations one by one; results of equation number `stop` are constants to autodiff."""
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        if equation.primitive in CALLS:
            body = next(bodies(equation))
            operands = list(map(read, equation.invars))
            out = _evaluate(getattr(body, "jaxpr", body), getattr(body, "consts", ()), operands, count, stop)
        else:
            out = run_equation(jaxpr, equation, read)
            kept = next(count) != stop
            out = [jnp.where(kept, y, jax.lax.stop_gradient(y)) if is_inexact(y) else y for y in out]
        values.update(zip(equation.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def run_equation(jaxpr: Any, equation: Any, read: Callable[[Any], Any]) -> list[Any]:
    """The results of one equation of a jaxpr."""
    variables = list(dict.fromkeys(v for v in equation.invars if not isinstance(v, core.Literal)))
    alone = jaxpr.replace(constvars=[], invars=variables, outvars=equation.outvars, eqns=[equation])
    closed = core.ClosedJaxpr(alone, []) if hasattr(core, "ClosedJaxpr") else alone
    return list(core.jaxpr_as_fun(closed)(*map(read, variables)))
