"""Cross-entropy of an affine map, L(X W + b, y), that never holds the logits.

Axes: n rows (any number of leading axes), d features, v classes.

With Z = X W + b and R = ∂L/∂Z, row by row (`loss_rows`), and dL the cotangent of L

    dZ = dL R,    dX = dZ Wᵀ,    dW = Xᵀ dZ,    db = Σ_n dZ,    dq = dL ∂L/∂q

Z, P and dZ are n × v, so they exist for a block of rows at a time, and if there are very many classes, for a span of
columns: the sums of a row are then merged from those of its spans. Blocks take every K-th row, which keeps rows that
are sharded over a mesh where they are.

Every loss alone ("none"): the backward pass knows dL only when the forward pass is over, and computes Z again.
Residuals are the operands and two statistics a row.

The sum or the mean: L is one number and its derivative one number times dX, dW, db at dL = 1. The forward pass, where
Z is at hand, computes these, if and only if they are asked for: three products instead of four. Residuals are they.

The blocks are rematerialised: derivatives of higher order do not hold n × v either.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..adjoint import any_mode
from .affine import AffineParams
from .checks import check_pair
from .loss import checked_labels, checked_options, checked_reduction, count, rows_kept
from .loss_blocks import Gradients, Operands, Sizes, block_dtype, forward, forward_and_back, pulled_back
from .loss_rows import Options, Statistics, is_index, to_each_device
from .normalization import check_real

BLOCK = 2**25                      # bytes of logits at a time
FEWEST_ROWS = 128                  # of a block; a product with fewer rows is slow


class EachResiduals(NamedTuple):
    """What the backward pass of every loss alone keeps."""

    at: Operands
    statistics: Statistics         # two numbers a row


def linear_cross_entropy(
    params: Any,
    x: Array,
    labels: Array,
    *,
    where: Array | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    ignore_label: int | None = None,
    axis_name: Any = None,
) -> Array:
    """`cross_entropy(affine(params, x), labels)` in memory that does not grow with rows times classes.

    Args:
        params: `AffineParams(W[d, v], b[v] | None)` or a plain tuple. Real floating.
        x: `[..., d]`, any number of leading axes. Real floating.
        labels, where, label_smoothing, z_loss, reduction, ignore_label: as in `cross_entropy`.
        axis_name: in `shard_map`, of the mesh axis over whose devices W, b (and distributions) are split by columns.

    Returns:
        As `cross_entropy`, in the promoted dtype of x and W. The logits are computed in float32 or wider and are not
        rounded.

    Raises:
        TypeError: an operand is not real floating, labels neither integer nor real floating, where not boolean.
        ValueError: shapes do not fit, or an option is out of its range.

    Residuals: for mean and sum the gradients of what is differentiated, in its own dtype (float32 for float16); for
    "none" the operands and two statistics a row. Gradients in the forward pass as in Liger Kernel (2024).

    >>> params = AffineParams(W=jnp.array([[2.0, 1.0, -1.0], [-1.0, 3.0, 0.5]]), b=None)
    >>> x, y = jnp.array([[1.0, 0.5], [-1.0, 1.0]]), jnp.array([0, 1])
    >>> round(float(linear_cross_entropy(params, x, y)), 3)
    0.91
    >>> [round(dw, 3) for dw in jax.grad(linear_cross_entropy)(params, x, y).W[0].tolist()]
    [-0.371, 0.546, -0.174]
    """
    layer = "linear_cross_entropy"
    checked = _checked_params(layer, params, x)
    options = checked_options(layer, label_smoothing, z_loss, axis_name)
    labels = checked_labels(layer, labels, "x and W", x.shape[:-1], checked.W.shape[1])
    keep = rows_kept(layer, labels, where, ignore_label, x.shape[:-1])
    at = Operands(checked, x, labels, keep)
    return in_blocks(at, options, checked_reduction(layer, reduction), _default_sizes(at))


def in_blocks(at: Operands, options: Options, reduction: str, sizes: Sizes) -> Array:
    """The loss with given sizes of blocks."""
    dtype = jnp.result_type(at.x, at.params.W)
    if reduction == "none":
        return _each(*at, options, sizes).astype(dtype)
    return _total(*at, options, reduction == "mean", sizes).astype(dtype)


# Every loss alone

@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("options", "sizes"))
def _each(
    params: AffineParams, x: Array, labels: Array, keep: Array | None, options: Options, sizes: Sizes
) -> Array:
    return forward(Operands(params, x, labels, keep), options, sizes)[0]


def _each_fwd(
    params: AffineParams, x: Float[Array, "*n d"], labels: Array, keep: Array | None, options: Options, sizes: Sizes
) -> tuple[Float[Array, "*n"], EachResiduals]:
    at = Operands(params, x, labels, keep)
    L, statistics = forward(at, options, sizes)
    return L, EachResiduals(at, statistics)


def _each_bwd(
    options: Options, sizes: Sizes, residuals: EachResiduals, dL: Float[Array, "*n"]
) -> tuple[Any, Array | None, Array | None, None]:
    at, statistics = residuals
    wanted = True, at.params.b is not None, True, not is_index(at.labels)
    dL = to_each_device(dL, at.params.W, options)
    dW, db, dX, dq = pulled_back(at, statistics, dL, options, sizes, wanted)
    return (dW, db), dX, dq, None


_each.defvjp(_each_fwd, _each_bwd)


# Their sum, or the mean

@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("options", "mean", "sizes"))
def _total(
    params: AffineParams, x: Array, labels: Array, keep: Array | None, options: Options, mean: bool, sizes: Sizes
) -> Array:
    L, _ = forward(Operands(params, x, labels, keep), options, sizes)
    return jnp.sum(L) / (count(L, keep) if mean else 1)


def _total_fwd(
    params: Any, x: Any, labels: Any, keep: Any, options: Options, mean: bool, sizes: Sizes
) -> tuple[Float[Array, ""], Gradients]:
    """The arguments say whether they are differentiated."""
    (W, b), (active_W, active_b) = _values_and_flags(params)
    (x, labels, keep), (active_x, active_q, _) = _values_and_flags((x, labels, keep))
    at = Operands(AffineParams(W, b), x, labels, keep)
    rows = jax.ShapeDtypeStruct(x.shape[:-1], block_dtype(at))
    weight = jnp.asarray(1 / count(rows, keep) if mean else 1, rows.dtype)
    L, gradients = forward_and_back(at, weight, options, sizes, (active_W, active_b, active_x, active_q))
    pairs = zip(gradients, (W, b, x, labels), strict=True)
    return jnp.sum(L) * weight, Gradients(*(None if t is None else _storable(t, like) for t, like in pairs))


def _total_bwd(
    options: Options, mean: bool, sizes: Sizes, residuals: Gradients, dL: Float[Array, ""]
) -> tuple[Any, Array | None, Array | None, None]:
    split = next(t for t in (residuals.dW, residuals.db, residuals.dX, residuals.dq) if t is not None)
    dL = to_each_device(dL, split, options)
    dW, db, dX, dq = (None if t is None else dL * t.astype(dL.dtype) for t in residuals)
    return (dW, db), dX, dq, None


_total.defvjp(_total_fwd, _total_bwd, symbolic_zeros=True)


def _values_and_flags(marked: Any) -> tuple[list[Any], list[bool]]:
    """Of a tuple of arguments that say whether they are differentiated; None is not."""
    values = [None if a is None else a.value for a in marked]
    return values, [a is not None and a.perturbed for a in marked]


def _storable(gradient: Array, like: Array) -> Array:
    """In its operand's dtype, but float32 for float16: a mean over many rows, not yet scaled, leaves its range."""
    return gradient if like.dtype == jnp.float16 else gradient.astype(like.dtype)


