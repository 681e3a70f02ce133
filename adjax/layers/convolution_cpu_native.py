"""The three maps of a convolution of one group as XLA's own convolution, each a call.

Axes as in `convolution_geometry`. With xp the padded x, and i, k, j positions of the result, the kernel and xp,

    y[i]  = Σ_k xp[stride · i + dilation · k] W[k]       a convolution
    dx    = Σ over (i, k) with stride · i + dilation · k = j of dY[i] W[k]ᵀ
                                                         one of dY with `stride - 1` zeros put between its entries
    dW[k] = Σ_i xp[stride · i + dilation · k]ᵀ dY[i]     one over x whose kernel is dY, stride and dilation swapped

Operands are put into the one order of axes for which XLA:CPU has a fast convolution. It would do so itself, but not
inside a loop: there, in a training step under `lax.scan` say, dW would take sixty times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from .convolution_geometry import Geometry
from .convolution_native import mirrored

SPATIAL = "DHW"


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    spatial = SPATIAL[-g.rank :]
    return lax.conv_general_dilated(
        x, W, g.stride, g.padding, rhs_dilation=g.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c]."""
    t, k, spatial = dY.shape[1:-1], W.shape[:-2], SPATIAL[-g.rank :]
    reached = zip(s, g.reach(t), g.span(k), g.padding, strict=True)
    padding = [(span - 1 - low, s - reach + low) for s, reach, span, (low, _) in reached]
    return lax.conv_general_dilated(
        dY, mirrored(W, 1), (1,) * g.rank, padding, lhs_dilation=g.stride, rhs_dilation=g.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c o]: channels are the examples of this convolution, and examples its channels."""
    s, t = x.shape[1:-1], dY.shape[1:-1]
    reached = zip(s, g.reach(t), g.span(k), g.padding, strict=True)
    padding = tuple((low, span - 1 + reach - s - low) for s, reach, span, (low, _) in reached)
    turned = Geometry(g.dilation, padding, g.stride, 1)
    dW = forward(x.swapaxes(0, -1), jnp.moveaxis(dY, 0, -2), turned)          # (c, *s, n)(*t, n, o) -> (c, *k, o)
    return jnp.moveaxis(dW, 0, -2)
