"""Dropout: entries are set to zero at random, and those that stay are scaled so that the mean stays.

    M = 1/(1 − rate) where a random bit pattern of the key is at least rate · 2³², else 0

    Y = M X entry by entry:  a diagonal map, its own transpose      so  dX = M dY

Residuals: the key. The mask is drawn again from it, the same one: no array is kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Inexact, UInt32

from ..adjoint import any_mode, partitioned, wide
from .checks import check_floating, kind


class DropoutResiduals(NamedTuple):
    """What the backward pass keeps."""

    key_data: UInt32[Array, " k"]   # the mask is drawn from it


def dropout(key: Array, x: Array, rate: float) -> Array:
    """Y = M X, with M zero with probability `rate` and 1/(1 − rate) otherwise (Srivastava et al., 2014).

    Args:
        key: one key, from `jax.random.key` or, old style, from `jax.random.PRNGKey`. The same key gives the same mask:
            split it for every layer and step, and inside `shard_map` fold the device's index in.
        x: any shape, real or complex floating.
        rate: a number in [0, 1), static.

    Returns:
        Y, of x's shape and dtype; scaled in float32 or wider and rounded once. With rate 0, x itself.

    Raises:
        TypeError: key is no key, x no floating array, rate no number.
        ValueError: rate is outside [0, 1), key is an array of keys.

    Forward and backward pass, and forward mode, have the same mask. Residuals: the key, 8 bytes.

    >>> x, key = jnp.ones((2, 5)), jax.random.key(0)
    >>> dropout(key, x, 0.5).tolist()
    [[2.0, 2.0, 0.0, 0.0, 2.0], [0.0, 0.0, 2.0, 2.0, 0.0]]
    >>> bool((jax.grad(lambda x: dropout(key, x, 0.5).sum())(x) == dropout(key, x, 0.5)).all())
    True
    """
    check_floating("dropout", "x", "(...)", x)
    key = _checked_key(key)
    rate = _checked_rate(rate)
    x = jnp.asarray(x)
    return _dropout(jax.random.key_data(key), x, rate, jax.random.key_impl(key)) if rate else x


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("rate", "impl"))
def _dropout(key_data: Array, x: Array, rate: float, impl: Any) -> Array:
    return _masked(key_data, x, rate, impl)


def _dropout_fwd(
    key_data: UInt32[Array, " k"], x: Inexact[Array, "*n"], rate: float, impl: Any
) -> tuple[Array, DropoutResiduals]:
    return _masked(key_data, x, rate, impl), DropoutResiduals(key_data)


def _dropout_bwd(
    rate: float, impl: Any, residuals: DropoutResiduals, dY: Inexact[Array, "*n"]
) -> tuple[None, Array]:
    return None, _masked(residuals.key_data, dY, rate, impl)                 # (n,)


_dropout.defvjp(_dropout_fwd, _dropout_bwd)


def _masked(key_data: Array, x: Array, rate: float, impl: Any) -> Array:
    """M X."""

    def masked(key_data: Array, x: Array) -> Array:
        bits = jax.random.bits(jax.random.wrap_key_data(key_data, impl=impl), x.shape, np.uint32)
        scaled = x.astype(wide(x.dtype)) / (1 - rate)
        return jnp.where(bits >= _threshold(rate), scaled, jnp.zeros_like(scaled)).astype(x.dtype)

    return partitioned(masked, key_data, x, like=x)


def _threshold(rate: float) -> np.uint32:
    return np.uint32(min(round(rate * 2**32), 2**32 - 1))


def _checked_key(key: Any) -> Array:
    """One typed key."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    elif isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim:
        typed = jax.random.wrap_key_data(jnp.asarray(key))
    else:
        got = f"dtype {key.dtype} (shape {key.shape})" if isinstance(key, (jax.Array, np.ndarray)) else kind(key)
        raise TypeError(f"dropout: key must be a key, made by jax.random.key, got {got}")
    if typed.shape:
        raise ValueError(f"dropout: key must be one key, got an array of keys of shape {typed.shape}; split and vmap")
    return typed


def _checked_rate(rate: Any) -> float:
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)):
        raise TypeError(f"dropout: rate must be a number, got {kind(rate)}")
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be in [0, 1), got {rate}")
    return float(rate)
