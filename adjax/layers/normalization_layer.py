"""Layer and root-mean-square normalization: each row is normalized over its features.

Axes: n rows (any number of leading axes), c features.

    Π X = the mean over the c features of a row
    layer_norm     μ = Π X,    σ² = Π (X − μ)²,    r = 1/√(σ² + ε),    Y = scale (X − μ) r + bias
    rms_norm                   m² = Π X²,          r = 1/√(m² + ε),    Y = scale X r + bias

The adjoint of the first is derived in `normalization`. The second is the same map without the mean: a change δX moves r
by −r³ Π(X δX), so δX̂ = r (δX − X̂ Π(X̂ δX)), again symmetric. With g = scale dY and μ = 0 in rms_norm,

    dX = r (g − Π g − (X − μ) r² Π(g (X − μ))),    dscale = Σₙ dY (X − μ) r,    dbias = Σₙ dY

where rms_norm has no term Π g. With T = dY (X − μ) the sums are products of a matrix and a vector: c Π g = dY scale,
c Π(g (X − μ)) = T scale, dscale = Tᵀ r. As such XLA:CPU computes them here; of sums over products it makes loops that
write arrays as large as X for other consumers to read, and to map fresh memory takes longer than all the arithmetic.

The mean is summed twice, the second time relative to the first: no digits are lost where |μ| ≫ σ.

Residuals: X, scale, and r of every row, in layer_norm μ too; of bias only its type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import Like, any_mode, contract, like
from .normalization import NormParams, along, check_channels, working_dtype


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
    mean, square = _moments(x_) if centred else (None, _average(jnp.square(x_)))   # (n, c) -> (n, 1)
    r = lax.rsqrt(square + eps)                                            # (n, 1)
    y = _from(x_, mean) * r                                                # (n, c)
    y = y if scale is None else y * along(scale.astype(r.dtype), x)
    y = y if bias is None else y + along(bias.astype(r.dtype), x)
    return y.astype(x.dtype), RowResiduals(scale, like(bias), x, mean, r)


def _norm_bwd(
    eps: float, centred: bool, residuals: RowResiduals, dY: Float[Array, "*n c"]
) -> tuple[NormParams, Array]:
    scale, bias, x, mean, r = residuals
    dY_ = dY.astype(r.dtype)
    scale_ = None if scale is None else scale.astype(r.dtype)
    X = _from(x.astype(r.dtype), mean)                                     # (n, c): X − μ
    T = dY_ * X                                                            # (n, c)
    C = _average(T, scale_)                                                # (n, c)(c,) -> (n, 1): Π(g (X − μ))
    dscale = None if scale is None else _sum_of_rows(T, r)                 # (c, n)(n, 1) -> (c,)
    dbias = None if bias is None else jnp.sum(dY_, range(x.ndim - 1))      # (n, c) -> (c,)
    g = dY_ if scale_ is None else dY_ * along(scale_, x)                  # (n, c)
    dX = g - X * (r * r * C)                                               # (n, c)
    dX = (dX - _average(dY_, scale_) if centred else dX) * r               # (n, c)
    return NormParams(dscale, dbias), dX.astype(x.dtype)


_norm.defvjp(_norm_fwd, _norm_bwd)


def _from(x: Array, mean: Array | None) -> Array:
    """X − μ."""
    return x if mean is None else x - mean


def _moments(x: Float[Array, "*n c"]) -> tuple[Float[Array, "*n 1"], Float[Array, "*n 1"]]:
    """μ = m + δ with δ = Π(X − m), and σ² = Π(X − m − δ)², where m is the mean as it is first summed.

    As m is any number, it has no derivative.
    """
    m = lax.stop_gradient(_average(x))                                     # (n, c) -> (n, 1)
    delta = _average(x - m)                                                # (n, c) -> (n, 1)
    return m + delta, _average_square(x - m - delta)


def _average(t: Float[Array, "*n c"], weight: Float[Array, " c"] | None = None) -> Float[Array, "*n 1"]:
    """Π of t times the weight."""
    if weight is None:
        total = jnp.sum(t, -1)                                             # (n, c) -> (n,)
    else:
        product = partial(contract, "...c,c->...")                         # (n, c)(c,) -> (n,)
        total = _on_cpu(product, lambda t, w: jnp.sum(t * along(w, t), -1), t, weight)
    return jnp.expand_dims(total, -1) / max(t.shape[-1], 1)


def _average_square(t: Float[Array, "*n c"]) -> Float[Array, "*n 1"]:
    """Π t²."""
    product = lambda t: contract("...c,...c->...", t, t)                   # (n, c)(n, c) -> (n,)
    total = _on_cpu(product, lambda t: jnp.sum(jnp.square(t), -1), t)
    return jnp.expand_dims(total, -1) / max(t.shape[-1], 1)


def _sum_of_rows(t: Float[Array, "*n c"], r: Float[Array, "*n 1"]) -> Float[Array, " c"]:
    """Tᵀ r."""
    product = lambda t, r: contract("...c,...->c", t, r[..., 0])           # (n, c)(n,) -> (c,)
    return _on_cpu(product, lambda t, r: jnp.sum(t * r, range(t.ndim - 1)), t, r)


def _on_cpu(product: Callable[..., Array], total: Callable[..., Array], *operands: Array) -> Array:
    """A sum of products: on CPU as a product of matrices, elsewhere as a sum, which reads its operands once."""
    result: Array = lax.platform_dependent(*operands, cpu=product, default=total)
    return result
