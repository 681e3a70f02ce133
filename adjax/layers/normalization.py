"""What layers that normalize share: their parameters, and the map X ↦ (X − μ) r and its adjoint.

Axes: c channels, the last axis; any number of axes before it. A layer says over which entries it averages; N of them
make one statistic. Let Π replace each entry by the mean of its set: a linear map, its own transpose and its own square.

    μ = Π X,    σ² = Π (X − μ)²,    r = 1/√(σ² + ε),    X̂ = (X − μ) r,    Y = scale X̂ + bias

A change δX moves the centred values by δX − Π δX and r by −r³ Π((X − μ) δX), for Π (X − μ) = 0. Hence

    δX̂ = r (δX − Π δX − X̂ Π(X̂ δX))

which is a symmetric map of δX, for r is constant on every set. With g = scale dY,

    ⟨δX̂, g⟩ = ⟨δX, r (g − Π g − X̂ Π(X̂ g))⟩      so  dX = r (g − Π g − X̂ Π(X̂ g))
    ⟨δscale X̂, dY⟩                              so  dscale = Σ dY X̂
    ⟨1 δbias, dY⟩                               so  dbias = Σ dY

All of it rests on two sums a channel, A = Σ dY and C = Σ dY (X − μ): two reads of the arrays, then one to write dX.
They are centred before they are summed; E[X²] − E[X]² and Σ dY X − μ Σ dY would cancel where |μ| ≫ σ. So would the
mean itself: it is summed twice, the second time relative to the first (`mean_of`).

XLA:CPU writes a value that two consumers need into memory: here X − μ, as large as X. `fresh` on the small statistics
makes it another value for each consumer, which computes it in registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..adjoint import wide
from .checks import check_floating, check_pair


class NormParams(NamedTuple):
    """Parameters of a layer that normalizes: `scale[c]` and `bias[c]`, each None for none."""

    scale: Array | None
    bias: Array | None

    @classmethod
    def init(cls, c: int, dtype: Any = jnp.float32, *, scale: bool = True, bias: bool = True) -> NormParams:
        """Fresh parameters: scale one, bias zero.

        Args:
            c: channels.
            dtype: of both parameters.
            scale, bias: False for None in its place.

        >>> scale, bias = NormParams.init(3)
        >>> scale.tolist(), bias.tolist()
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
        """
        if c < 0:
            raise ValueError(f"NormParams.init: c must not be negative, got c={c}")
        return cls(jnp.ones(c, dtype) if scale else None, jnp.zeros(c, dtype) if bias else None)


def working_dtype(*operands: Array | None) -> np.dtype:
    """The dtype of statistics and of everything between x and y: float32, or wider where an operand is."""
    dtypes = [wide(x.dtype) for x in operands if x is not None]
    return functools.reduce(lambda a, b: np.dtype(jnp.promote_types(a, b)), dtypes)


def fresh(*statistics: Array) -> Any:
    """The same small arrays, which the compiler takes for new ones: what is computed from them is not shared.

    Two barriers around the same arrays in one order are one to it, so each consumer of a mean has it together with
    others.
    """
    return lax.optimization_barrier(statistics)


def along(p: Array, x: Array) -> Array:
    """`p[c]` with axes of size 1 before it, to be broadcast with `x[..., c]`."""
    return jnp.expand_dims(p, tuple(range(x.ndim - 1)))


def kept(t: Array, where: Array | None) -> Array:
    """The same, and zero where masked."""
    return t if where is None else jnp.where(where, t, 0)


def centred(x: Array, mean: Array, where: Array | None = None) -> Array:
    """X − μ, zero where masked; in the dtype of the mean."""
    return kept(x.astype(mean.dtype) - mean, where)


def mean_of(
    x: Array, average: Callable[[Array], Array], spread: Callable[[Array], Array], where: Array | None = None
) -> Array:
    """μ = Π X = m + Π(X − m) with m the mean as it is first summed, which where |μ| ≫ σ is off by much of σ.

    `average` sums and divides, `spread` makes its result broadcast with x. As m is any number, it has no derivative.
    """
    m = lax.stop_gradient(average(kept(x, where)))
    return m + average(centred(x, fresh(spread(m))[0], where))


def normalized(x: Array, mean: Array, r: Array, params: NormParams, where: Array | None = None) -> Array:
    """Y = scale (X − μ) r + bias, in x's dtype; zero where masked. `mean` and `r` broadcast with x."""
    scale, bias = params
    r, mean = fresh(r, mean)                                       # without scale, in which Y is linear
    k = r if scale is None else r * along(scale.astype(r.dtype), x)
    y = centred(x, mean, where) * k
    if bias is not None:
        y = kept(y + along(bias.astype(r.dtype), x), where)
    return y.astype(x.dtype)


def pulled_back(
    x: Array, dY: Array, mean: Array, slopes: tuple[Array, Array, Array], where: Array | None = None
) -> Array:
    """dX = k dY − p (X − μ) − q, zero where masked; k, p and q = `slopes` broadcast with x."""
    k, p, q = slopes
    mean, k = fresh(k, mean)[::-1]
    dX = dY.astype(k.dtype) * k - (centred(x, mean, where) * p + q)
    return kept(dX, where).astype(x.dtype)


def check_real(layer: str, name: str, axes: str, value: Any) -> None:
    """Raises TypeError unless the value is a real floating array."""
    check_floating(layer, name, axes, value)
    if jnp.issubdtype(value.dtype, np.complexfloating):
        raise TypeError(f"{layer}: {name} must be real, got dtype {value.dtype} (shape {value.shape})")


def check_channels(layer: str, params: Any, x: Any, eps: Any) -> NormParams:
    """The parameters, once they fit `x[..., c]` and eps is positive."""
    scale, bias = check_pair(layer, params, ("scale", "bias"), "NormParams")
    check_real(layer, "x", "(..., c)", x)
    if x.ndim == 0:
        raise ValueError(f"{layer}: x must have a channel axis c, got a scalar (shape ())")
    for name, p in (("scale", scale), ("bias", bias)):
        if p is not None:
            check_vector(layer, name, p, x)
    if not eps > 0:
        raise ValueError(f"{layer}: eps must be positive, got {eps}")
    return NormParams(scale, bias)


def check_vector(layer: str, name: str, value: Any, x: Array) -> None:
    """Raises unless the value is a real floating `[c]` with the channels of x."""
    check_real(layer, name, "(c,)", value)
    c = x.shape[-1]
    if value.shape != (c,):
        raise ValueError(
            f"{layer}: {name} must have shape (c,) = ({c},) to fit x (shape {x.shape}), got shape {value.shape}"
        )
