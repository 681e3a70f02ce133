"""Softmax and its logarithm along an axis.

Axes: any number of rows, v entries of a row. A mask takes entries out of a row: they count as −∞.

    m = max_v X,    e = exp(X − m),    s = Σ_v e,    P = e / s,    log P = (X − m) − log s

m is any number, it cancels: it has no derivative. A change δX moves P by δP = P (δX − Σ P δX) and log P by
δX − Σ P δX, of which the first is a symmetric map of δX:

    ⟨δP, dP⟩ = ⟨δX, P (dP − Σ P dP)⟩            so  dX = P (dP − Σ_v P dP)
    ⟨δX − 1 Pᵀ δX, dY⟩ = ⟨δX, dY − P Σ dY⟩      so  dX = dY − P Σ_v dY            (Y = log P)

The first needs the result alone. Rounded to half precision, P adds up to Σ P ≠ 1, and the rule would no longer see that
a constant added to X changes nothing; P/Σ P is the softmax of slightly different X, so what is computed is exact there:

    dX = P (dP − Σ P dP / Σ P)

For the second log P is rounded too much: an error of one rounding in it is |log P| roundings of P.

Residuals: of softmax the result, of log_softmax X, m and log s; and the mask where given.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import any_mode, wide
from .checks import check_array, kind
from .normalization import check_real, kept

Axes = tuple[int, ...]


class SoftmaxResiduals(NamedTuple):
    """What the backward pass keeps."""

    Y: Float[Array, "*n v"]        # the result
    where: Array | None            # of the rank of Y


class LogSoftmaxResiduals(NamedTuple):
    """What the backward pass keeps; from the rounded Y, P of small probability would be wrong by |log P| roundings."""

    x: Float[Array, "*n v"]        # P is recomputed from it
    where: Array | None            # of the rank of x
    top: Float[Array, "*n 1"]      # m, 0 where all is −∞
    log_sum: Float[Array, "*n 1"]  # log s


def softmax(x: Array, *, axis: Any = -1, where: Array | None = None) -> Array:
    """P = exp(X) / Σ exp(X) along an axis.

    Args:
        x: array of any rank but 0. Real floating.
        axis: an axis of x, or a tuple of axes that together are one row.
        where: boolean, broadcast to x: True for the entries that take part. Values under False are never read.

    Returns:
        P, of x's shape and dtype, computed in float32 or wider; zero where masked. A row of nothing but masked entries,
        or of nothing but −∞, is zero, and so is its gradient. NaN and +∞ make their whole row NaN.

    Raises:
        TypeError: x is no real floating array, axis no integer, where not boolean.
        ValueError: x has no such axis, where does not broadcast to x.

    Residuals: P, and the mask where given.

    >>> x = jnp.log(jnp.array([[1.0, 3.0, 4.0]]))
    >>> [round(p, 3) for p in softmax(x)[0].tolist()]
    [0.125, 0.375, 0.5]
    >>> [round(p, 3) for p in softmax(x, where=jnp.array([True, True, False]))[0].tolist()]
    [0.25, 0.75, 0.0]
    """
    return _softmax(*_checked("softmax", x, axis, where))


def log_softmax(x: Array, *, axis: Any = -1, where: Array | None = None) -> Array:
    """Y = X − log Σ exp(X) along an axis: the logarithm of `softmax`, precise where that underflows.

    Args:
        x, axis, where: as in `softmax`.

    Returns:
        Y, of x's shape and dtype, computed in float32 or wider; −∞ = log 0 where masked, with gradient 0. A row of
        nothing but −∞ is −∞. NaN and +∞ make their whole row NaN, but for what is masked.

    Raises:
        TypeError, ValueError: as `softmax`.

    Residuals: x, two statistics a row, and the mask where given.

    >>> x = jnp.array([0.0, 1000.0])
    >>> log_softmax(x).tolist(), jnp.log(softmax(x)).tolist()
    ([-1000.0, 0.0], [-inf, 0.0])
    """
    return _log_softmax(*_checked("log_softmax", x, axis, where))


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("axis",))
def _softmax(x: Array, where: Array | None, axis: Axes) -> Array:
    return _softmax_fwd(x, where, axis)[0]


def _softmax_fwd(x: Float[Array, "*n v"], where: Array | None, axis: Axes) -> tuple[Array, SoftmaxResiduals]:
    X = masked(x.astype(wide(x.dtype)), where)
    e = jnp.exp(X - top_of(X, axis))                                # (n, v)
    P = (e / nonzero(_total(e, axis))).astype(x.dtype)              # (n, v)
    return P, SoftmaxResiduals(P, where)


def _softmax_bwd(axis: Axes, residuals: SoftmaxResiduals, dP: Float[Array, "*n v"]) -> tuple[Array, None]:
    P = residuals.Y.astype(wide(dP.dtype))
    dP = kept(dP.astype(P.dtype), residuals.where)
    mean = _total(P * dP, axis) / nonzero(_total(P, axis))          # (n, v) -> (n, 1)
    dX = kept(P * (dP - mean), residuals.where)                     # (n, v)
    return dX.astype(residuals.Y.dtype), None


_softmax.defvjp(_softmax_fwd, _softmax_bwd)


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("axis",))
def _log_softmax(x: Array, where: Array | None, axis: Axes) -> Array:
    return _log_softmax_fwd(x, where, axis)[0]


def _log_softmax_fwd(x: Float[Array, "*n v"], where: Array | None, axis: Axes) -> tuple[Array, LogSoftmaxResiduals]:
    X = masked(x.astype(wide(x.dtype)), where)
    m = top_of(X, axis)                                             # (n, v) -> (n, 1)
    log_s = jnp.log(nonzero(_total(jnp.exp(X - m), axis)))          # (n, v) -> (n, 1)
    Y = masked((X - m) - log_s, where).astype(x.dtype)              # (n, v)
    return Y, LogSoftmaxResiduals(x, where, m, log_s)


def _log_softmax_bwd(axis: Axes, residuals: LogSoftmaxResiduals, dY: Float[Array, "*n v"]) -> tuple[Array, None]:
    x, where, m, log_s = residuals
    P = jnp.exp((masked(x.astype(m.dtype), where) - m) - log_s)     # (n, v)
    dY = kept(dY.astype(P.dtype), where)
    dX = kept(dY - P * _total(dY, axis), where)                     # (n, v)
    return dX.astype(x.dtype), None


_log_softmax.defvjp(_log_softmax_fwd, _log_softmax_bwd)


def masked(x: Array, where: Array | None) -> Array:
    """The same, and −∞ where masked."""
    return x if where is None else jnp.where(where, x, -jnp.inf)


def top_of(x: Array, axis: Any) -> Array:
    """m: the maximum along an axis that stays, without derivative; 0 where all is −∞, so that X − m is not NaN."""
    m = lax.stop_gradient(jnp.max(x, axis, keepdims=True, initial=-jnp.inf))
    return jnp.where(m == -jnp.inf, 0, m)


def nonzero(total: Array) -> Array:
    """The same, and 1 for 0: the sum of a row of which nothing is left."""
    return jnp.where(total == 0, 1, total)


def _total(x: Array, axis: Axes) -> Array:
    return jnp.sum(x, axis, keepdims=True)


def _checked(layer: str, x: Any, axis: Any, where: Any) -> tuple[Array, Array | None, Axes]:
    """x, the mask with its rank, and the axes counted from the front."""
    check_real(layer, "x", "(..., v)", x)
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    for a in axes:
        if not hasattr(a, "__index__") or isinstance(a, bool):
            raise TypeError(f"{layer}: axis must be an integer or a tuple of them, got {kind(a)}")
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"{layer}: x has no axis {a} (shape {x.shape})")
    if len({a % x.ndim for a in axes}) != len(axes) or not axes:
        raise ValueError(f"{layer}: axis must name at least one axis and none twice, got {axis}")
    return x, None if where is None else checked_mask(layer, where, "x", x.shape), tuple(int(a) % x.ndim for a in axes)


def checked_mask(layer: str, where: Any, of: str, shape: tuple[int, ...]) -> Array:
    """The mask with as many axes as `shape`, to which it broadcasts; `of` says whose that is."""
    check_array(layer, "where", "(...)", where)
    if where.dtype != bool:
        raise TypeError(f"{layer}: where must be boolean, got dtype {where.dtype} (shape {where.shape})")
    pairs = zip(where.shape[::-1], shape[::-1], strict=False)
    if where.ndim > len(shape) or any(a not in (1, b) for a, b in pairs):
        raise ValueError(f"{layer}: where must broadcast to {of} (shape {shape}), got shape {where.shape}")
    return jnp.asarray(where).reshape(*[1] * (len(shape) - where.ndim), *where.shape)
