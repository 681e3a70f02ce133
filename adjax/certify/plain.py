"""The reference's derivative, by the best means that JAX allows: reverse mode, else forward mode, else differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..adjoint.space import wide
from .subject import Arrays, Outputs

Form = Callable[[Sequence[Any], Sequence[Any]], Outputs]
Vjp = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], tuple[Outputs, Arrays]]

COLUMNS = 4096      # the number of input elements up to which a Jacobian is formed column by column


def pairing(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """⟨a, b⟩ = Re Σ a b: the pairing in which `jax.vjp` is the transpose of `jax.jvp`, complex functions included."""
    terms = [jnp.sum(jnp.real(x * y.astype(x.dtype))) for x, y in zip(a, b, strict=True)]
    return sum(t.astype(wide(t.dtype)) for t in terms)


def pull(back: Callable[..., Any], y: Sequence[Any], u: Sequence[Any]) -> Arrays:
    """The pullback at `u`, in the dtypes that the outputs have: a function may return float32 whatever it is given."""
    return tuple(back(tuple(x.astype(v.dtype) for x, v in zip(u, y, strict=True))))


def reverse(form: Form) -> Vjp:
    """Outputs and cotangents through `jax.vjp`: through the function's own rule, where it has one."""

    def vjp(active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> tuple[Outputs, Arrays]:
        def floating(*x: Any) -> tuple[Arrays, Arrays]:
            out = form(x, passive)
            return out.floating, out.others

        y, back, others = jax.vjp(floating, *active, has_aux=True)
        return Outputs(y, others), pull(back, y, u)

    return vjp


def forward_columns(form: Form) -> Vjp:
    """The same, one Jacobian column at a time by forward mode: for a function that JAX cannot reverse."""

    def vjp(active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> tuple[Outputs, Arrays]:
        def column(e: Sequence[Any]) -> Any:
            dy = jax.jvp(lambda *x: form(x, passive).floating, tuple(active), tuple(e))[1]
            return pairing(dy, u)

        return form(active, passive), _by_column(column, active)

    return vjp


def difference_columns(form: Form) -> Vjp:
    """The same by central differences of fourth order: for a function that JAX cannot differentiate plainly at all."""

    def vjp(active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> tuple[Outputs, Arrays]:
        h = 1e-3

        def along(e: Sequence[Any], t: float) -> Any:
            return pairing(form([x + t * d for x, d in zip(active, e, strict=True)], passive).floating, u)

        def column(e: Sequence[Any]) -> Any:
            near, far = along(e, h) - along(e, -h), along(e, 2 * h) - along(e, -2 * h)
            return (8 * near - far) / (12 * h)

        return form(active, passive), _by_column(column, active)

    return vjp


def _by_column(column: Callable[[Sequence[Any]], Any], active: Sequence[Any]) -> Arrays:
    found = []
    for i, x in enumerate(active):
        if jnp.iscomplexobj(x):
            raise TypeError("columns of complex Jacobians are not formed")

        def entry(k: Any, i: int = i, x: Any = x) -> Any:
            e = [jnp.zeros_like(z) for z in active]
            e[i] = jnp.zeros(x.size, x.dtype).at[k].set(1).reshape(x.shape)
            return column(e).astype(x.dtype)

        found.append(jax.lax.map(entry, jnp.arange(x.size)).reshape(x.shape) if x.size else x)
    return tuple(found)


def works(program: Callable[..., Any], *args: Any) -> str:
    """Why a program cannot be traced at these arguments, in JAX's words; '' where it can."""
    try:
        jax.eval_shape(program, *args)
    except Exception as error:
        return reason(error)
    return ""


def reason(error: BaseException) -> str:
    """An exception in one line."""
    said = " ".join(str(error).strip().split("\n")[0].split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
