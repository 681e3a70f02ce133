"""The layers of the decoder as one writes them in plain JAX, left to autodiff."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adjax import AffineParams
from adjax.examples.text.decoder import Layers

EPS, BASE = 1e-6, 10_000.0


def embed(table: Array, ids: Array) -> Array:
    """Rows of the table, and zeros where there is none."""
    return table.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def affine(params: AffineParams, X: Array) -> Array:
    """Y = X W + b."""
    return X @ params.W if params.b is None else X @ params.W + params.b


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


def split_attention(q: Array, k: Array, v: Array) -> Array:
    """A device's own characters look at all of those before: keys and values are gathered along `sequence`."""
    t, first = q.shape[1], q.shape[1] * jax.lax.axis_index("sequence")
    k, v = (jax.lax.all_gather(x, "sequence", axis=1, tiled=True) for x in (k, v))
    seen = first + jnp.arange(t)[:, None] >= jnp.arange(k.shape[1])                # (t, s)
    return jax.nn.dot_product_attention(q, k, v, mask=seen[None, None])


def linear_cross_entropy(params: AffineParams, x: Array, labels: Array, axis_name: str | None = None) -> Array:
    """The mean over all characters, of logits in float32; with the name of an axis, of logits split over devices."""
    logits = affine(params, x).astype(jnp.float32)
    if axis_name is None:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    top = jax.lax.pmax(jax.lax.stop_gradient(logits.max(-1)), axis_name)
    own = labels - logits.shape[-1] * jax.lax.axis_index(axis_name)
    chosen = jnp.where(own[..., None] == jnp.arange(logits.shape[-1]), logits - top[..., None], 0).sum(-1)
    total = jnp.exp(logits - top[..., None]).sum(-1)
    total, chosen = jax.lax.psum((total, chosen), axis_name)
    return (jnp.log(total) - chosen).mean()


PLAIN = Layers(
    embed=embed,
    rms_norm=rms_norm,
    several=functools.partial(jnp.einsum, "dkp,btd->btkp"),
    affine=affine,
    rotary=rotary,
    attention=functools.partial(jax.nn.dot_product_attention, is_causal=True),
    split_attention=split_attention,
    swiglu=lambda gate, up: jax.nn.silu(gate) * up,
    linear_cross_entropy=linear_cross_entropy,
)
