"""The three maps of a convolution as XLA's own convolution, each a call.

Axes as in `convolution_geometry`. With xp the padded x, and i, k, j positions of the result, the kernel and xp,

    y[i]  = Σ_k xp[stride · i + dilation · k] W[k]       a convolution
    dx    = Σ over (i, k) with stride · i + dilation · k = j of dY[i] W[k]ᵀ
                                                         one of dY with `stride - 1` zeros put between its entries
    dW[k] = Σ_i xp[stride · i + dilation · k]ᵀ dY[i]     one over x whose kernel is dY, stride and dilation swapped
"""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array, lax

from .convolution_geometry import Geometry

SPATIAL = "DHW"


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    spatial = SPATIAL[-g.rank :]
    return lax.conv_general_dilated(
        x, W, g.stride, g.padding, rhs_dilation=g.dilation, feature_group_count=g.groups,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c]."""
    t, k, spatial = dY.shape[1:-1], W.shape[:-2], SPATIAL[-g.rank :]
    reached = zip(s, g.reach(t), g.span(k), g.padding, strict=True)
    padding = [(span - 1 - low, s - reach + low) for s, reach, span, (low, _) in reached]
    return lax.conv_general_dilated(
        dY, mirrored(W, g.groups), (1,) * g.rank, padding, lhs_dilation=g.stride, rhs_dilation=g.dilation,
        feature_group_count=g.groups, dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c/g o]."""
    s, t, spatial = x.shape[1:-1], dY.shape[1:-1], SPATIAL[-g.rank :]
    reached = zip(s, g.reach(t), g.span(k), g.padding, strict=True)
    padding = [(low, span - 1 + reach - s - low) for s, reach, span, (low, _) in reached]
    return lax.conv_general_dilated(
        x, dY, g.dilation, padding, rhs_dilation=g.stride, batch_group_count=g.groups,
        dimension_numbers=(f"C{spatial}N", f"I{spatial}O", f"{spatial}NC"),
    )


def mirrored(W: Array, groups: int) -> Array:
    """The kernel that carries cotangents back: W[*k c/g o] with its taps reversed and c and o swapped in each group."""
    *k, c, o = W.shape
    axes = range(len(k))
    grouped = lax.rev(W, axes).reshape(*k, c, groups, o // groups)
    swapped = grouped.transpose(*axes, len(k) + 2, len(k) + 1, len(k))        # (*k, o/g, g, c/g)
    return swapped.reshape(*k, o // groups, groups * c)
