"""The cross-entropy of one row of logits, and its slope: what the losses of this package share.

Axes: n rows (any number of axes), v classes. Z are logits, q a distribution over the classes: that of an integer label
y is 1 at v = y and 0 elsewhere. With label smoothing ε, V classes and the weight ζ of the z-loss,

    q' = (1 − ε) q + ε/V,    lse = log Σ_v exp Z,    L = −Σ_v q' log P + ζ lse² = lse Σ q' − Σ q' Z + ζ lse²

∂lse/∂Z = P, so with dL the cotangent of L

    dZ = dL ((Σ q' + 2 ζ lse) P − q'),    dq = dL (1 − ε) (lse − Z)

The maximum m is taken out of everything, lse = m + log s with s = Σ exp(Z − m): two small statistics a row, from which
P = exp(Z − m)/s is recomputed, or, where one program has both passes, shared with the sum s. dZ is computed in float32
or wider and rounded last: of a class with P ≈ 1 in half precision nothing would be left if P were rounded before q' is
subtracted.

The classes may come in parts, one after the other or one a device of a mesh axis, in order. A part has the sums

    m,    s = Σ exp(Z − m),    t = Σ q' (Z − m),    w = Σ q'

and two parts merge to m' = max of both, s' = Σ s exp(m − m'), t' = Σ t + w (m − m'), w' = Σ w. Of the whole row

    L = w log s − t + ζ (m + log s)²
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import layout_of, partitioned
from ..adjoint.cotangent import type_of, varying
from .normalization import along, kept
from .softmax import nonzero


class Options(NamedTuple):
    """What a loss is besides its operands."""

    smoothing: float               # ε
    z_loss: float                  # ζ
    axis_name: Any                 # the mesh axis over whose devices the classes are split, or None


class Classes(NamedTuple):
    """Which classes the columns of Z are."""

    first: Any                     # the number of column 0
    of_all: int                    # V, of all columns everywhere


class Sums(NamedTuple):
    """Of a part of every row."""

    top: Float[Array, "*n"]        # m, −∞ where all logits are
    total: Float[Array, "*n"]      # s
    target: Float[Array, "*n"]     # t
    weight: Float[Array, "*n"]     # w


class Statistics(NamedTuple):
    """Of every row, as a whole."""

    top: Float[Array, "*n"]            # m, 0 where all logits are −∞
    total: Float[Array, "*n"]          # s, 1 there
    weight: Float[Array, "*n"] | None  # Σ q'; None for class numbers, of which it is 1


def is_index(labels: Any) -> bool:
    """Whether labels are class numbers, not distributions."""
    return labels.dtype.kind in "iu"


def classes(v: int, options: Options, start: int = 0) -> Classes:
    """The classes from `start` on of this device, which has v of them."""
    if options.axis_name is None:
        return Classes(start, v)
    return Classes(v * lax.axis_index(options.axis_name) + start, v * lax.axis_size(options.axis_name))


def sums(Z: Float[Array, "*n v"], labels: Array, of: Classes, options: Options) -> Sums:
    """Those of some columns; distributions are given for the same columns, class numbers as they are."""
    top = lax.stop_gradient(jnp.max(Z, -1))                            # (n, v) -> (n,)
    m, ε = _safe(top)[..., None], options.smoothing
    total = jnp.sum(jnp.exp(Z - m), -1)                                # (n, v) -> (n,)
    if is_index(labels):
        target, weight = _of_index(Z, m, labels, of)
    else:
        q = labels.astype(Z.dtype)
        target, weight = jnp.sum(q * (_finite(Z) - m), -1), jnp.sum(q, -1)
    if ε:
        target = (1 - ε) * target + ε / of.of_all * jnp.sum(Z - m, -1)
        weight = (1 - ε) * weight + ε * Z.shape[-1] / of.of_all
    return Sums(top, total, target, weight)


def merged(a: Sums, b: Sums) -> Sums:
    """Those of two parts of every row."""
    top = jnp.maximum(a.top, b.top)
    _, *of_a = _relative_to(top, a)
    _, *of_b = _relative_to(top, b)
    return Sums(top, *(x + y for x, y in zip(of_a, of_b, strict=True)))


def over_devices(part: Sums, options: Options) -> Sums:
    """Those of the parts of all devices."""
    if options.axis_name is None:
        return part
    top = lax.pmax(part.top, options.axis_name)
    _, *rest = _relative_to(top, part)
    return Sums(top, *(lax.psum(x, options.axis_name) for x in rest))


def finished(whole: Sums, labels: Array, count: int, options: Options) -> tuple[Float[Array, "*n"], Statistics]:
    """L of every row, NaN where a class number is out of range, and the statistics to differentiate it."""
    index = is_index(labels)
    at = Statistics(_safe(whole.top), nonzero(whole.total), None if index else whole.weight)
    log_sum = _log_sum(at)
    L = (log_sum if index else whole.weight * log_sum) - whole.target
    if options.z_loss:
        L = L + options.z_loss * jnp.square(at.top + log_sum)
    return L * _valid(labels, count, L.dtype), at


def slopes(
    Z: Float[Array, "*n v"], labels: Array, at: Statistics, of: Classes, options: Options
) -> Float[Array, "*n v"]:
    """∂L/∂Z = (Σ q' + 2 ζ lse) P − q' at some columns; NaN where a class number is out of range."""
    factor = _valid(labels, of.of_all, Z.dtype) if at.weight is None else at.weight
    if options.z_loss:
        factor = factor + 2 * options.z_loss * (at.top + _log_sum(at))
    exp = jnp.exp(Z - at.top[..., None])                               # (n, v): s P
    if is_index(labels):
        number = along(jnp.arange(Z.shape[-1], dtype=jnp.int32), Z)    # (1, v)
        q = (number == _own(labels, of)[..., None]).astype(Z.dtype)    # (n, v)
    else:
        q = labels.astype(Z.dtype)                                     # (n, v)
    if options.smoothing:
        q = (1 - options.smoothing) * q + options.smoothing / of.of_all
    return exp * (factor / nonzero(at.total))[..., None] - q


def slopes_of_labels(Z: Float[Array, "*n v"], at: Statistics, options: Options) -> Float[Array, "*n v"]:
    """∂L/∂q = (1 − ε) (lse − Z)."""
    return (1 - options.smoothing) * (_log_sum(at)[..., None] - (_finite(Z) - at.top[..., None]))


def to_each_device(dL: Array, split: Any, options: Options) -> Array:
    """The adjoint of `over_devices`: the sum of what all devices say of the loss, which is one and the same on all.

    Where the types know that (`check_vma`, then what is `split` over the devices varies), its cotangent is that sum.
    """
    known = options.axis_name in varying(type_of(split))
    return dL if options.axis_name is None or known else lax.psum(dL, options.axis_name)


def _relative_to(top: Array, part: Sums) -> Sums:
    """The sums of a part, with another maximum taken out."""
    m = _safe(top)
    target = part.target + part.weight * (_safe(part.top) - m)
    return Sums(top, part.total * jnp.exp(part.top - m), target, part.weight)


def _log_sum(at: Statistics) -> Array:
    """log s, 0 in a row of padding, whose s is 0."""
    return jnp.log(nonzero(at.total))


def _safe(top: Array) -> Array:
    return jnp.where(top == -jnp.inf, 0, top)


def _of_index(Z: Array, m: Array, labels: Array, of: Classes) -> tuple[Array, Array]:
    """Z_y − m and 1 where class y is among the columns, else 0 and 0."""
    own = _own(labels, of)
    nearest = jnp.clip(own, 0, Z.shape[-1] - 1)
    pick = lambda Z, y: jnp.take_along_axis(Z, y[..., None], -1)[..., 0]
    target = partitioned(pick, Z, nearest, axes=layout_of(Z)[:-1]) - m[..., 0]
    return kept(target, own == nearest), (own == nearest).astype(Z.dtype)


def _own(labels: Array, of: Classes) -> Array:
    """Class numbers, counted from the first column."""
    return labels.astype(jnp.int32) - of.first


def _valid(labels: Array, count: int, dtype: Any) -> Any:
    """1, and NaN where a class number is out of range."""
    if not is_index(labels):
        return np.ones((), dtype)
    y = labels.astype(jnp.int32)
    return jnp.where((y >= 0) & (y < count), 1, jnp.nan).astype(dtype)


def _finite(Z: Array) -> Array:
    """Against a distribution −∞ counts as the most negative number: 0 · −∞ would be NaN."""
    return jnp.maximum(Z, jnp.finfo(Z.dtype).min)
