"""Batch normalization: each channel is normalized over the whole batch.

Axes: n entries of a channel (all axes but the last), c channels.

    Π X = the mean over the n entries, on all devices of the axis `axis_name`; over those that `where` keeps

The sum over devices is a psum, so Π X = psum(Σₙ X)/N with N = psum(n). Each device has its own X and its own loss, and
all losses are added up: Π, as a map of all X together, is its own transpose, and so the psum comes back in the adjoint.
The rest is in `normalization`: with A = Σₙ dY and C = Σₙ dY (X − μ), both [c],

    dX = k (dY − psum(A)/N − (X − μ) r² psum(C)/N),    k = scale r,    dscale = r C,    dbias = A

where A and C without a psum are those of this device: that the parameters are replicated is known outside, and so is
the sum of their cotangents. The statistics are results too, from which the new state is made: their cotangents dμ and
dσ² add (dμ + 2 (X − μ) dσ²)/N to dX. A mask M multiplies X − μ and dY; where it is 0, so are Y and dX.

With given statistics (`train=False`) Y is affine in X, and they are variables of their own:

    dX = k dY,    dmean = −k A,    dvar = −½ k r² C

Residuals: X, scale, and μ and r (or the variance) of every channel, c numbers each; the mask and N where given.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import Like, any_mode, like
from ..adjoint.cotangent import varying
from .normalization import (
    NormParams,
    along,
    centred,
    check_channels,
    fresh,
    kept,
    mean_of,
    normalized,
    pulled_back,
    working_dtype,
)
from .normalization_state import BatchState, checked_mask, checked_state


class BatchResiduals(NamedTuple):
    """What the backward pass keeps."""

    scale: Array | None             # dX needs it
    bias: Like | None               # no values: whether there is one
    x: Float[Array, "*n c"]         # X − μ is recomputed from it
    mean: Float[Array, "*ones c"]
    r: Float[Array, "*ones c"]
    where: Array | None             # of the rank of x
    N: Any                          # entries of a statistic: a number, or [*ones 1 or c] with a mask


def batch_norm(
    params: Any,
    x: Array,
    state: Any,
    *,
    train: bool,
    momentum: float = 0.9,
    eps: float = 1e-5,
    axis_name: Any = None,
    where: Array | None = None,
) -> tuple[Array, BatchState]:
    """Y = scale (X − μ)/√(σ² + ε) + bias, with the mean and variance of each channel over the batch, or the given ones.

    Args:
        params: `NormParams(scale[c] | None, bias[c] | None)` or a plain tuple. Real floating.
        x: `[..., c]`, any number of leading axes, all of which are averaged over. Real floating.
        state: `BatchState(mean[c], var[c])` or a plain tuple: running statistics, float32 or wider.
        train: whether to use the batch's statistics and update the state, or to use the state's.
        momentum: in [0, 1], of the old state.
        eps: ε > 0.
        axis_name: of a mesh axis in `shard_map` or of a `vmap`, or a tuple of them: the batch is that of all its
            devices together.
        where: boolean, True for the entries that take part: of the rank of x and broadcast to x, or of a lower rank and
            broadcast to `x.shape[:-1]`. What is False has no part in anything: Y is zero there and so is dX.

    Returns:
        Y, of x's shape and dtype, and the state. In training it is momentum · old + (1 − momentum) · batch, of the
        old one's dtype, with the biased variance, as in flax; PyTorch's running variance is the unbiased one, N/(N − 1)
        times as large, and its momentum is that of the new value. Otherwise the state is returned as it is. All is
        differentiable, the new state too, as in plain JAX: where it is not part of the loss (`has_aux=True`) it costs
        nothing. Statistics, and all that lies between, are float32, or wider where an operand is.

        Where a channel has one entry, σ² = 0 and Y = bias. Where it has none (an empty batch, a mask that is all
        False), its state stays as it is.

    Raises:
        TypeError: an argument is no real floating array, params or state is no pair, state is in half precision, where
            is not boolean.
        ValueError: scale, bias or state is no `[c]`, where does not broadcast, eps ≤ 0, momentum is not in [0, 1].

    Residuals: x, scale, and the mean and 1/√(σ² + ε) of each channel; where.

    >>> x = jnp.array([[1.0, -2.0], [3.0, 2.0]], jnp.float32)
    >>> y, state = batch_norm(NormParams.init(2), x, BatchState.init(2), train=True, momentum=0.5)
    >>> [[round(v, 2) for v in row] for row in y.tolist()]
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> state.mean.tolist(), state.var.tolist()
    ([1.0, 0.0], [1.0, 2.5])
    """
    checked = check_channels("batch_norm", params, x, eps)
    state = checked_state(state, x)
    mask = None if where is None else checked_mask(where, x)
    if not 0 <= momentum <= 1:
        raise ValueError(f"batch_norm: momentum must be in [0, 1], got {momentum}")
    if not train:
        return _with_given(checked, x, state, mask, float(eps)), state
    axis_name = tuple(axis_name) if isinstance(axis_name, list) else axis_name
    y, mean, var = _with_its_own(checked, x, mask, float(eps), axis_name)
    N = _entries(x, mask, axis_name, mean.dtype)

    def update(old: Array, new: Array) -> Array:
        new = momentum * old + (1 - momentum) * new.astype(old.dtype)
        return jnp.where(N.ravel() > 0, new, old) if isinstance(N, Array) else new if N else old

    return y, BatchState(*map(update, state, (mean, var)))


# With the statistics of the batch

@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("eps", "axis_name"))
def _with_its_own(
    params: NormParams, x: Array, where: Array | None, eps: float, axis_name: Any
) -> tuple[Array, Array, Array]:
    return _with_its_own_fwd(params, x, where, eps, axis_name)[0]


def _with_its_own_fwd(
    params: NormParams, x: Float[Array, "*n c"], where: Array | None, eps: float, axis_name: Any
) -> tuple[tuple[Array, Array, Array], BatchResiduals]:
    dtype = working_dtype(x, *params)
    N = _at_least_one(_entries(x, where, axis_name, dtype))
    average = partial(_average, N=N, axis_name=axis_name)
    mean = mean_of(x.astype(dtype), average, lambda m: m, where)                   # (n, c) -> (1, c)
    var = average(jnp.square(centred(x, fresh(mean)[0], where)))                   # (n, c) -> (1, c)
    r = lax.rsqrt(var + eps)
    y = normalized(x, mean, r, params, where)                                      # (n, c)
    return (y, mean.ravel(), var.ravel()), BatchResiduals(
        params.scale, like(params.bias), x, mean, r, where, N
    )


def _with_its_own_bwd(
    eps: float, axis_name: Any, residuals: BatchResiduals, cotangents: tuple[Float[Array, "*n c"], Array, Array]
) -> tuple[NormParams, Array, None]:
    scale, bias, x, mean, r, where, N = residuals
    dY, dmean, dvar = cotangents
    dmean, dvar = (_to_each_device(along(d, x), x, axis_name) for d in (dmean, dvar))
    k = r if scale is None else r * along(scale.astype(r.dtype), x)
    A, C = _sums(x, dY, mean, r, where)                                            # (n, c) -> (1, c)
    p = (r * r * k * _over_devices(C, axis_name) - 2 * dvar) / N                   # (1, c)
    q = (k * _over_devices(A, axis_name) - dmean) / N                              # (1, c)
    dX = pulled_back(x, dY, mean, (k, p, q), where)                                # (n, c)
    return _of_params(scale, bias, r, A, C), dX, None


_with_its_own.defvjp(_with_its_own_fwd, _with_its_own_bwd)


# With given statistics

@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("eps",))
def _with_given(params: NormParams, x: Array, state: BatchState, where: Array | None, eps: float) -> Array:
    return _with_given_fwd(params, x, state, where, eps)[0]


def _with_given_fwd(
    params: NormParams, x: Float[Array, "*n c"], state: BatchState, where: Array | None, eps: float
) -> tuple[Array, tuple[Array | None, Like | None, Array, BatchState, Array | None]]:
    mean, r = _given(state, x, params, eps)
    return normalized(x, mean, r, params, where), (params.scale, like(params.bias), x, state, where)


def _with_given_bwd(
    eps: float, residuals: Any, dY: Float[Array, "*n c"]
) -> tuple[NormParams, Array, BatchState, None]:
    scale, bias, x, state, where = residuals
    mean, r = _given(state, x, NormParams(scale, None), eps)
    k = r if scale is None else r * along(scale.astype(r.dtype), x)
    A, C = _sums(x, dY, mean, r, where)                                            # (n, c) -> (1, c)
    dmean = (-k * A).ravel()                                                       # (1, c) -> (c,)
    dvar = (-k * r * r * C / 2).ravel()                                            # (1, c) -> (c,)
    dX = kept(dY.astype(k.dtype) * k, where).astype(x.dtype)                       # (n, c)
    return _of_params(scale, bias, r, A, C), dX, BatchState(dmean, dvar), None


_with_given.defvjp(_with_given_fwd, _with_given_bwd)


def _given(state: BatchState, x: Array, params: NormParams, eps: float) -> tuple[Array, Array]:
    """μ and r, (1, c)."""
    dtype = working_dtype(x, *params, *state)
    mean, var = (along(s.astype(dtype), x) for s in state)
    return mean, lax.rsqrt(var + eps)


# Sums over the batch

def _sums(x: Array, dY: Array, mean: Array, r: Array, where: Array | None) -> tuple[Array, Array]:
    """A = Σ dY and C = Σ dY (X − μ), (1, c), of this device."""
    dY = kept(dY.astype(mean.dtype), where)
    mean, _ = fresh(mean, r)
    return _total(dY), _total(dY * centred(x, mean, where))


def _of_params(scale: Array | None, bias: Like | None, r: Array, A: Array, C: Array) -> NormParams:
    """dscale = r C and dbias = A, (1, c) -> (c,)."""
    return NormParams(None if scale is None else (r * C).ravel(), None if bias is None else A.ravel())


def _total(t: Array) -> Array:
    return jnp.sum(t, range(t.ndim - 1), keepdims=True)                            # (n, c) -> (1, c)


def _average(t: Array, N: Any, axis_name: Any) -> Array:
    return _over_devices(_total(t), axis_name) / N                                 # (n, c) -> (1, c)


def _over_devices(total: Array, axis_name: Any) -> Array:
    return total if axis_name is None else lax.psum(total, axis_name)


def _to_each_device(d: Array, x: Array, axis_name: Any) -> Array:
    """The adjoint of `_over_devices`: the sum of what all devices say of the total.

    Where the types know that the total is one and the same on all devices (`check_vma`), its cotangent is that sum.
    """
    names = axis_name if isinstance(axis_name, tuple) else () if axis_name is None else (axis_name,)
    apart = tuple(name for name in names if name not in varying(jax.typeof(x)))
    return _over_devices(d, apart or None)


def _entries(x: Array, where: Array | None, axis_name: Any, dtype: Any) -> Any:
    """N: how many entries a statistic has, on all devices; a number, or (1, 1 or c) where a mask decides."""
    if where is None:
        return math.prod(x.shape[:-1]) * (1 if axis_name is None else lax.axis_size(axis_name))
    counted = jnp.broadcast_to(where, (*x.shape[:-1], where.shape[-1]))
    return _over_devices(_total(counted.astype(dtype)), axis_name)


def _at_least_one(N: Any) -> Any:
    return jnp.maximum(N, 1) if isinstance(N, Array) else max(N, 1)
