"""Rules that differ from autodiff in how they compute: accumulation, casts, long sums, domains and their edges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import REAL, positive, ruled, wide

Grads = tuple[Any, ...]


def long_product(W: Array, X: Array) -> Array:
    """Y = X W, half precision summed in float32."""
    return jnp.matmul(X, W, preferred_element_type=wide(X[:0]).dtype).astype(X.dtype)


def long_product_adjoint(residuals: Grads, dY: Array) -> Grads:
    """dW sums over many examples, in float32 too."""
    W, X = residuals
    dW = jnp.einsum("nd,np->dp", X, dY, preferred_element_type=wide(X[:0]).dtype)
    return dW.astype(W.dtype), long_product(W.T, dY)


def standardized(x: Array) -> Array:
    """y = (x − μ)/√(v + ε) over the examples, with float32 statistics."""
    return _standardized(wide(x))[0].astype(x.dtype)


def _standardized(x: Array) -> tuple[Array, Array]:
    centred = x - x.mean(0)
    r = lax.rsqrt(jnp.square(centred).mean(0) + 1e-3)
    return centred * r, r


def standardized_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = r (dy − mean dy − x̂ mean(dy x̂)), the statistics recomputed."""
    (y, r), g = _standardized(wide(residuals[0])), wide(dy)
    return ((r * (g - g.mean(0) - y * (g * y).mean(0))).astype(dy.dtype),)


def pairwise_sum(x: Array) -> Array:
    """Σ x over the first axis, as a tree of pairs."""
    x32 = wide(x)
    while len(x32) > 1:
        x32 = jnp.pad(x32, ((0, len(x32) % 2), (0, 0)))
        x32 = x32[::2] + x32[1::2]
    return x32.sum(0).astype(x.dtype)


def compensated_sum(x: Array) -> Array:
    """Σ x over the first axis, with Kahan's running correction."""

    def add(carry: Grads, row: Array) -> tuple[Grads, None]:
        total, lost = carry
        term = row - lost
        new = total + term
        return (new, (new - total) - term), None

    zero = jnp.zeros_like(wide(x).sum(0))
    return lax.scan(add, (zero, zero), wide(x))[0][0].astype(x.dtype)


def sum_adjoint(residuals: Grads, dy: Array) -> Grads:
    """Every row receives dy."""
    return (jnp.broadcast_to(dy, residuals[0].shape),)


def variance(x: Array) -> Array:
    """Mean of (x − μ)² over the first axis, in two passes."""
    x32 = wide(x)
    return jnp.square(x32 - x32.mean(0)).mean(0).astype(x.dtype)


def variance_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = 2/n (x − μ) dy."""
    x = wide(residuals[0])
    return ((2 / max(len(x), 1) * (x - x.mean(0)) * wide(dy)).astype(dy.dtype),)


def in_float32(x: Array) -> Array:
    """y = sin x exp x, computed in float32 whatever the argument."""
    narrow = x.astype(jnp.float32)
    return (jnp.sin(narrow) * jnp.exp(jnp.tanh(narrow))).astype(x.dtype)


def in_float32_adjoint(residuals: Grads, dy: Array) -> Grads:
    """In float32 too, and grouped another way."""
    x, g = residuals[0].astype(jnp.float32), dy.astype(jnp.float32)
    t = jnp.tanh(x)
    return ((g * jnp.exp(t) * (jnp.cos(x) + jnp.sin(x) * (1 - t) * (1 + t))).astype(dy.dtype),)


def sinc(x: Array) -> Array:
    """sin x/x, and 1 at 0."""
    x32 = wide(x)
    return jnp.where(x32 == 0, 1, jnp.sin(x32) / jnp.where(x32 == 0, 1, x32)).astype(x.dtype)


def sinc_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = (cos x − sinc x)/x dy, and a series near 0, where that difference cancels."""
    x = wide(residuals[0])
    small, q = jnp.abs(x) < 0.5, x * x
    series = -x / 3 * (1 - q / 10 * (1 - q / 28 * (1 - q / 54 * (1 - q / 88 * (1 - q / 130)))))
    safe = jnp.where(small, 1, x)
    return ((wide(dy) * jnp.where(small, series, (jnp.cos(safe) - sinc(safe)) / safe)).astype(dy.dtype),)


