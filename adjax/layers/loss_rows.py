"""The cross-entropy of one row of logits, and its slope: what the losses of this package share.

Axes: n rows (any number of axes), v classes. Z are logits, q a distribution over the classes: that of an integer label
y is 1 at v = y and 0 elsewhere. With label smoothing ε, V classes and the weight ζ of the z-loss,

    q' = (1 − ε) q + ε/V,    lse = log Σ_v exp Z,    L = −Σ_v q' log P + ζ lse² = lse Σ q' − Σ q' Z + ζ lse²

∂lse/∂Z = P, so with dL the cotangent of L

    dZ = dL ((Σ q' + 2 ζ lse) P − q'),    dq = dL (1 − ε) (lse − Z)

The maximum m is taken out of everything, lse = m + ℓ with ℓ = log Σ exp(Z − m): two small statistics a row, from which
P = exp(Z − m − ℓ) is recomputed. dZ is computed in float32 or wider and rounded last: of a class with P ≈ 1 in half
precision nothing would be left if P were rounded before q' is subtracted.

Classes may be split over the devices of a mesh axis, in order: maximum and sums then go over the devices too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import layout_of, partitioned
from ..adjoint.cotangent import type_of, varying
from .normalization import kept
from .softmax import nonzero, top_of


class Options(NamedTuple):
    """What a loss is besides its operands."""

    smoothing: float               # ε
    z_loss: float                  # ζ
    axis_name: Any                 # the mesh axis over whose devices the classes are split, or None


class Statistics(NamedTuple):
    """Of every row."""

    top: Float[Array, "*n"]        # m
    log_sum: Float[Array, "*n"]    # ℓ


def statistics(Z: Float[Array, "*n v"], options: Options) -> Statistics:
    """m and ℓ. Where all logits are −∞, both are 0."""
    top = _highest(top_of(Z, -1), options)                             # (n, v) -> (n, 1)
    total = over_devices(jnp.sum(jnp.exp(Z - top), -1), options)       # (n, v) -> (n,)
    return Statistics(top[..., 0], jnp.log(nonzero(total)))


def losses(Z: Float[Array, "*n v"], labels: Array, at: Statistics, options: Options) -> Float[Array, "*n"]:
    """L of every row; NaN where an integer label is out of range."""
    total, target = _total_of(labels, Z.dtype, options), _at_target(Z, labels, at.top, options)
    if options.smoothing:
        mean = over_devices(jnp.sum(Z - at.top[..., None], -1), options) / classes(Z, options)
        target = (1 - options.smoothing) * target + options.smoothing * mean
    L = total * at.log_sum - target
    if options.z_loss:
        L = L + options.z_loss * jnp.square(at.top + at.log_sum)
    return L * _valid(labels, Z, options)


def slopes(Z: Float[Array, "*n v"], labels: Array, at: Statistics, options: Options) -> Float[Array, "*n v"]:
    """∂L/∂Z = (Σ q' + 2 ζ lse) P − q'; NaN where an integer label is out of range."""
    factor = _total_of(labels, Z.dtype, options) * _valid(labels, Z, options)
    if options.z_loss:
        factor = factor + 2 * options.z_loss * (at.top + at.log_sum)
    P = jnp.exp((Z - at.top[..., None]) - at.log_sum[..., None])
    return P * jnp.expand_dims(factor, -1) - _smoothed(labels, Z, options)


def slopes_of_labels(Z: Float[Array, "*n v"], at: Statistics, options: Options) -> Float[Array, "*n v"]:
    """∂L/∂q = (1 − ε) (lse − Z)."""
    return (1 - options.smoothing) * (at.log_sum[..., None] - (_finite(Z) - at.top[..., None]))


def is_index(labels: Any) -> bool:
    """Whether labels are class numbers, not distributions."""
    return labels.dtype.kind in "iu"


def classes(Z: Array, options: Options) -> int:
    """V, on all devices."""
    return Z.shape[-1] * (1 if options.axis_name is None else lax.axis_size(options.axis_name))


def over_devices(total: Array, options: Options) -> Array:
    """The sum over the devices that share the classes."""
    return total if options.axis_name is None else lax.psum(total, options.axis_name)


def to_each_device(dL: Array, split: Any, options: Options) -> Array:
    """The adjoint of `over_devices`: the sum of what all devices say of the loss, which is one and the same on all.

    Where the types know that (`check_vma`, then what is `split` over the devices varies), its cotangent is that sum.
    """
    known = options.axis_name in varying(type_of(split))
    return dL if options.axis_name is None or known else lax.psum(dL, options.axis_name)


def _highest(top: Array, options: Options) -> Array:
    return top if options.axis_name is None else lax.pmax(top, options.axis_name)


def _total_of(labels: Array, dtype: Any, options: Options) -> Any:
    """Σ q' of every row: 1 for class numbers."""
    if is_index(labels):
        return np.ones((), dtype)
    total = over_devices(jnp.sum(labels.astype(dtype), -1), options)
    return (1 - options.smoothing) * total + options.smoothing


def _at_target(Z: Array, labels: Array, top: Array, options: Options) -> Array:
    """Σ q (Z − m)."""
    if not is_index(labels):
        products = labels.astype(Z.dtype) * (_finite(Z) - top[..., None])
        return over_devices(jnp.sum(products, -1), options)            # (n, v) -> (n,)
    own = _own(labels, Z, options)
    nearest = jnp.clip(own, 0, Z.shape[-1] - 1)
    pick = lambda Z, y: jnp.take_along_axis(Z, y[..., None], -1)[..., 0]
    target = partitioned(pick, Z, nearest, axes=layout_of(Z)[:-1]) - top
    return over_devices(kept(target, own == nearest), options)


def _smoothed(labels: Array, Z: Array, options: Options) -> Array:
    """q'."""
    low = options.smoothing / classes(Z, options)
    if is_index(labels):
        hit = lax.broadcasted_iota(jnp.int32, Z.shape, Z.ndim - 1) == _own(labels, Z, options)[..., None]
        return jnp.where(hit, 1 - options.smoothing + low, low).astype(Z.dtype)
    return (1 - options.smoothing) * labels.astype(Z.dtype) + low


def _own(labels: Array, Z: Array, options: Options) -> Array:
    """Class numbers among those of this device."""
    y = labels.astype(jnp.int32)
    return y if options.axis_name is None else y - Z.shape[-1] * lax.axis_index(options.axis_name)


def _valid(labels: Array, Z: Array, options: Options) -> Any:
    """1, and NaN where a class number is out of range."""
    if not is_index(labels):
        return np.ones((), Z.dtype)
    y = labels.astype(jnp.int32)
    return jnp.where((y >= 0) & (y < classes(Z, options)), 1, jnp.nan).astype(Z.dtype)


def _finite(Z: Array) -> Array:
    """Against a distribution −∞ counts as the most negative number: 0 · −∞ would be NaN."""
    return jnp.maximum(Z, jnp.finfo(Z.dtype).min)
