"""Cross-entropy of logits: L = −Σ_v q log P with P = softmax(Z), row by row.

Axes: n rows (any number of axes), v classes. What a row's loss is, with smoothing and z-loss, and its slope

    dZ = dL ((Σ q' + 2 ζ lse) P − q'),    dq = dL (1 − ε) (lse − Z)

is derived in `loss_rows`. The reduction over rows is a sum with weights that need no rule: Σ_n of the rows that count,
or their mean.

Residuals: the logits, the labels, two statistics a row, and which rows count; P is recomputed from them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..adjoint import any_mode, wide
from .checks import check_array, kind
from .loss_rows import (
    Options,
    Statistics,
    classes,
    finished,
    is_index,
    over_devices,
    slopes,
    slopes_of_labels,
    sums,
    to_each_device,
)
from .normalization import check_real, kept, working_dtype
from .softmax import checked_mask

REDUCTIONS = "mean", "sum", "none"


class LossResiduals(NamedTuple):
    """What the backward pass keeps."""

    logits: Float[Array, "*n v"]   # P is recomputed from them
    labels: Array                  # class numbers [*n], or distributions [*n v]
    keep: Array | None             # [*n], the rows that count
    at: Statistics                 # two numbers a row


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    where: Array | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    ignore_label: int | None = None,
    axis_name: Any = None,
) -> Array:
    """L = lse − Z_y of every row, or −Σ q log P for distributions q; their mean, their sum, or all of them.

    Args:
        logits: Z `[..., v]`, real floating, not normalized.
        labels: integers y `[...]` from 0 to V − 1; or distributions q `[..., v]`, real floating, which need not add up
            to 1 and are differentiated too.
        where: boolean, broadcast to the rows `[...]`: True for the rows that count.
        label_smoothing: ε in [0, 1]: q becomes (1 − ε) q + ε/V.
        z_loss: ζ ≥ 0: every row's loss gets ζ lse² more, with lse = log Σ exp Z.
        reduction: "mean" over the rows that count (0 where there is none), "sum", or "none".
        ignore_label: rows with this label do not count; it may be out of range. For integer labels.
        axis_name: in `shard_map`, of the mesh axis over whose devices the classes are split, in order: logits (and
            distributions) hold this device's, integer labels count over all. Sum and mean go over this device's rows.

    Returns:
        A scalar, or `[...]` with reduction "none", in the logits' dtype; computed in float32 or wider.

        A row that does not count has loss 0 and gradient 0, whatever it holds. A row whose integer label is out of
        range (negative too) has loss NaN and gradient NaN. NaN and +∞ among the logits of a row that counts make it
        NaN. −∞ is a class of probability 0: loss +∞ where it is the label; in a product with a distribution it counts
        as the dtype's most negative number.

    Raises:
        TypeError: logits are not real floating, labels neither integer nor real floating, where not boolean.
        ValueError: shapes do not fit, or an option is out of its range.

    Residuals: logits, labels, the mask, and two statistics a row.

    >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    >>> [round(float(cross_entropy(logits, jnp.array([0, y]))), 3) for y in (2, 1)]
    [0.458, 1.498]
    >>> [round(dz, 3) for dz in jax.grad(cross_entropy)(logits, jnp.array([0, 2]))[0].tolist()]
    [-0.25, 0.125, 0.125]
    """
    check_real("cross_entropy", "logits", "(..., v)", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"cross_entropy: logits must have at least one class, got shape {logits.shape}")
    options = checked_options("cross_entropy", label_smoothing, z_loss, axis_name)
    labels = checked_labels("cross_entropy", labels, "logits", logits.shape[:-1], logits.shape[-1])
    keep = rows_kept("cross_entropy", labels, where, ignore_label, logits.shape[:-1])
    reduction = checked_reduction("cross_entropy", reduction)
    L = _cross_entropy(logits, labels, keep, options)
    if reduction != "none":
        L = jnp.sum(L) / (count(L, keep) if reduction == "mean" else 1)
    return L.astype(logits.dtype)


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("options",))
def _cross_entropy(logits: Array, labels: Array, keep: Array | None, options: Options) -> Array:
    return _cross_entropy_fwd(logits, labels, keep, options)[0]


def _cross_entropy_fwd(
    logits: Float[Array, "*n v"], labels: Array, keep: Array | None, options: Options
) -> tuple[Float[Array, "*n"], LossResiduals]:
    Z = logits.astype(_dtype(logits, labels))
    of = classes(Z.shape[-1], options)
    L, at = finished(over_devices(sums(Z, labels, of, options), options), labels, of.of_all, options)   # (n, v) -> (n,)
    return kept(L, keep), LossResiduals(logits, labels, keep, at)


def _cross_entropy_bwd(
    options: Options, residuals: LossResiduals, dL: Float[Array, "*n"]
) -> tuple[Array, Array | None, None]:
    logits, labels, keep, at = residuals
    Z = logits.astype(dL.dtype)
    of = classes(Z.shape[-1], options)
    dL = to_each_device(dL, logits, options)[..., None]                    # (n, 1)
    keep = None if keep is None else keep[..., None]
    dZ = kept(dL * slopes(Z, labels, at, of, options), keep)               # (n, v)
    dq = None if is_index(labels) else kept(dL * slopes_of_labels(Z, at, options), keep)    # (n, v)
    return dZ.astype(logits.dtype), dq, None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def _dtype(logits: Array, labels: Array) -> np.dtype:
    return wide(logits.dtype) if is_index(labels) else working_dtype(logits, labels)


# What both losses do with labels, masks and reductions

def rows_kept(layer: str, labels: Array, where: Any, ignore_label: Any, rows: tuple[int, ...]) -> Array | None:
    """Which rows count, `[*n]`; None for all."""
    keep = None if where is None else jnp.broadcast_to(checked_mask(layer, where, "the rows", rows), rows)
    if ignore_label is None:
        return keep
    if not hasattr(ignore_label, "__index__") or isinstance(ignore_label, bool):
        raise TypeError(f"{layer}: ignore_label must be an integer, got {kind(ignore_label)}")
    if not is_index(labels):
        raise ValueError(f"{layer}: ignore_label={ignore_label} is for integer labels, got dtype {labels.dtype}")
    other = labels.astype(jnp.int32) != int(ignore_label)
    return other if keep is None else keep & other


def checked_reduction(layer: str, reduction: Any) -> str:
    """One of the three."""
    if reduction not in REDUCTIONS:
        raise ValueError(f'{layer}: reduction must be "mean", "sum" or "none", got {reduction!r}')
    return str(reduction)


def count(rows: Any, keep: Array | None) -> Any:
    """The number of rows that count, at least 1."""
    if keep is None:
        return max(math.prod(rows.shape), 1)
    return jnp.maximum(jnp.sum(keep, dtype=rows.dtype), 1)


def checked_options(layer: str, label_smoothing: Any, z_loss: Any, axis_name: Any) -> Options:
    """The options, in their ranges."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{layer}: label_smoothing must be in [0, 1], got {label_smoothing}")
    if not 0 <= z_loss < math.inf:
        raise ValueError(f"{layer}: z_loss must be a number ≥ 0, got {z_loss}")
    if isinstance(axis_name, (tuple, list)):
        raise TypeError(f"{layer}: axis_name must be the name of one mesh axis, got {axis_name}")
    return Options(float(label_smoothing), float(z_loss), axis_name)


def checked_labels(layer: str, labels: Any, of: str, rows: tuple[int, ...], v: int) -> Array:
    """The labels, one integer or one distribution a row."""
    check_array(layer, "labels", "(...) or (..., v)", labels)
    index = is_index(labels)
    if not index and not jnp.issubdtype(labels.dtype, np.floating):
        raise TypeError(
            f"{layer}: labels must be integers or real floating, got dtype {labels.dtype} (shape {labels.shape})"
        )
    expected, what = (rows, "integer labels") if index else ((*rows, v), "distributions")
    if labels.shape != expected:
        raise ValueError(f"{layer}: {what} must have shape {expected} to fit {of}, got shape {labels.shape}")
    return jnp.asarray(labels)
