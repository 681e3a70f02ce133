"""Rotary positions: the pairs of features of a vector are turned by angles proportional to its position.

Axes: t positions, h heads (any axes between are leading ones), d features in d/2 pairs (i, i + d/2).

    θ[t, i] = positions[t] ωᵢ,    ωᵢ = base^(−2i/d)

    Y = R(θ) X:    Y₁ = X₁ cos θ − X₂ sin θ,    Y₂ = X₁ sin θ + X₂ cos θ        X₁, X₂ the halves of X

A rotation is orthogonal, so its transpose is its inverse, the rotation back; and dR/dθ = R(θ) J with J = R(π/2):

    ⟨R(θ) δX, dY⟩ = ⟨δX, R(−θ) dY⟩              so  dX = R(−θ) dY
    ⟨R(θ) J X δθ, dY⟩ = ⟨δθ, ⟨J X, dX⟩ᵢ⟩        so  dθ = X₁ dX₂ − X₂ dX₁,  dpositions = Σ ω dθ over h and i

Residuals: positions, nothing of X. Where the positions are floating and differentiated, X too.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..adjoint import any_mode, cotangent_like, partitioned
from .checks import check_array
from .normalization import check_real, working_dtype


class RotaryResiduals(NamedTuple):
    """What the backward pass keeps."""

    x: Float[Array, "*n t h d"]     # dpositions needs it; where they are integers it is not kept
    positions: Array                # θ is recomputed from them


def rotary(x: Array, positions: Array, *, base: float = 10000.0) -> Array:
    """Y = R(positions ω) X: each pair of features turned by its own multiple of the position (Su et al., 2021).

    Args:
        x: `[..., t, h, d]`, d even. Real floating.
        positions: broadcastable to `[..., t]`, as `[t]` or `[b, t]`. Integers, or real floating.
        base: the slowest pair turns by about 1/base a position; base > 0.

    Returns:
        Y, of x's shape and dtype. Feature i is paired with i + d/2. Angles are computed in float32, or wider where an
        operand is: in float32 position p is exact to p/2²⁴ radians.

    Raises:
        TypeError: x is no real floating array, positions no integer or real floating one.
        ValueError: x has no axes (t, h, d), d is odd, positions does not broadcast, base ≤ 0.

    Scores of rotated queries and keys depend only on the difference of their positions. Residuals: positions; x only
    where floating positions are differentiated.

    >>> x = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    >>> [[round(v, 2) for v in row] for row in rotary(x, jnp.array([0, 2]))[:, 0].tolist()]
    [[1.0, 0.0], [-0.42, 0.91]]
    """
    _check(x, positions, base)
    return _rotary(jnp.asarray(x), jnp.asarray(positions), float(base))


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("base",))
def _rotary(x: Array, positions: Array, base: float) -> Array:
    return _turned(x, _angles(x, positions, base))                           # (t, h, d)


def _rotary_fwd(x: Float[Array, "*n t h d"], positions: Array, base: float) -> tuple[Array, RotaryResiduals]:
    return _rotary.fun(x, positions, base), RotaryResiduals(x, positions)


def _rotary_bwd(
    base: float, residuals: RotaryResiduals, dY: Float[Array, "*n t h d"]
) -> tuple[Array, Array | None]:
    x, positions = residuals
    theta = _angles(x, positions, base)                                      # (t, 1, d/2)
    dX = _turned(dY.astype(theta.dtype), -theta)                             # (t, h, d)
    if not jnp.issubdtype(positions.dtype, np.floating):
        return dX.astype(x.dtype), None
    (x1, x2), (dX1, dX2) = _halves(x.astype(theta.dtype)), _halves(dX)       # (t, h, d/2)
    dtheta = jnp.sum(x1 * dX2 - x2 * dX1, -2)                                # (t, h, d/2) -> (t, d/2)
    dpositions = jnp.sum(dtheta * _omega(x, theta.dtype, base), -1)          # (t, d/2) -> (t,)
    return dX.astype(x.dtype), cotangent_like(positions, dpositions)


_rotary.defvjp(_rotary_fwd, _rotary_bwd)


def _omega(x: Array, dtype: Any, base: float) -> Array:
    """ωᵢ = base^(−2i/d), (d/2,)."""
    d = x.shape[-1]
    return jnp.asarray(base ** (-np.arange(0, d, 2) / max(d, 1)), dtype)


def _angles(x: Array, positions: Array, base: float) -> Array:
    """θ[t, 1, i] = positions[t] ωᵢ."""
    floating = positions if jnp.issubdtype(positions.dtype, np.floating) else None
    dtype = working_dtype(x, floating)
    return positions.astype(dtype)[..., None, None] * _omega(x, dtype, base)


def _turned(x: Array, theta: Array) -> Array:
    """R(θ) X, in the dtype of θ inside and in that of X outside."""

    def turned(x: Array, theta: Array) -> Array:
        (x1, x2), c, s = _halves(x.astype(theta.dtype)), jnp.cos(theta), jnp.sin(theta)
        return jnp.concatenate([x1 * c - x2 * s, x1 * s + x2 * c], -1).astype(x.dtype)

    return partitioned(turned, x, theta, like=x)


def _halves(x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _check(x: Any, positions: Any, base: Any) -> None:
    check_real("rotary", "x", "(..., t, h, d)", x)
    if x.ndim < 3:
        raise ValueError(f"rotary: x must have the axes (..., t, h, d), got shape {x.shape}")
    if x.shape[-1] % 2:
        raise ValueError(f"rotary: x must have an even width d, got d={x.shape[-1]} (shape {x.shape})")
    check_array("rotary", "positions", "(..., t)", positions)
    if not jnp.issubdtype(positions.dtype, np.integer):
        check_real("rotary", "positions", "(..., t)", positions)
    target = x.shape[:-2]
    pairs = zip(positions.shape[::-1], target[::-1], strict=False)
    if positions.ndim > len(target) or any(a not in (1, b) for a, b in pairs):
        raise ValueError(
            f"rotary: positions must broadcast to the axes (..., t) of x, {target} (x has shape {x.shape}), "
            f"got shape {positions.shape}"
        )
    if not 0 < base < float("inf"):
        raise ValueError(f"rotary: base must be positive and finite, got {base}")