def _default_sizes(at: Operands) -> Sizes:
    """As many rows as fill a block; all columns, if that leaves enough rows."""
    v, itemsize = at.params.W.shape[1], block_dtype(at).itemsize
    columns = min(v, BLOCK // (FEWEST_ROWS * itemsize))
    return Sizes(max(FEWEST_ROWS, BLOCK // (max(columns, 1) * itemsize)), columns)


def _checked_params(layer: str, params: Any, x: Any) -> AffineParams:
    """The parameters, once they fit x."""
    W, b = check_pair(layer, params, ("W", "b"), "AffineParams")
    check_real(layer, "W", "(d, v)", W)
    check_real(layer, "x", "(..., d)", x)
    if W.ndim != 2 or W.shape[1] == 0:
        raise ValueError(f"{layer}: W must have the axes (d, v) and at least one class, got shape {W.shape}")
    if x.ndim == 0 or x.shape[-1] != W.shape[0]:
        d = f"d={x.shape[-1]} features" if x.ndim else "no axis"
        raise ValueError(f"{layer}: x has {d} (shape {x.shape}) but W expects d={W.shape[0]} (shape {W.shape})")
    if b is not None:
        check_real(layer, "b", "(v,)", b)
        if b.shape != W.shape[1:]:
            expected = f"(v,) = {W.shape[1:]} to fit W (shape {W.shape})"
            raise ValueError(f"{layer}: b must have shape {expected}, got shape {b.shape}")
    return AffineParams(W, b)
