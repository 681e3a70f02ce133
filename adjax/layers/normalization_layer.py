"""Layer and root-mean-square normalization: each row is normalized over its features.

Axes: n rows (any number of leading axes), c features.

    Π X = the mean over the c features of a row
    layer_norm     μ = Π X,    σ² = Π (X − μ)²,    r = 1/√(σ² + ε),    Y = scale (X − μ) r + bias
    rms_norm                   m² = Π X²,          r = 1/√(m² + ε),    Y = scale X r + bias

The adjoint of the first is derived in `normalization`. The second is the same map without the mean: a change δX moves r
by −r³ Π(X δX), so δX̂ = r (δX − X̂ Π(X̂ δX)), again symmetric. With g = scale dY and μ = 0 in rms_norm,

    dX = r (g − Π g − (X − μ) r² Π(g (X − μ))),    dscale = Σₙ dY (X − μ) r,    dbias = Σₙ dY

where rms_norm has no term Π g. The mean is summed relative to the first entry of the row, which is no further than √c σ
from it: no digits are lost where |μ| ≫ σ.

Residuals: X, scale, and r of every row, in layer_norm μ too; of bias only its type.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import Like, any_mode, layout_of, like, partitioned
from .normalization import NormParams, along, check_channels, fresh, working_dtype


class RowResiduals(NamedTuple):
    """What the backward pass keeps."""

    scale: Array | None             # dX needs it
    bias: Like | None               # no values: whether there is one
    x: Float[Array, "*n c"]         # X − μ is recomputed from it
    mean: Array | None              # [n, 1]; None in rms_norm
    r: Float[Array, "*n 1"]


def layer_norm(params: Any, x: Array, *, eps: float = 1e-5) -> Array:
    """Y = scale (X − μ)/√(σ² + ε) + bias, with the mean and variance of each row.

    Args:
        params: `NormParams(scale[c] | None, bias[c] | None)` or a plain tuple. Real floating.
        x: `[..., c]`, any number of leading axes, none included. Real floating.
        eps: ε > 0.

    Returns:
        Y, of x's shape and dtype. The variance is the biased one. Statistics, and all that lies between, are float32,
        or wider where an operand is. Where c = 1, Y = bias.

    Raises:
        TypeError: an argument is no real floating array, or params is no pair.
        ValueError: scale or bias is no `[c]`, eps ≤ 0.

    Residuals: x, scale, and the mean and 1/√(σ² + ε) of each row.

    >>> x = jnp.array([[1.0, 3.0], [-4.0, 4.0]])
    >>> y = layer_norm((jnp.array([1.0, 2.0]), None), x)
    >>> [[round(v, 2) for v in row] for row in y.tolist()]
    [[-1.0, 2.0], [-1.0, 2.0]]
    """
    checked = check_channels("layer_norm", params, x, eps)
    return _norm(checked, jnp.asarray(x), float(eps), True)


def rms_norm(params: Any, x: Array, *, eps: float = 1e-6) -> Array:
    """Y = scale X/√(m² + ε) + bias, with the mean square m² of each row (Zhang and Sennrich, 2019).

    Args:
        params: `NormParams(scale[c] | None, None)` or a plain tuple, made by `NormParams.init(c, bias=False)`. The pair
            is that of every layer that normalizes: a bias, where there is one, is added. Real floating.
        x: `[..., c]`, any number of leading axes, none included. Real floating.
        eps: ε > 0.

    Returns:
        Y, of x's shape and dtype. Statistics, and all that lies between, are float32, or wider where an operand is.

    Raises:
        TypeError: an argument is no real floating array, or params is no pair.
        ValueError: scale or bias is no `[c]`, eps ≤ 0.

    Residuals: x, scale, and 1/√(m² + ε) of each row.

    >>> x = jnp.array([[1.0, -7.0], [3.0, 3.0]])
    >>> y = rms_norm((jnp.array([1.0, 2.0]), None), x)
    >>> [[round(v, 2) for v in row] for row in y.tolist()]
    [[0.2, -2.8], [1.0, 2.0]]
    """
    checked = check_channels("rms_norm", params, x, eps)
    return _norm(checked, jnp.asarray(x), float(eps), False)


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("eps", "centred"))
def _norm(params: NormParams, x: Array, eps: float, centred: bool) -> Array:
    return _norm_fwd(params, x, eps, centred)[0]


def _norm_fwd(
    params: NormParams, x: Float[Array, "*n c"], eps: float, centred: bool
) -> tuple[Array, RowResiduals]:
    scale, bias = params
    x_ = x.astype(working_dtype(x, *params))
    mean = _mean(x_) if centred else None                                  # (n, c) -> (n, 1)
    r = lax.rsqrt(_average(jnp.square(_from(x_, mean))) + eps)             # (n, c) -> (n, 1)
    y = _from(x_, mean) * fresh(r)[0]                                      # (n, c)
    y = y if scale is None else y * along(scale.astype(r.dtype), x)
    y = y if bias is None else y + along(bias.astype(r.dtype), x)
    return y.astype(x.dtype), RowResiduals(scale, like(bias), x, mean, r)


def _norm_bwd(
    eps: float, centred: bool, residuals: RowResiduals, dY: Float[Array, "*n c"]
) -> tuple[NormParams, Array]:
    scale, bias, x, mean, r = residuals
    x_, dY_ = x.astype(r.dtype), dY.astype(r.dtype)
    g = dY_ if scale is None else dY_ * along(scale.astype(r.dtype), x)
    rows = range(x.ndim - 1)
    dbias = None if bias is None else jnp.sum(dY_, rows)                   # (n, c) -> (c,)
    dscale = None if scale is None else jnp.sum(dY_ * (_from(x_, mean) * fresh(r)[0]), rows)   # (n, c) -> (c,)
    C = _average(g * _from(x_, mean))                                      # (n, c) -> (n, 1)
    dX = g - _from(x_, mean) * (r * r * C)                                 # (n, c)
    dX = (dX - _average(g) if centred else dX) * r                         # (n, c)
    return NormParams(dscale, dbias), dX.astype(x.dtype)


_norm.defvjp(_norm_fwd, _norm_bwd)


def _from(x: Array, mean: Array | None) -> Array:
    """X − μ, for this consumer alone."""
    return x if mean is None else x - fresh(mean)[0]


def _average(t: Array) -> Array:
    """Π, its axis kept as 1."""
    return jnp.sum(t, -1, keepdims=True) / max(t.shape[-1], 1)             # (n, c) -> (n, 1)


def _mean(x: Array) -> Array:
    """μ = x₀ + Π (X − x₀). As x₀ is any number, it has no derivative."""
    first = partitioned(lambda x: x[..., :1], lax.stop_gradient(x), axes=(*layout_of(x)[:-1], None))
    return first + _average(x - first)
