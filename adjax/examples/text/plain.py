"""The layers of the decoder as one writes them in plain JAX, left to autodiff."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adjax import AffineParams
from adjax.examples.text.decoder import Layers

EPS, BASE = 1e-6, 10_000.0


def affine(params: AffineParams, X: Array) -> Array:
    """Y = X W."""
    return X @ params.W


def rms_norm(scale: Array, x: Array) -> Array:
    """Each row divided by the root of its mean square, which is float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + EPS) * scale).astype(x.dtype)


def rotary(x: Array, positions: Array) -> Array:
    """Each pair (x[i], x[i + e/2]) turned by its position times BASE^(-2 i/e)."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * BASE ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle)[:, None, :], jnp.sin(angle)[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def linear_cross_entropy(params: AffineParams, x: Array, labels: Array) -> Array:
    """The mean over all characters, of logits in float32."""
    logits = affine(params, x).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


PLAIN = Layers(
    embed=lambda table, ids: table[ids],
    rms_norm=rms_norm,
    affine=affine,
    rotary=rotary,
    attention=lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True),
    swiglu=lambda gate, up: jax.nn.silu(gate) * up,
    linear_cross_entropy=linear_cross_entropy,
)
