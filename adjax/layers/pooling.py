"""Maximum over windows: Y[t] = max_k x[s(t, k)].

Axes: n any leading axes, s spatial axes in (1 to 3), t windows along them, k positions in a window in row-major order,
c channels. Along one axis s(t, k) = stride · t + k - low, and an element outside of x is -∞.

With k*(t) the first position at which window t has its maximum, the derivative of the maximum picks one element of each
window, so its adjoint puts each cotangent back where that element came from:

    δY[t] = δx[s(t, k*(t))]
    ⟨δY, dY⟩ = Σ_t δx[s(t, k*(t))] dY[t]        so  dx[s] = Σ_t [s(t, k*(t)) = s] dY[t]

An element s lies in at most ⌈window / stride⌉ windows along an axis, in each at a known position k. The sum is over
those: a few terms for every element, where a scatter would visit one window after the other.

Residuals: x, which a platform's own rule compares again, and k*, a byte for every element of Y, by which the rule for
CPUs goes. A compiled program that runs forward and back keeps one of them only.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int8

from ..adjoint import any_mode, layout_of, may_be_sharded, partitioned, wide
from .one_pass import in_one_pass
from .pooling_windows import Windows, resolved

MOST_POSITIONS = 127                        # in a window, where a byte counts them; beyond, the native rule is used
LARGE_BYTES = 2**24                         # from which on x is padded in blocks of fewer than
BLOCK_BYTES = 2**22


def max_pool(x: Array, window: Any, *, stride: Any = None, padding: Any = "VALID") -> Array:
    """Y[n, *t, c] = max over the window of k at t of x[n, stride · t + k - low, c].

    Args:
        x: `[n..., *s, c]`, real floating or integer, channels last.
        window: sizes of the window, a tuple of one for each of 1 to 3 spatial axes. A number is the size along every
            axis between the first and the last.
        stride: from one window to the next, a number or one for each axis. As in most libraries, it is the window if
            it is left out.
        padding: "VALID" for none, "SAME" for t = ⌈s / stride⌉, a number, or a pair (low, high) for each spatial axis.
            What is padded is -∞, the least integer where x is integer, and never wins over another value.

    Returns:
        `Y[n..., *t, c]` of x's dtype, t = ⌊(s + low + high - window) / stride⌋ + 1.

    Raises:
        TypeError: x is no real array.
        ValueError: x has not enough axes; window or stride is not positive, padding negative or unknown; the window is
            larger than the padded input, or lies wholly in the padding.

    Where several elements of a window are largest, the first in row-major order is the one Y depends on. A window that
    holds a NaN gives NaN; its cotangent goes to the largest element after its last NaN, or to that NaN if it comes
    last; that of a window of -∞ alone goes to its first element. Padding counts as elements of -∞: what falls to it is
    lost. All of this is as the gradient of `lax.reduce_window` has it on CPUs.

    Residuals: x, and a byte for every element of Y.

    >>> x = jnp.array([[3.0, 1.0, 4.0, 1.0, 5.0, 9.0]])[..., None]
    >>> max_pool(x, 2)[0, :, 0].tolist(), max_pool(x, 3, stride=2, padding=1)[0, :, 0].tolist()
    ([3.0, 4.0, 9.0], [3.0, 4.0, 9.0])
    >>> jax.grad(lambda x: max_pool(x, 3, stride=2, padding=1).sum())(x)[0, :, 0].tolist()
    [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """
    windows = resolved("max_pool", x, window, stride, padding)
    if not jnp.issubdtype(x.dtype, np.floating) and not jnp.issubdtype(x.dtype, np.integer):
        raise TypeError(f"max_pool: x must be real floating or integer, got dtype {x.dtype} (shape {x.shape})")
    return _max_pool(x, windows)


class MaxPoolResiduals(NamedTuple):
    """What the backward pass keeps."""

    x: Float[Array, "*n s c"]               # a platform's own rule compares it again
    k: Int8[Array, "*n t c"] | None         # k*, where the rule for CPUs puts dY; None for windows too large


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, windows: Windows) -> Array:
    own = partial(native, windows=windows)
    on_cpu = partial(maxima, windows=windows) if windows.size <= MOST_POSITIONS else own
    return partitioned(lambda x: lax.platform_dependent(x, cpu=on_cpu, default=own), x, axes=_layout(x, windows))


def _max_pool_fwd(x: Array, windows: Windows) -> tuple[Array, MaxPoolResiduals]:
    if windows.size > MOST_POSITIONS:
        return _max_pool.fun(x, windows), MaxPoolResiduals(x, None)
    on_cpu = lambda x: few_at_a_time(x, windows)
    other = lambda x: without_argmax(native(x, windows))
    both: Any = lambda x: lax.platform_dependent(x, cpu=on_cpu, default=other)
    Y, k = partitioned(both, x, axes=_layout(x, windows))
    return Y, MaxPoolResiduals(x, k)


def _max_pool_bwd(windows: Windows, residuals: MaxPoolResiduals, dY: Array) -> tuple[Array]:
    """Each dY goes to the element that it came from: (n, t, c) -> (n, s, c)."""
    x, k = residuals
    s = x.shape[windows.first(x.ndim) : -1]
    own = lambda x, dY: jax.vjp(partial(native, windows=windows), x)[1](dY)[0]
    if k is None:
        return (partitioned(own, x, dY, like=x),)
    on_cpu = lambda x, k, dY: put_back(k, dY, windows, s)
    other = lambda x, k, dY: own(x, dY)
    back = lambda *operands: lax.platform_dependent(*operands, cpu=on_cpu, default=other)
    return (partitioned(back, x, k, dY, like=x),)


def _max_pool_tangent(windows: Windows, residuals: MaxPoolResiduals, tangents: tuple[Array]) -> Array:
    """Of each window the element that Y came from: (n, s, c) -> (n, t, c)."""
    (x, k), (dx,) = residuals, tangents
    own = lambda x, dx: jax.jvp(partial(native, windows=windows), (x,), (dx,))[1]
    if k is None:
        return partitioned(own, x, dx, axes=_layout(x, windows))
    on_cpu = lambda x, k, dx: pick(k, dx, windows)
    other = lambda x, k, dx: own(x, dx)
    there = lambda *operands: lax.platform_dependent(*operands, cpu=on_cpu, default=other)
    return partitioned(there, x, k, dx, axes=_layout(x, windows))


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
_max_pool.deftangent(_max_pool_tangent)


def native(x: Array, windows: Windows) -> Array:
    """The maxima by the platform's own operation, with a derivative of its own."""
    return lax.reduce_window(x, np.array(_least(x.dtype), x.dtype), lax.max, **windows.over(x.ndim))


def without_argmax(Y: Array) -> tuple[Array, Array]:
    """Zeros for k*, where nothing reads it."""
    return Y, lax.full_like(Y, 0, np.int8)


def maxima(x: Array, windows: Windows) -> Array:
    """The maxima alone, which need no second result; autodiff of them, where the rule is opened, is the rule."""
    return _in_blocks(lambda x: with_argmax(x, windows)[0], x, windows)


def few_at_a_time(x: Array, windows: Windows) -> tuple[Array, Array]:
    """The maxima and k*, by one loop."""
    return _in_blocks(lambda x: in_one_pass(*with_argmax(x, windows)), x, windows)


def _in_blocks(f: Callable[[Array], Any], x: Array, windows: Windows) -> Any:
    """`f(x)`. Of a large padded array some examples at a time: their padded copies stay in the cache."""
    first = windows.first(x.ndim)
    n, example = math.prod(x.shape[:first]), x.shape[first:]
    small = x.size * x.dtype.itemsize < LARGE_BYTES
    if small or not any(map(any, windows.padding)) or may_be_sharded():
        return f(x)
    few = BLOCK_BYTES // (math.prod(example) * x.dtype.itemsize)
    block = max((b for b in range(1, min(few, n) + 1) if n % b == 0), default=1)
    if block == 1:
        return f(x)
    blocks = lax.map(f, x.reshape(n // block, block, *example))                       # (n, s, c) -> (n, t, c) each
    return jax.tree.map(lambda y: y.reshape(*x.shape[:first], *y.shape[2:]), blocks)


def with_argmax(x: Array, windows: Windows) -> tuple[Array, Array]:
    """The maxima and k*, one position of all windows after the other.

    A comparison with NaN is false: the fold forgets what came before one, and the maxima must be told of it.
    """
    windows, x = windows.within(x, _least(x.dtype))
    value, *others = windows.views(x, 0)                                              # (n, s, c) -> (n, t, c) each
    maximum, argmax = value, lax.full_like(value, 0, np.int32)
    for k, other in enumerate(others, start=1):
        keep = value >= other
        value, argmax = jnp.where(keep, value, other), jnp.where(keep, argmax, lax.full_like(argmax, k))
        maximum = lax.max(maximum, other)                                             # NaN from the first one on
    maximum = lax.stop_gradient(maximum)
    return jnp.where(maximum != maximum, value + maximum, value), argmax.astype(np.int8)


def put_back(k: Array, dY: Array, windows: Windows, s: tuple[int, ...]) -> Array:
    """dx[s] = Σ_t [s(t, k*(t)) = s] dY[t]."""
    terms = (
        jnp.where(k_t.astype(np.int32) == here, dY_t.astype(wide(dY.dtype)), np.zeros((), wide(dY.dtype)))
        for here, (k_t, dY_t) in windows.around(s, (k, -1), (dY, 0))                  # s is at `here` of a window t
    )
    return windows.elements(functools.reduce(operator.add, terms), s).astype(dY.dtype)


def pick(k: Array, dx: Array, windows: Windows) -> Array:
    """δY[t] = δx[s(t, k*(t))]."""
    picked = lax.full_like(k, 0, dx.dtype)
    for i, view in enumerate(windows.views(dx, 0)):                                   # (n, s, c) -> (n, t, c) each
        picked = jnp.where(k == lax.full_like(k, i), view, picked)
    return picked


def _layout(x: Array, windows: Windows) -> tuple[Any, ...]:
    """How Y lies over a mesh: its leading axes and channels as those of x."""
    names, first = layout_of(x), windows.first(x.ndim)
    return (*names[:first], *[None] * windows.rank, names[-1])


def _least(dtype: Any) -> Any:
    """The identity of the maximum: what the padding holds."""
    return -np.inf if jnp.issubdtype(dtype, np.floating) else np.iinfo(dtype).min
