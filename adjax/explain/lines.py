"""A function line by line: each equation, and beside it its transpose in every variable in which it is linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..adjoint import is_inexact
from ..adjoint.equations import Equation, Operand, equations_of, transposed


class Line(NamedTuple):
    """An equation."""

    result: str                     # "d"
    type: str                       # "float32[8,5]"
    expression: str                 # "dot_general(c, a)"
    transposes: tuple[str, ...]     # "dc += dot_general(dd, a)"
    not_linear_in: tuple[str, ...]  # of what can be differentiated


def lines_of(f: Callable[..., Any], *args: Any) -> tuple[list[Operand], list[Line]]:
    """The variables of the arguments, and the equations, custom rules and calls opened.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((3,), jnp.float32)
    >>> for line in lines_of(lambda x, y: jnp.sin(x) * y, x, x)[1]:
    ...     print(line.result, "=", line.expression, line.transposes, line.not_linear_in)
    c = sin(a) () ('a',)
    d = mul(c, b) ('dc += mul(dd, b)', 'db += mul(c, dd)') ()
    """
    program = equations_of(f, *args)
    return list(program.inputs), list(map(_line, program.body))


def _line(equation: Equation) -> Line:
    names = [operand.name for operand in equation.operands]
    transposes: list[str] = []
    curved: list[str] = []
    if all(is_inexact(result.type) for result in equation.results):
        for variable in filter(lambda v: is_inexact(v.type), equation.variables):
            adjoint = _adjoint(equation, variable)
            (transposes if adjoint else curved).append(adjoint or variable.name)
    results = ", ".join(result.name for result in equation.results)
    return Line(
        results, type_of(equation.results[0].type) if equation.results else "",
        f"{equation.operation}({', '.join(names)})", tuple(transposes), tuple(curved),
    )  # fmt: skip


def type_of(t: Any) -> str:
    """`float32[8,3]`."""
    return f"{t.dtype}[{','.join(map(str, t.shape))}]"


def _adjoint(equation: Equation, variable: Operand) -> str:
    """`dc += dot_general(dd, a)`, or '' where the equation is not linear in it."""
    program = transposed(equation, variable)
    if program is None:
        return ""
    given = [*(f"d{result.name}" for result in equation.results), *(v.name for v in equation.variables)]
    known = dict(zip(program.invars, given, strict=True))
    made = {v: e for e in program.eqns for v in e.outvars}

    def spelled(atom: Any) -> str:
        if hasattr(atom, "val"):
            return str(atom.val)
        if atom in known:
            return known[atom]
        if atom not in made:
            return "constant"
        return f"{made[atom].primitive.name}({', '.join(map(spelled, made[atom].invars))})"

    return f"d{variable.name} += {spelled(program.outvars[0])}"
