"""The derivative as the transpose of a spelled adjoint, and what is said where there is none.

JAX's `linear_transpose` refuses most rules that are not linear, but lets an affine one pass (`ct ↦ Aᵀ ct + c`
transposes to A), so the equations are read first: a rule must vanish with its cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .linear_map import LinearMap
from .offset import Kind, why_not_linear


def derivative(owner: str, adjoint: LinearMap, n_residuals: int, dy: Sequence[Any]) -> Callable[..., list[Any]]:
    """J v = (ct ↦ adjoint(r, ct))ᵀ v, as a flat function of `(*r, *v)`; `dy` are the types of ct."""

    def transpose(*operands: Any) -> list[Any]:
        residuals, v = operands[:n_residuals], operands[n_residuals:]
        kinds = [Kind.FREE] * n_residuals + [Kind.LINEAR] * len(dy)
        if reason := why_not_linear(adjoint.jitted.trace(*residuals, *dy).jaxpr, kinds):
            raise TypeError(
                f"any_mode: forward mode of {owner} is the transpose of its backward rule, but the rule is not linear "
                f"in its cotangent: {reason}. A vector-Jacobian product is linear: mend the rule"
            )
        try:
            return list(jax.linear_transpose(lambda *ct: adjoint.call(*residuals, *ct), *dy)(list(v)))
        except Exception as error:
            raise TypeError(_explain(owner, error)) from error

    return transpose


def _explain(owner: str, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    return (
        f"any_mode: forward mode of {owner} is the transpose of its backward rule, which JAX cannot transpose "
        f"({reason}). Either the rule is not linear in its cotangent, and then it is no vector-Jacobian product: mend "
        f"it; or it uses an operation without a transpose (a while_loop, a custom_vjp, a callback): give the "
        f"derivative with {owner}.deftangent(tangent), where tangent(residuals, tangents) -> dy"
    )
