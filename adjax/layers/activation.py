"""Activations: Y = f(X) entry by entry, a map whose derivative is diagonal, hence its own transpose: dX = f′(X) dY.

    relu      max(x, 0)                       f′ = [x > 0], so 0 at 0
    silu      x s,  s = 1/(1 + e⁻ˣ)           f′ = s + x s (1 − s)
    gelu      x Φ(x)                          f′ = Φ + x φ, with Φ and φ of the standard normal distribution
              x T,  T = (1 + tanh u)/2        f′ = T + 2 x T (1 − T) u′,  u = √(2/π) (x + 0.044715 x³)   (approximate)

Residuals: of relu one boolean an entry; of the others x in its own dtype, no exponential. f′ is computed again from it,
in float32 or wider: arithmetic in registers is cheaper than an array in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from ..adjoint import any_mode
from .normalization import check_real, working_dtype

Function = Callable[[Array], Array]


class ReluResiduals(NamedTuple):
    """What the backward pass of `relu` keeps."""

    positive: Bool[Array, "*n"]     # f′(x)


class Residuals(NamedTuple):
    """What the backward pass of `silu` and `gelu` keeps."""

    x: Float[Array, "*n"]           # f′(x) is recomputed from it


# The public functions

def relu(x: Array) -> Array:
    """y = max(x, 0).

    Args:
        x: any shape, real floating.

    Returns:
        y, of x's shape and dtype. Its derivative at 0 is 0, as that of `jax.nn.relu`; NaN stays NaN.

    Raises:
        TypeError: x is no real floating array.

    Residuals: the boolean x > 0.

    >>> x = jnp.array([-2.0, 0.0, 3.0])
    >>> relu(x).tolist(), jax.grad(lambda x: relu(x).sum())(x).tolist()
    ([0.0, 0.0, 3.0], [0.0, 0.0, 1.0])
    """
    check_real("relu", "x", "(...)", x)
    return _relu(jnp.asarray(x))


def silu(x: Array) -> Array:
    """y = x/(1 + e⁻ˣ).

    Args:
        x: any shape, real floating.

    Returns:
        y, of x's shape and dtype; computed in float32 or wider and rounded once.

    Raises:
        TypeError: x is no real floating array.

    Residuals: x.

    >>> x = jnp.array([-1.0, 0.0, 2.0])
    >>> [round(v, 3) for v in silu(x).tolist()]
    [-0.269, 0.0, 1.762]
    """
    check_real("silu", "x", "(...)", x)
    return _silu(jnp.asarray(x))


def gelu(x: Array, *, approximate: bool = False) -> Array:
    """y = x Φ(x), with Φ the distribution function of the standard normal.

    Args:
        x: any shape, real floating.
        approximate: True for the tanh formula of Hendrycks and Gimpel (2016) instead of the error function.

    Returns:
        y, of x's shape and dtype; computed in float32 or wider and rounded once.

    Raises:
        TypeError: x is no real floating array.

    Residuals: x.

    >>> x = jnp.array([-1.0, 0.0, 2.0])
    >>> [round(v, 4) for v in gelu(x).tolist()]
    [-0.1587, 0.0, 1.9545]
    >>> [round(v, 4) for v in gelu(x, approximate=True).tolist()]
    [-0.1588, 0.0, 1.9546]
    """
    check_real("gelu", "x", "(...)", x)
    return _gelu(jnp.asarray(x), bool(approximate))


# The rules

@any_mode
@jax.custom_vjp
def _relu(x: Float[Array, "*n"]) -> Array:
    return jnp.maximum(x, jnp.zeros((), x.dtype))


def _relu_fwd(x: Float[Array, "*n"]) -> tuple[Array, ReluResiduals]:
    return _relu.fun(x), ReluResiduals(x > 0)


def _relu_bwd(residuals: ReluResiduals, dY: Float[Array, "*n"]) -> tuple[Array]:
    return (jnp.where(residuals.positive, dY, jnp.zeros_like(dY)),)


@any_mode
@jax.custom_vjp
def _silu(x: Float[Array, "*n"]) -> Array:
    return _applied(silu_of, x)


def _silu_fwd(x: Float[Array, "*n"]) -> tuple[Array, Residuals]:
    return _silu.fun(x), Residuals(x)


def _silu_bwd(residuals: Residuals, dY: Float[Array, "*n"]) -> tuple[Array]:
    return (_slope_times(silu_slope, residuals.x, dY),)


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("approximate",))
def _gelu(x: Float[Array, "*n"], approximate: bool) -> Array:
    return _applied(GELU[approximate][0], x)


def _gelu_fwd(x: Float[Array, "*n"], approximate: bool) -> tuple[Array, Residuals]:
    return _gelu.fun(x, approximate), Residuals(x)


def _gelu_bwd(approximate: bool, residuals: Residuals, dY: Float[Array, "*n"]) -> tuple[Array]:
    return (_slope_times(GELU[approximate][1], residuals.x, dY),)


_relu.defvjp(_relu_fwd, _relu_bwd)
_silu.defvjp(_silu_fwd, _silu_bwd)
_gelu.defvjp(_gelu_fwd, _gelu_bwd)


# f and f′ of one entry, in float32 or wider

def silu_of(x: Array) -> Array:
    """x σ(x)."""
    return x * lax.logistic(x)


def silu_slope(x: Array) -> Array:
    """Its derivative."""
    x = _saturated(x)
    s = lax.logistic(x)
    return s + x * s * lax.logistic(-x)


def gelu_of(x: Array) -> Array:
    """x Φ(x)."""
    return x * _normal_distribution(x)


def gelu_slope(x: Array) -> Array:
    """Its derivative."""
    x = _saturated(x)
    return _normal_distribution(x) + x * _normal_density(x)


@jax.custom_jvp
def _normal_distribution(x: Array) -> Array:
    """Φ by erfc, which does not cancel where x is far below 0."""
    return lax.erfc(-x * math.sqrt(0.5)) / 2


@_normal_distribution.defjvp
def _normal_distribution_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Φ′ = φ. JAX 0.12 cannot differentiate erfc inside a `shard_map` that checks what varies."""
    (x,), (tangent,) = primals, tangents
    return _normal_distribution(x), _normal_density(x) * tangent


