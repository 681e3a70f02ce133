"""Nonlinear functions whose rules use another formula, equal to autodiff's on paper."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import ruled, wide

Grads = tuple[Any, ...]
EPSILON = 1e-5


def softmax(x: Array) -> Array:
    """s = exp x / Σ exp x along the last axis."""
    return jax.nn.softmax(wide(x), axis=-1).astype(x.dtype)


def softmax_from_result(residuals: Grads, dy: Array) -> Grads:
    """dx = s (dy − ⟨s, dy⟩)."""
    s, g = softmax(wide(residuals[0])), wide(dy)
    return ((s * (g - jnp.sum(s * g, axis=-1, keepdims=True))).astype(dy.dtype),)


def softmax_by_jacobian(residuals: Grads, dy: Array) -> Grads:
    """dx = (diag s − s sᵀ) dy, the whole matrix formed."""
    s = softmax(wide(residuals[0]))
    J = s[..., None] * jnp.eye(s.shape[-1], dtype=s.dtype) - s[..., :, None] * s[..., None, :]
    return (jnp.einsum("...ij,...j->...i", J, wide(dy)).astype(dy.dtype),)


def softmax_by_pairs(residuals: Grads, dy: Array) -> Grads:
    """dx_i = Σ_j s_i s_j (dy_i − dy_j): sums to zero term by term."""
    s, g = softmax(wide(residuals[0])), wide(dy)
    pairs = s[..., :, None] * s[..., None, :] * (g[..., :, None] - g[..., None, :])
    return (pairs.sum(-1).astype(dy.dtype),)


def log_softmax(x: Array) -> Array:
    """y = x − log Σ exp x."""
    return jax.nn.log_softmax(wide(x), axis=-1).astype(x.dtype)


def log_softmax_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = dy − s Σ dy, with s recomputed."""
    s, g = softmax(wide(residuals[0])), wide(dy)
    return ((g - s * g.sum(-1, keepdims=True)).astype(dy.dtype),)


def logsumexp(x: Array) -> Array:
    """y = m + log Σ exp(x − m), with m = max x."""
    x32 = wide(x)
    m = lax.stop_gradient(x32.max(-1, keepdims=True))
    return (m + jnp.log(jnp.exp(x32 - m).sum(-1, keepdims=True)))[..., 0].astype(x.dtype)


def logsumexp_forward(x: Array) -> tuple[Array, Grads]:
    y = logsumexp(wide(x))
    return y.astype(x.dtype), (x, y)


def logsumexp_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = exp(x − y) dy."""
    x, y = residuals
    return ((jnp.exp(wide(x) - y[..., None]) * wide(dy)[..., None]).astype(x.dtype),)


def layer_norm(gamma: Array, beta: Array, x: Array) -> Array:
    """y = γ (x − μ)/√(v + ε) + β."""
    return (wide(gamma) * _normalized(x)[0] + wide(beta)).astype(x.dtype)


def _normalized(x: Array) -> tuple[Array, Array]:
    """x̂ and r = 1/√(v + ε)."""
    centred = wide(x) - wide(x).mean(-1, keepdims=True)
    r = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    return centred * r, r


def layer_norm_compact(residuals: Grads, dy: Array) -> Grads:
    """dx = r/d (d g − Σ g − x̂ Σ g x̂) with g = γ dy, everything recomputed from x."""
    gamma, _, x = residuals
    (normal_x, r), d = _normalized(x), x.shape[-1]
    g, G = wide(gamma) * wide(dy), wide(dy)
    dx = r / d * (d * g - g.sum(-1, keepdims=True) - normal_x * jnp.sum(g * normal_x, axis=-1, keepdims=True))
    return tuple(c.astype(x.dtype) for c in ((G * normal_x).sum(0), G.sum(0), dx))


def layer_norm_textbook(residuals: Grads, dy: Array) -> Grads:
    """Through dv = −½ r³ Σ g (x − μ) and dμ = −r Σ g."""
    gamma, _, x = residuals
    (normal_x, r), d = _normalized(x), x.shape[-1]
    centred, g, G = normal_x / r, wide(gamma) * wide(dy), wide(dy)
    dv = -0.5 * r**3 * jnp.sum(g * centred, axis=-1, keepdims=True)
    dmu = -r * g.sum(-1, keepdims=True)
    dx = g * r + dv * 2 * centred / d + dmu / d
    return tuple(c.astype(x.dtype) for c in ((G * normal_x).sum(0), G.sum(0), dx))


def rms_norm(gamma: Array, x: Array) -> Array:
    """y = γ x / √(mean x² + ε)."""
    x32 = wide(x)
    return (wide(gamma) * x32 * lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + EPSILON)).astype(x.dtype)


def rms_norm_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = r g − r³ x ⟨g, x⟩/d, with r recomputed."""
    gamma, x = map(wide, residuals)
    r, g = lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON), wide(dy)
    dgamma, g = (g * x * r).sum(0), g * gamma
    dx = r * g - r**3 * x * (g * x).mean(-1, keepdims=True)
    return dgamma.astype(dy.dtype), dx.astype(dy.dtype)


