"""Attention, a loss and two functions of matrices whose rules recompute, or reach the result another way."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from adjax.certify import LAWS
from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import REAL, integers, ruled, then, wide

Grads = tuple[Any, ...]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """l_n = log Σ_c exp z_nc − z_n,label."""
    z = wide(logits)
    chosen = jnp.take_along_axis(z, labels[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(z, axis=1) - chosen).astype(logits.dtype)


def cross_entropy_adjoint(residuals: Grads, dl: Array) -> Grads:
    """dz_nc = dl_n (p_nc − [c = label]), subtracted in float32."""
    logits, labels = residuals
    p = jax.nn.softmax(wide(logits), axis=1)
    hit = labels[:, None] == jnp.arange(p.shape[1], dtype=labels.dtype)
    return (wide(dl)[:, None] * jnp.where(hit, p - 1, p)).astype(logits.dtype), None


def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """O = softmax(q kᵀ/√d) v over the keys that the mask shows; a row that sees none is zero."""
    return (_probabilities(q, k, mask) @ wide(v)).astype(q.dtype)


def _probabilities(q: Array, k: Array, mask: Array) -> Array:
    z = jnp.where(mask, wide(q) @ wide(k).T / math.sqrt(max(q.shape[-1], 1)), -jnp.inf)
    m = lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True, initial=-1e30))
    e = jnp.where(mask, jnp.exp(jnp.where(mask, z, m) - m), 0)
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total == 0, 1, total)


def attention_adjoint(residuals: Grads, dO: Array) -> Grads:
    """dS = P (dP − Σ dO O), with P and O recomputed."""
    q, k, v, mask = residuals
    P, (q, k, v), G = _probabilities(q, k, mask), map(wide, (q, k, v)), wide(dO)
    dS = P * (G @ v.T - jnp.sum(G * (P @ v), axis=-1, keepdims=True)) / math.sqrt(max(q.shape[-1], 1))
    return *(g.astype(dO.dtype) for g in (dS @ k, dS.T @ q, P.T @ G)), None


def attention_key_by_key(q: Array, k: Array, v: Array) -> tuple[Array, Grads]:
    """The same forward pass as a scan over keys, with a running maximum; keeps that and Σ exp, per query."""
    Q = wide(q) / math.sqrt(max(q.shape[-1], 1))

    def see(carry: Grads, pair: tuple[Array, Array]) -> tuple[Grads, None]:
        m, total, O = carry
        z = Q @ pair[0]
        top = jnp.maximum(m, z)
        old, new = jnp.exp(m - top), jnp.exp(z - top)
        return (top, total * old + new, O * old[:, None] + new[:, None] * pair[1]), None

    start = (jnp.full(len(q), -1e30, Q.dtype), jnp.zeros(len(q), Q.dtype), jnp.zeros((len(q), v.shape[1]), Q.dtype))
    (m, total, O), _ = lax.scan(see, start, (wide(k), wide(v)))
    total = jnp.where(total == 0, 1, total)         # where there are no keys
    O = O / total[:, None]
    return O.astype(q.dtype), (q, k, v, O, m, total)


def attention_of_all(q: Array, k: Array, v: Array) -> Array:
    """Attention without a mask."""
    S = wide(q) @ wide(k).T / math.sqrt(max(q.shape[-1], 1))
    return (jax.nn.softmax(S, axis=-1) @ wide(v)).astype(q.dtype)


def attention_of_all_adjoint(residuals: Grads, dO: Array) -> Grads:
    """dk and dv key by key. Probabilities from m + log Σ exp as one number would lose digits at large scores."""
    q, k, v, O, m, total = residuals
    Q, G, scale = wide(q), wide(dO), 1 / math.sqrt(max(q.shape[-1], 1))
    delta = jnp.sum(G * O, axis=-1)

    def see(dQ: Array, pair: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        key, value = pair
        p = jnp.exp((Q * scale) @ key - m) / total
        ds = p * (G @ value - delta) * scale
        return dQ + ds[:, None] * key, (ds @ Q, p @ G)

    dQ, (dK, dV) = lax.scan(see, jnp.zeros_like(Q), (wide(k), wide(v)))
    return tuple(g.astype(dO.dtype) for g in (dQ, dK, dV))


def distances(X: Array, Y: Array) -> Array:
    """D_ij = |x_i − y_j|²."""
    return jnp.sum(jnp.square(X[:, None] - Y[None, :]), axis=-1)


def distances_adjoint(residuals: Grads, dD: Array) -> Grads:
    """dx_i = 2 Σ_j dD_ij (x_i − y_j), and dy_j its opposite: the differences are made again."""
    X, Y = residuals
    flow = 2 * dD[..., None] * (X[:, None] - Y[None, :])
    return flow.sum(1), -flow.sum(0)


def log_determinant(B: Array) -> Array:
    """log det(1 + B Bᵀ)."""
    return jnp.linalg.slogdet(jnp.eye(len(B), dtype=B.dtype) + B @ B.T)[1]


def log_determinant_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dB = 2 dy B (1 + Bᵀ B)⁻¹: the smaller of the two matrices is inverted."""
    (B,) = residuals
    small = jnp.eye(B.shape[1], dtype=B.dtype) + B.T @ B
    return (2 * dy * jnp.linalg.solve(small, B.T).T,)


MASK = (integers(3, 4, 5) > 0) & (integers(5, 4, 1) != 2)       # the second query sees no key
RIGHT = [
    Right("cross entropy: probabilities less one-hot",
          planted(cross_entropy, cross_entropy_adjoint), then(normal((5, 7)), integers(7, 5))),
    Right("attention: recomputed, with masked rows",
          planted(attention, attention_adjoint), then(normal((4, 3), (5, 3), (5, 2)), MASK)),
    Right("attention: key by key with a running maximum",
          ruled(attention_of_all, attention_key_by_key, attention_of_all_adjoint), normal((4, 3), (5, 3), (5, 2)),
          options={"laws": [law for law in LAWS if law != "sizes"]}),     # it takes one key at least
    Right("distances: differences made again", planted(distances, distances_adjoint), normal((4, 3), (5, 3)), REAL),
    Right("log-determinant: of the smaller matrix",
          planted(log_determinant, log_determinant_adjoint), normal((5, 3)), REAL),
]