def ratio(x: Array, y: Array) -> Array:
    """x/y, and 0 where y is 0."""
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))


def ratio_adjoint(residuals: Grads, dz: Array) -> Grads:
    """dx = dz/y, dy = −x/y² dz, and both 0 where y is 0."""
    x, y = residuals
    dx = ratio(dz, y)
    return dx, -dx * ratio(x, y)


def arccos_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = −dy/√((1 − x)(1 + x))."""
    (x,) = residuals
    return (-dy * lax.rsqrt((1 - x) * (1 + x)),)


def logit(p: Array) -> Array:
    """log p/(1 − p), for p between 0 and 1."""
    return jnp.log(p) - jnp.log1p(-p)


def real_power(x: Array, p: Array) -> Array:
    """xᵖ for positive x."""
    return x**p


def real_power_forward(x: Array, p: Array) -> tuple[Array, Grads]:
    y = x**p
    return y, (x, p, y)


def real_power_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = p y/x dy, dp = y log x dy, from the result."""
    x, p, y = residuals
    return dy * p * y / x, dy * y * jnp.log(x)


def log_gamma_adjoint(residuals: Grads, dy: Array) -> Grads:
    return (jax.scipy.special.digamma(residuals[0]) * dy,)


def between(low: float, high: float) -> Any:
    return lambda rng: (rng.uniform(low, high, (4, 3)),)


def reciprocal_square_root(x: Array) -> Array:
    """1/√x: NaN below 0, infinite at 0."""
    return lax.rsqrt(x)


LOG = planted(jnp.log, lambda r, dy: (dy / r[0],))
RIGHT = [
    Right("product: a long sum in float32", planted(long_product, long_product_adjoint), normal((3, 2), (4100, 3))),
    Right("standardize: float32 statistics", planted(standardized, standardized_adjoint), normal((64, 3))),
    Right("sum: as a tree of pairs", planted(pairwise_sum, sum_adjoint), normal((37, 3))),
    Right("sum: compensated", planted(compensated_sum, sum_adjoint), normal((37, 3))),
    Right("variance: in two passes", planted(variance, variance_adjoint), normal((40, 3))),
    Right("float32 inside: sin and exp", planted(in_float32, in_float32_adjoint), normal((4, 3))),
    Right("sinc: a series near 0", planted(sinc, sinc_adjoint), normal((4, 3))),
    Right("ratio: 0 where the denominator is", planted(ratio, ratio_adjoint), normal((4, 3), (4, 3)), REAL),
    Right("log: with its domain", LOG, positive((4, 3)), options={"domain": (0, None)}),
    Right("log: without telling its domain", LOG, positive((4, 3))),
    Right("sqrt: from its result", ruled(jnp.sqrt, lambda x: (jnp.sqrt(x),) * 2, lambda y, dy: (dy / (2 * y),)),
          positive((4, 3)), REAL, options={"domain": (0, None)}),
    Right("rsqrt: NaN outside", ruled(reciprocal_square_root, lambda x: (lax.rsqrt(x),) * 2,
          lambda y, dy: (-dy * y * y * y / 2,)), positive((4, 3)), REAL),
    Right("arccos: as a product of roots",
          planted(jnp.arccos, arccos_adjoint), between(-0.9, 0.9), REAL, options={"domain": (-1, 1)}),
    Right("arccos: without telling its domain", planted(jnp.arccos, arccos_adjoint), between(-0.9, 0.9), REAL),
    Right("logit: of both logarithms", planted(logit, lambda r, dy: (dy / (r[0] * (1 - r[0])),)),
          between(0.1, 0.9), REAL, options={"domain": {"p": (0, 1)}}),
    Right("power: a real exponent", ruled(real_power, real_power_forward, real_power_adjoint),
          positive((4, 3), (4, 3)), REAL, options={"domain": {"x": (0.01, None), "p": (-6, 6)}}),
    Right("log-gamma: by digamma", planted(jax.scipy.special.gammaln, log_gamma_adjoint),
          positive((4, 3)), REAL, options={"domain": (0, None)}),
]