def gelu(x: Array) -> Array:
    """y = x Φ(x), with the error function."""
    return (wide(x) * 0.5 * (1 + lax.erf(wide(x) / math.sqrt(2)))).astype(x.dtype)


def gelu_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = (Φ + x φ) dy, with the complementary error function."""
    x = wide(residuals[0])
    Phi, phi = 0.5 * lax.erfc(-x / math.sqrt(2)), jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return ((wide(dy) * (Phi + x * phi)).astype(dy.dtype),)


def sigmoid(x: Array) -> Array:
    """σ(x) = 1/(1 + exp −x)."""
    return lax.logistic(wide(x)).astype(x.dtype)


def sigmoid_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = σ(x) σ(−x) dy: keeps its precision where σ is near 1."""
    x = wide(residuals[0])
    return ((wide(dy) * lax.logistic(x) * lax.logistic(-x)).astype(dy.dtype),)


def tanh(x: Array) -> Array:
    """y = tanh x."""
    return jnp.tanh(wide(x)).astype(x.dtype)


def tanh_forward(x: Array) -> tuple[Array, Array]:
    y = jnp.tanh(wide(x))
    return y.astype(x.dtype), y


def tanh_adjoint(y: Array, dy: Array) -> Grads:
    """dx = (1 − y)(1 + y) dy."""
    return ((wide(dy) * (1 - y) * (1 + y)).astype(dy.dtype),)


def swish(x: Array) -> Array:
    """y = x σ(x)."""
    return (wide(x) * lax.logistic(wide(x))).astype(x.dtype)


def swish_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = (y + σ (1 − y)) dy."""
    x = wide(residuals[0])
    s = lax.logistic(x)
    y = x * s
    return ((wide(dy) * (y + s * (1 - y))).astype(dy.dtype),)


def product(x: Array) -> Array:
    """y = Π x along the last axis."""
    return jnp.prod(wide(x), axis=-1).astype(x.dtype)


def product_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx_i = Π_{j<i} x_j Π_{j>i} x_j dy: no division, so zeros are no trouble."""
    x = wide(residuals[0])
    one = jnp.ones_like(x[..., :1])
    before = jnp.concatenate([one, jnp.cumprod(x, -1)[..., :-1]], -1)
    after = jnp.flip(jnp.concatenate([one, jnp.cumprod(jnp.flip(x, -1), -1)[..., :-1]], -1), -1)
    return ((before * after * wide(dy)[..., None]).astype(dy.dtype),)


ROWS = normal((4, 6))
NORM = normal((6,), (6,), (4, 6))
RIGHT = [
    Right("softmax: from its result", planted(softmax, softmax_from_result), ROWS),
    Right("softmax: the whole Jacobian", planted(softmax, softmax_by_jacobian), ROWS),
    Right("softmax: by pairs", planted(softmax, softmax_by_pairs), ROWS),
    Right("log_softmax: recomputed", planted(log_softmax, log_softmax_adjoint), ROWS),
    Right("logsumexp: from its result", ruled(logsumexp, logsumexp_forward, logsumexp_adjoint), ROWS),
    Right("layer_norm: the compact formula", planted(layer_norm, layer_norm_compact), NORM),
    Right("layer_norm: through the variance and the mean", planted(layer_norm, layer_norm_textbook), NORM),
    Right("rms_norm: recomputed", planted(rms_norm, rms_norm_adjoint), normal((6,), (4, 6))),
    Right("gelu: erf forward, erfc backward", planted(gelu, gelu_adjoint), ROWS),
    Right("sigmoid: as a product of two", planted(sigmoid, sigmoid_adjoint), ROWS),
    Right("tanh: from its result", ruled(tanh, tanh_forward, tanh_adjoint), ROWS),
    Right("swish: recomputed", planted(swish, swish_adjoint), ROWS),
    Right("product: of all the others", planted(product, product_adjoint), normal((3, 5))),
]
