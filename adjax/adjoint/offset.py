"""Reads equations for what makes a map affine or bilinear rather than linear.

Every value is one of three: the constant zero, free of the input, or linear in it. Sums keep to one kind; a product has
at most one linear factor. What no rule here names is left to `jax.linear_transpose`, which refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import numpy as np
from jax.extend.core import Literal


class Kind(Enum):
    """What a value is as a function of the input."""

    ZERO = "zero"
    FREE = "free of the input"
    LINEAR = "linear in the input"


class NotLinear(Exception):
    """The map is not linear; the message says which equation shows it."""


_PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call"}
_SUMS = {"add", "sub", "add_any", "concatenate", "pad", "dynamic_update_slice", "select_n", "scatter", "scatter-add"}
_VALUES = {
    "dynamic_update_slice": (0, 1), "scatter": (0, 2), "scatter-add": (0, 2), "gather": (0,), "dynamic_slice": (0,),
    "div": (0,),
}  # fmt: skip
_ZERO_PRESERVING = _PRODUCTS | _SUMS | {
    "broadcast_in_dim", "reshape", "convert_element_type", "transpose", "squeeze", "slice", "dynamic_slice", "gather",
    "neg", "reduce_sum", "cumsum", "rev", "copy", "real", "imag", "conj", "complex", "div", "reduce_precision",
    "psum", "psum_invariant", "pvary", "pcast", "reshard", "sharding_constraint", "expand_dims", "stop_gradient",
}  # fmt: skip


def why_not_linear(closed: Any, kinds: Sequence[Kind]) -> str:
    """The reason why equations are not linear in their LINEAR inputs, or '' where none is seen.

    Args:
        closed: a closed jaxpr.
        kinds: the kind of each of its inputs.
    """
    try:
        out = _follow(closed, kinds)
    except NotLinear as reason:
        return str(reason)
    free = [i for i, kind in enumerate(out) if kind is Kind.FREE]
    return f"output {free[0]} does not vanish with it" if free else ""


def _follow(closed: Any, kinds: Sequence[Kind]) -> list[Kind]:
    """The kinds of the outputs, given those of the inputs."""
    jaxpr = getattr(closed, "jaxpr", closed)
    env: dict[Any, Kind] = dict(zip(jaxpr.invars, kinds, strict=True))
    for var, value in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=False):
        env[var] = _constant(value)

    def read(atom: Any) -> Kind:
        return _constant(atom.val) if isinstance(atom, Literal) else env.get(atom, Kind.FREE)

    for eqn in jaxpr.eqns:
        out = _equation(eqn, [read(v) for v in eqn.invars])
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _constant(value: Any) -> Kind:
    try:
        return Kind.ZERO if not np.any(np.asarray(value)) else Kind.FREE
    except Exception:                                               # a tracer: its value is not known
        return Kind.FREE


def _equation(eqn: Any, kinds: list[Kind]) -> list[Kind]:
    name, count = eqn.primitive.name, len(eqn.outvars)
    if name in _CALLS:
        return _follow(eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"], kinds)
    if name == "scan":
        return _scan(eqn, kinds)
    if name == "cond" and kinds[0] is not Kind.LINEAR:
        branches = [_follow(branch, kinds[1:]) for branch in eqn.params["branches"]]
        return [_join("cond", column) for column in zip(*branches, strict=True)]
    if name in _PRODUCTS and Kind.ZERO in kinds:
        return [Kind.ZERO] * count
    if Kind.LINEAR in kinds:
        return [_of_input(eqn, name, kinds)] * count
    vanishes = name in _ZERO_PRESERVING and all(kind is Kind.ZERO for kind in _values(name, kinds))
    return [Kind.ZERO if vanishes and kinds else Kind.FREE] * count


def _of_input(eqn: Any, name: str, kinds: list[Kind]) -> Kind:
    """The kind of what an operation makes of a value linear in the input."""
    if name == "select_n" and kinds[0] is Kind.LINEAR:
        raise NotLinear("`select_n` chooses by its value")
    if name in _SUMS:
        return _join(name, _values(name, kinds))
    if name in _PRODUCTS and kinds.count(Kind.LINEAR) > 1:
        raise NotLinear(f"`{name}` multiplies it by itself")
    if name == "div" and kinds[1] is Kind.LINEAR:
        raise NotLinear("`div` divides by it")
    if name == "convert_element_type" and np.dtype(eqn.params["new_dtype"]).kind in "biu":
        raise NotLinear("`convert_element_type` rounds it to an integer")
    return Kind.LINEAR


def _values(name: str, kinds: list[Kind]) -> list[Kind]:
    """The kinds of the operands that carry values, not indices, predicates or denominators."""
    if name == "select_n":
        return kinds[1:]
    return [kinds[i] for i in _VALUES.get(name, range(len(kinds)))]


def _join(name: str, kinds: Iterable[Kind]) -> Kind:
    """The kind of a sum."""
    present = set(kinds) - {Kind.ZERO}
    if present == {Kind.FREE, Kind.LINEAR}:
        raise NotLinear(f"`{name}` adds to it something that does not vanish with it")
    return present.pop() if present else Kind.ZERO


def _scan(eqn: Any, kinds: list[Kind]) -> list[Kind]:
    """A fixed point over the carry: at most every carried value changes its kind once."""
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    n_carry = sum(y.aval.ndim == step.aval.ndim for y, step in zip(eqn.outvars, body.outvars, strict=True))
    n_kept = sum(x.aval.ndim == step.aval.ndim for x, step in zip(eqn.invars, body.invars, strict=True))
    n_consts = n_kept - n_carry                                     # what is neither carried nor scanned over
    consts, carry, xs = kinds[:n_consts], kinds[n_consts:n_kept], kinds[n_kept:]
    while True:
        out = _follow(eqn.params["jaxpr"], [*consts, *carry, *xs])
        joined = [_join("scan", pair) for pair in zip(carry, out[:n_carry], strict=True)]
        if joined == carry:
            return [*carry, *out[n_carry:]]
        carry = joined
