"""Gated linear units: an activation of one array multiplies another, Y = f(gate) up, entry by entry.

    ⟨f′(gate) δgate up, dY⟩ = ⟨δgate, f′(gate) up dY⟩      so  dgate = f′(gate) up dY
    ⟨f(gate) δup, dY⟩       = ⟨δup, f(gate) dY⟩            so  dup = f(gate) dY

f is silu (swiglu) or gelu (geglu), from `activation`.

Residuals: gate and up, no activation: f and f′ are computed again from gate.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..adjoint import any_mode
from .activation import GELU, Function, silu_of, silu_slope, widened
from .normalization import check_real


class GatedResiduals(NamedTuple):
    """What the backward pass of `swiglu` and `geglu` keeps; where up alone is differentiated, gate alone."""

    gate: Float[Array, "*n"]        # dgate and dup need it
    up: Float[Array, "*n"]          # dgate needs it


def swiglu(gate: Array, up: Array) -> Array:
    """y = silu(gate) up (Shazeer, 2020).

    Args:
        gate, up: of one shape, real floating.

    Returns:
        y, of that shape, in the promoted dtype; computed in float32 or wider and rounded once.

    Raises:
        TypeError: gate or up is no real floating array.
        ValueError: their shapes differ.

    Residuals: gate and up, no activation.

    >>> gate, up = jnp.array([-1.0, 0.0, 2.0]), jnp.array([2.0, 5.0, -1.0])
    >>> [round(v, 3) for v in swiglu(gate, up).tolist()]
    [-0.538, 0.0, -1.762]
    """
    return _swiglu(*_checked_pair("swiglu", gate, up))


def geglu(gate: Array, up: Array, *, approximate: bool = False) -> Array:
    """y = gelu(gate) up (Shazeer, 2020).

    Args:
        gate, up: of one shape, real floating.
        approximate: as for `gelu`.

    Returns:
        y, of that shape, in the promoted dtype; computed in float32 or wider and rounded once.

    Raises:
        TypeError: gate or up is no real floating array.
        ValueError: their shapes differ.

    Residuals: gate and up, no activation.

    >>> gate, up = jnp.array([-1.0, 0.0, 2.0]), jnp.array([2.0, 5.0, -1.0])
    >>> [round(v, 3) for v in geglu(gate, up).tolist()]
    [-0.317, 0.0, -1.954]
    """
    return _geglu(*_checked_pair("geglu", gate, up), bool(approximate))


# The rules

@any_mode
@jax.custom_vjp
def _swiglu(gate: Float[Array, "*n"], up: Float[Array, "*n"]) -> Array:
    return _gated(silu_of, gate, up)


def _swiglu_fwd(gate: Float[Array, "*n"], up: Float[Array, "*n"]) -> tuple[Array, GatedResiduals]:
    return _swiglu.fun(gate, up), GatedResiduals(gate, up)


def _swiglu_bwd(residuals: GatedResiduals, dY: Float[Array, "*n"]) -> tuple[Array, Array]:
    return _gated_bwd(silu_of, silu_slope, residuals, dY)


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("approximate",))
def _geglu(gate: Float[Array, "*n"], up: Float[Array, "*n"], approximate: bool) -> Array:
    return _gated(GELU[approximate][0], gate, up)


def _geglu_fwd(gate: Float[Array, "*n"], up: Float[Array, "*n"], approximate: bool) -> tuple[Array, GatedResiduals]:
    return _geglu.fun(gate, up, approximate), GatedResiduals(gate, up)


def _geglu_bwd(approximate: bool, residuals: GatedResiduals, dY: Float[Array, "*n"]) -> tuple[Array, Array]:
    return _gated_bwd(*GELU[approximate], residuals, dY)


def _gated_bwd(
    f: Function, slope: Function, residuals: GatedResiduals, dY: Float[Array, "*n"]
) -> tuple[Array, Array]:
    gate, up = residuals
    gate_, up_, dY_ = widened(gate, up, dY)
    dgate = slope(gate_) * up_ * dY_                         # (n,)
    dup = f(gate_) * dY_                                     # (n,)
    return dgate.astype(gate.dtype), dup.astype(up.dtype)


_swiglu.defvjp(_swiglu_fwd, _swiglu_bwd)
_geglu.defvjp(_geglu_fwd, _geglu_bwd)


def _gated(f: Function, gate: Array, up: Array) -> Array:
    gate_, up_ = widened(gate, up)
    return (f(gate_) * up_).astype(jnp.promote_types(gate.dtype, up.dtype))


def _checked_pair(layer: str, gate: Any, up: Any) -> tuple[Array, Array]:
    for name, value in (("gate", gate), ("up", up)):
        check_real(layer, name, "(...)", value)
    if gate.shape != up.shape:
        raise ValueError(f"{layer}: gate and up must have one shape, got {gate.shape} and {up.shape}")
    return jnp.asarray(gate), jnp.asarray(up)
