"""Average over windows: Y[t] = 1/m[t] Σ_k x[s(t, k)], and over everything.

Axes: n any leading axes, s spatial axes in (1 to 3), t windows along them, k positions in a window, c channels. Along
one axis s(t, k) = stride · t + k - low, and an element outside of x is 0. m[t] counts the positions inside of x, or all
where the padding counts.

A fixed linear map: with S the sum over windows, Y = diag(1/m) S x, hence

    ⟨diag(1/m) S δx, dY⟩ = ⟨δx, Sᵀ diag(1/m) dY⟩        so  dx[s] = Σ_t Σ_k [s(t, k) = s] dY[t] / m[t]

The average over everything is one window: dx[s] = dY / m for all s. Nothing depends on the values of x: no residuals.
"""

from __future__ import annotations

import functools
import math
import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..adjoint import Like, any_mode, layout_of, partitioned, wide
from .checks import check_floating
from .pooling_windows import Windows, resolved

MOST_TERMS = 64                             # of a sum that is written out; longer ones are left to the platform


def avg_pool(
    x: Array, window: Any, *, stride: Any = None, padding: Any = "VALID", count_padding: bool = False
) -> Array:
    """Y[n, *t, c] = mean over the window at t of x[n, stride · t + k - low, c].

    Args:
        x: `[n..., *s, c]`, floating, channels last.
        window: sizes of the window, a tuple of one for each of 1 to 3 spatial axes. A number is the size along every
            axis between the first and the last.
        stride: from one window to the next, a number or one for each axis. As in most libraries, it is the window if
            it is left out.
        padding: "VALID" for none, "SAME" for t = ⌈s / stride⌉, a number, or a pair (low, high) for each spatial axis.
        count_padding: whether padded positions, which are 0, count in the divisor. If not, a window at the border is
            the mean of its elements inside of x.

    Returns:
        `Y[n..., *t, c]` of x's dtype, t = ⌊(s + low + high - window) / stride⌋ + 1. Half precision accumulates in
        float32.

    Raises:
        TypeError: x is no floating array.
        ValueError: x has not enough axes; window or stride is not positive, padding negative or unknown; the window is
            larger than the padded input, or lies wholly in the padding.

    No residuals: the map is linear and fixed.

    >>> x = jnp.array([[2.0, 4.0, 9.0]])[..., None]
    >>> avg_pool(x, 2, stride=1, padding="SAME")[0, :, 0].tolist()
    [3.0, 6.5, 9.0]
    >>> avg_pool(x, 2, stride=1, padding="SAME", count_padding=True)[0, :, 0].tolist()
    [3.0, 6.5, 4.5]
    >>> jax.grad(lambda x: avg_pool(x, 2, stride=1).sum())(x)[0, :, 0].tolist()
    [0.5, 1.0, 0.5]
    """
    windows = resolved("avg_pool", x, window, stride, padding)
    check_floating("avg_pool", "x", "(n, *s, c)", x)
    return _avg_pool(x, windows, bool(count_padding))


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _avg_pool(x: Array, windows: Windows, count_padding: bool) -> Array:
    first, m = windows.first(x.ndim), divisors(windows, x.shape, count_padding)

    def averages(x: Array) -> Array:
        own = partial(own_sums, windows=windows)
        on_cpu = partial(sums, windows=windows) if windows.size <= MOST_TERMS else own
        Sx = lax.platform_dependent(x.astype(wide(x.dtype)), cpu=on_cpu, default=own)        # (n, s, c) -> (n, t, c)
        return (Sx / m.astype(Sx.dtype)).astype(x.dtype)

    names = layout_of(x)
    return partitioned(averages, x, axes=(*names[:first], *[None] * windows.rank, names[-1]))


def _avg_pool_fwd(x: Array, windows: Windows, count_padding: bool) -> tuple[Array, Like]:
    return _avg_pool.fun(x, windows, count_padding), Like(jax.typeof(x))


def _avg_pool_bwd(windows: Windows, count_padding: bool, x: Like, dY: Array) -> tuple[Array]:
    s, m = x.type.shape[windows.first(dY.ndim) : -1], divisors(windows, x.type.shape, count_padding)

    def transpose(y: Array) -> Array:
        own = lambda y: own_sums_transpose(y, windows, s)
        few = math.prod(map(len, windows.offsets())) <= MOST_TERMS
        on_cpu = (lambda y: sums_transpose(y, windows, s)) if few else own
        return lax.platform_dependent(y, cpu=on_cpu, default=own)                            # (n, t, c) -> (n, s, c)

    def spread(dY: Array) -> Array:
        share = dY.astype(wide(dY.dtype))
        by = m.astype(share.dtype)
        dx = transpose(share) / by if m.ndim == 0 else transpose(share / by)                 # one m divides at the end
        return dx.astype(dY.dtype)

    return (partitioned(spread, dY, like=x),)


