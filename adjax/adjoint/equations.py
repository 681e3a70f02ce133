"""A function as the equations that it is made of, each of them a function of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from string import ascii_lowercase
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from .undecorated import CALLS, bodies, opened_equations, run_equation


class Operand(NamedTuple):
    """What an equation reads: a variable, or a number that stands in it."""

    name: str                       # "a", or the number
    type: Any
    value: Any = None               # None of a variable

    @property
    def is_variable(self) -> bool:
        return self.value is None


Known = dict[Any, Operand]              # what the variables of a jaxpr stand for


class Equation(NamedTuple):
    """`results = operation(operands)`."""

    results: tuple[Operand, ...]
    operation: str
    operands: tuple[Operand, ...]
    run: Callable[..., list[Any]]   # of its variables, each once and in order, to the results

    @property
    def variables(self) -> tuple[Operand, ...]:
        """The operands that vary, each once."""
        return tuple({operand.name: operand for operand in self.operands if operand.is_variable}.values())


class Equations(NamedTuple):
    """A function: what it is given, what it does, and what it returns."""

    inputs: tuple[Operand, ...]     # the arrays among the arguments
    body: list[Equation]
    outputs: tuple[Operand, ...]


def equations_of(f: Callable[..., Any], *args: Any) -> Equations:
    """A function as its equations, custom rules and calls opened; loops and branches are whole.

    >>> import jax.numpy as jnp
    >>> for e in equations_of(lambda x, y: jnp.sin(x) * y, jnp.ones(3), jnp.ones(3)).body:
    ...     print(e.results[0].name, "=", e.operation, *(operand.name for operand in e.operands))
    c = sin a
    d = mul c b
    """
    program, constants = opened_equations(f, args)
    letters = _letters()
    known = _constants(program, constants)
    known.update((v, Operand(next(letters), v.aval)) for v in program.invars)
    inputs = tuple(known[v] for v in program.invars)
    body = list(_flat(program, known, letters))
    return Equations(inputs, body, tuple(_operand(v, known) for v in program.outvars))


def _letters() -> Iterator[str]:
    """a to z, then a1 to z1 and so on."""
    for turn in count():
        yield from (f"{letter}{turn or ''}" for letter in ascii_lowercase)


def _flat(program: Any, known: Known, letters: Iterator[str]) -> Iterator[Equation]:
    for equation in program.eqns:
        operands = tuple(_operand(atom, known) for atom in equation.invars)
        if equation.primitive in CALLS:
            closed = next(bodies(equation))
            body = getattr(closed, "jaxpr", closed)
            known.update(zip(body.invars, operands, strict=True))
            known.update(_constants(body, getattr(closed, "consts", ())))
            yield from _flat(body, known, letters)
            known.update((v, _operand(w, known)) for v, w in zip(equation.outvars, body.outvars, strict=True))
        else:
            results = tuple(Operand(next(letters), v.aval) for v in equation.outvars)
            known.update(zip(equation.outvars, results, strict=True))
            yield Equation(results, equation.primitive.name, operands, _runner(program, equation, operands))


def _constants(program: Any, values: Any) -> Known:
    """The arrays that a program closes over."""
    pairs = zip(program.constvars, values, strict=False)
    return {v: Operand("constant", v.aval, value) for v, value in pairs}


def _operand(atom: Any, known: Known) -> Operand:
    if isinstance(atom, core.Literal):
        return Operand(format(np.asarray(atom.val)[()], ""), atom.aval, atom.val)
    return known[atom]


def _runner(program: Any, equation: Any, operands: tuple[Operand, ...]) -> Callable[..., list[Any]]:
    """One equation as a function of its variables."""
    names = dict.fromkeys(operand.name for operand in operands if operand.is_variable)

    def run(*values: Any) -> list[Any]:
        given = dict(zip(names, values, strict=True))
        at = {
            atom: given[operand.name] if operand.is_variable else operand.value
            for atom, operand in zip(equation.invars, operands, strict=True) if not isinstance(atom, core.Literal)
        }  # fmt: skip
        return run_equation(program, equation, at.__getitem__)

    return run


def transposed(equation: Equation, which: Operand) -> Any:
    """The equations of the adjoint of an equation in one of its variables; None where it is not linear in it.

    A jaxpr of the cotangents of the results and of all variables.
    """
    at = [operand.name for operand in equation.variables].index(which.name)
    types = [jax.ShapeDtypeStruct(v.type.shape, v.type.dtype) for v in equation.variables]
    results = [jax.ShapeDtypeStruct(v.type.shape, v.type.dtype) for v in equation.results]

    def pull(cotangents: Any, *values: Any) -> Any:
        alone = lambda x: equation.run(*values[:at], x, *values[at + 1 :])
        return jax.linear_transpose(alone, types[at])(cotangents)

    try:
        return jax.make_jaxpr(pull)(results, *types).jaxpr
    except Exception:                                               # JAX has no one kind of error for "not linear"
        return None
