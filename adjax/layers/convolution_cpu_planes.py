"""Convolutions over three axes, plane by plane of the result, as convolutions over two, for which XLA:CPU is quick.

Axes as in `convolution_geometry`, for one group. A plane i of the result reads K = k[0] planes of the input; side by
side they are one image of K c channels, and the planes of the kernel one kernel for it:

    X_i[n s s (K c)] = xp[n (stride · i + dilation · 0..K-1) s s c],     W'[k k (K c) o] = W[0..K-1 k k c o]

    y_i = X_i * W',      dX_i = the adjoint in x of dY_i, added where X_i was read,      dW' = Σ_i the adjoint in W

The maps over two axes are given, and are called as those over three are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from .convolution_geometry import Geometry

Map = Callable[..., Array]


def forward(plane: Map, x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    K, t = W.shape[0], g.out(x.shape[1:-1], W.shape[:-2])[0]
    xp, flat = _padded(x, g), _flat(W)
    planes = lax.map(lambda i: plane(_read(xp, i, K, g), flat, _rest(g)), jnp.arange(t))
    return jnp.moveaxis(planes, 0, 1)                                         # (t, n, t, t, o) -> (n, t, t, t, o)


def adjoint_x(plane: Map, dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c]."""
    K, t, flat = W.shape[0], dY.shape[1], _flat(W)
    low, high = g.padding[0]

    def parts(i: Array | int) -> list[Array]:
        dX = plane(lax.dynamic_index_in_dim(dY, i, 1, keepdims=False), flat, _rest(g), s[1:])
        return [part[:, None] for part in jnp.split(dX, K, -1)]               # K times (n, 1, s, s, c)

    def add(dxp: Array, i: Array) -> tuple[Array, None]:
        for tap, part in enumerate(parts(i)):
            at = i * g.stride[0] + tap * g.dilation[0]
            here = lax.dynamic_slice_in_dim(dxp, at, 1, 1)
            dxp = lax.dynamic_update_slice_in_dim(dxp, here + part, at, 1)
        return dxp, None

    depth, none = low + s[0] + high, (0, 0, 0)
    places = [tap * g.dilation[0] for tap in range(K)]
    first = [
        lax.pad(part, jnp.zeros((), part.dtype), [none, (at, depth - at - 1, 0), none, none, none])
        for at, part in zip(places, parts(0), strict=True)
    ]
    dxp, _ = lax.scan(add, sum(first[1:], first[0]), jnp.arange(1, t))
    return dxp[:, low : low + s[0]]


def adjoint_W(plane: Map, x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c o]."""
    xp = _padded(x, g)

    def of(i: Array | int) -> Array:
        D = lax.dynamic_index_in_dim(dY, i, 1, keepdims=False)
        return plane(_read(xp, i, k[0], g), D, _rest(g), k[1:])

    total, _ = lax.scan(lambda total, i: (total + of(i), None), of(0), jnp.arange(1, dY.shape[1]))
    return jnp.moveaxis(total.reshape(*k[1:], k[0], x.shape[-1], dY.shape[-1]), 2, 0)


def _padded(x: Array, g: Geometry) -> Array:
    """x with its padding along the first axis."""
    return jnp.pad(x, ((0, 0), g.padding[0], (0, 0), (0, 0), (0, 0))) if any(g.padding[0]) else x


def _read(xp: Array, i: Array | int, K: int, g: Geometry) -> Array:
    """X_i[n s s (K c)]."""
    places = (i * g.stride[0] + tap * g.dilation[0] for tap in range(K))
    return jnp.concatenate([lax.dynamic_index_in_dim(xp, at, 1, keepdims=False) for at in places], -1)


def _flat(W: Array) -> Array:
    """W'[k k (K c) o]."""
    return jnp.moveaxis(W, 0, 2).reshape(*W.shape[1:3], -1, W.shape[-1])


def _rest(g: Geometry) -> Geometry:
    """The geometry of the axes but the first."""
    return Geometry(g.stride[1:], g.padding[1:], g.dilation[1:], 1)