def _avg_pool_tangent(windows: Windows, count_padding: bool, x: Like, tangents: tuple[Array]) -> Array:
    """The map is its own derivative."""
    return _avg_pool.fun(tangents[0], windows, count_padding)


_avg_pool.defvjp(_avg_pool_fwd, _avg_pool_bwd)
_avg_pool.deftangent(_avg_pool_tangent)


def divisors(windows: Windows, shape: tuple[int, ...], count_padding: bool) -> np.ndarray:
    """m for x of this shape: how many positions count, `[1.. *t 1]`, or where it is one number, that."""
    first = windows.first(len(shape))
    inside = windows.inside(shape[first:-1])
    if count_padding or (inside == windows.size).all():
        return np.asarray(windows.size)
    return np.expand_dims(inside, (*range(first), -1))


def own_sums(x: Array, windows: Windows) -> Array:
    """S x by the platform's own operation."""
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, **windows.over(x.ndim))


def own_sums_transpose(y: Array, windows: Windows, s: tuple[int, ...]) -> Array:
    """Sᵀ y by the platform's own operation: sums over windows of y with stride - 1 zeros between its entries."""
    reach = [(t - 1) * step + 1 for t, step in zip(windows.out(s), windows.stride, strict=True)]
    axes = zip(s, reach, windows.window, windows.padding, strict=True)
    margins = tuple((k - 1 - low, size + low - length) for size, length, k, (low, _) in axes)
    over = Windows(windows.window, (1,) * windows.rank, margins).over(y.ndim)
    apart = (1,) * windows.first(y.ndim) + windows.stride + (1,)
    return lax.reduce_window(y, np.zeros((), y.dtype), lax.add, base_dilation=apart, **over)


def sums(x: Array, windows: Windows) -> Array:
    """(S x)[t] = Σ_k x[s(t, k)]."""
    return functools.reduce(operator.add, windows.views(x, 0))                               # (n, s, c) -> (n, t, c)


def sums_transpose(y: Array, windows: Windows, s: tuple[int, ...]) -> Array:
    """(Sᵀ y)[s] = Σ_t Σ_k [s(t, k) = s] y[t]."""
    terms = (jnp.where(here >= 0, y_t, np.zeros((), y.dtype)) for here, (y_t,) in windows.around(s, (y, 0)))
    return windows.elements(functools.reduce(operator.add, terms), s)                        # (n, t, c) -> (n, s, c)


def global_avg_pool(x: Array) -> Array:
    """Y[n, c] = mean of x[n, *s, c] over all s.

    Args:
        x: `[n, *s, c]`, floating, any number of axes between the first and the last.

    Returns:
        `Y[n, c]` of x's dtype. Half precision accumulates in float32.

    Raises:
        TypeError: x is no floating array.
        ValueError: x has no spatial axis, or an empty one.

    No residuals: the map is linear and fixed.

    >>> global_avg_pool(jnp.array([[[1.0, 5.0], [3.0, 7.0]]])).tolist()
    [[2.0, 6.0]]
    """
    check_floating("global_avg_pool", "x", "(n, *s, c)", x)
    if x.ndim < 3:
        raise ValueError(f"global_avg_pool: x must have the axes (n, *s, c), one s at least, got shape {x.shape}")
    if 0 in x.shape[1:-1]:
        raise ValueError(f"global_avg_pool: there is no mean of no elements, got shape {x.shape}")
    return _global_avg_pool(x)


@any_mode
@jax.custom_vjp
def _global_avg_pool(x: Array) -> Array:
    m = math.prod(x.shape[1:-1])

    def average(x: Array) -> Array:
        total = jnp.sum(x, axis=tuple(range(1, x.ndim - 1)), dtype=wide(x.dtype))            # (n, s, c) -> (n, c)
        return (total / m).astype(x.dtype)

    names = layout_of(x)
    return partitioned(average, x, axes=(names[0], names[-1]))


def _global_avg_pool_fwd(x: Array) -> tuple[Array, Like]:
    return _global_avg_pool.fun(x), Like(jax.typeof(x))


def _global_avg_pool_bwd(x: Like, dY: Array) -> tuple[Array]:
    shape = x.type.shape

    def spread(dY: Array) -> Array:
        share = (dY.astype(wide(dY.dtype)) / math.prod(shape[1:-1])).astype(dY.dtype)     #              (n, c)
        return lax.broadcast_in_dim(share, shape, (0, len(shape) - 1))                       # (n, c) -> (n, s, c)

    return (partitioned(spread, dY, like=x),)


_global_avg_pool.defvjp(_global_avg_pool_fwd, _global_avg_pool_bwd)
