"""The three maps of a convolution as the platform's own convolution, each one call: what runs on GPU and TPU.

Axes and contracts as in `convolution_geometry`. With xp the padded x, and i, k, j positions of the result, the kernel
and the input,

    y[i]  = Σ_k xp[stride · i + dilation · k] W[k]           a convolution
    dx[j] = Σ over stride · i + dilation · k = low + j of dY[i] W[k]ᵀ
                                                             one of dY with stride - 1 zeros put between its entries
    dW[k] = Σ_i xp[stride · i + dilation · k]ᵀ dY[i]         one over x whose kernel is dY, stride and dilation swapped,
                                                             examples its channels and channels its examples
"""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array, lax

from ..adjoint import wide
from .convolution_geometry import Geometry

SPATIAL = "DHW"


def forward(x: Array, W: Array, g: Geometry) -> Array:
    """y[n *t o]."""
    axes = SPATIAL[-g.rank :]
    return lax.conv_general_dilated(
        x, W, g.stride, g.padding, rhs_dilation=g.dilation, feature_group_count=g.groups,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"), preferred_element_type=wide(x.dtype),
    )


def adjoint_x(dY: Array, W: Array, g: Geometry, s: Sequence[int]) -> Array:
    """dx[n *s c]."""
    k, axes = W.shape[:-2], SPATIAL[-g.rank :]
    reached = zip(s, g.reach(dY.shape[1:-1]), g.span(k), g.padding, strict=True)
    padding = [(span - 1 - low, s - reach + low) for s, reach, span, (low, _) in reached]
    return lax.conv_general_dilated(
        dY, mirrored(W, g.groups), (1,) * g.rank, padding, lhs_dilation=g.stride, rhs_dilation=g.dilation,
        feature_group_count=g.groups, dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        preferred_element_type=wide(dY.dtype),
    )


def adjoint_W(x: Array, dY: Array, g: Geometry, k: Sequence[int]) -> Array:
    """dW[*k c/g o]."""
    s, t, axes = x.shape[1:-1], dY.shape[1:-1], SPATIAL[-g.rank :]
    reached = zip(s, g.reach(t), g.span(k), g.padding, strict=True)
    padding = [(low, span - 1 + reach - s - low) for s, reach, span, (low, _) in reached]
    return lax.conv_general_dilated(
        x, dY, g.dilation, padding, rhs_dilation=g.stride, batch_group_count=g.groups,
        dimension_numbers=(f"C{axes}N", f"I{axes}O", f"{axes}NC"), preferred_element_type=wide(x.dtype),
    )


def mirrored(W: Array, groups: int) -> Array:
    """The kernel that carries cotangents back: W[*k c/g o] with its taps reversed and c and o swapped in each group."""
    *k, c, o = W.shape
    axes = range(len(k))
    grouped = lax.rev(W, axes).reshape(*k, c, groups, o // groups)
    swapped = grouped.transpose(*axes, len(k) + 2, len(k) + 1, len(k))         # (*k, o/g, g, c/g)
    return swapped.reshape(*k, o // groups, groups * c)