def _normal_density(x: Array) -> Array:
    """φ."""
    return lax.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def tanh_gelu_of(x: Array) -> Array:
    """The same with Φ approximated by a tanh."""
    return x * lax.logistic(2 * _tanh_argument(x))


def tanh_gelu_slope(x: Array) -> Array:
    """Its derivative."""
    x = _saturated(x)
    u = _tanh_argument(x)
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    T = lax.logistic(2 * u)                                  # (1 + tanh u)/2
    return T + 2 * x * (T * lax.logistic(-2 * u)) * du


def _tanh_argument(x: Array) -> Array:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _saturated(x: Array) -> Array:
    """x, cut off far beyond where f′ is 0 or 1 to the last digit, so that its square does not overflow."""
    return lax.clamp(jnp.asarray(-1e3, x.dtype), x, jnp.asarray(1e3, x.dtype))


GELU = {False: (gelu_of, gelu_slope), True: (tanh_gelu_of, tanh_gelu_slope)}


# Their dtypes

def _applied(f: Function, x: Array) -> Array:
    (x_,) = widened(x)
    return f(x_).astype(x.dtype)


def _slope_times(slope: Function, x: Array, dY: Array) -> Array:
    x_, dY_ = widened(x, dY)
    return (slope(x_) * dY_).astype(x.dtype)


def widened(*operands: Array) -> list[Array]:
    """In the dtype all of this is computed in: float32, or wider where an operand is."""
    dtype = working_dtype(*operands)
    return [t.astype(dtype) for t in operands]
