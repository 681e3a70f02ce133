"""Transposed convolution: the adjoint of `conv` with the same options, X = Σ_k S_kᵀ Y W_kᵀ + b.

Axes as in `convolution`: y[n *t o] is shaped like a result of the convolution, x[n *s c] like its input, and W[*k c/g o] is
the same kernel, so that without biases ⟨conv x, y⟩ = ⟨x, conv_transpose y⟩.

The map is linear in W and b for fixed Y, and in Y for fixed W. Its adjoints are the maps of the convolution again,

    ⟨S_kᵀ δY W_kᵀ, dX⟩ = ⟨δY, S_k dX W_k⟩         so  dY = Σ_k S_k dX W_k, the convolution
    ⟨S_kᵀ Y δW_kᵀ, dX⟩ = ⟨δW_k, (S_k dX)ᵀ Y⟩      so  dW_k = (S_k dX)ᵀ Y
    ⟨1 δbᵀ, dX⟩ = ⟨δb, dXᵀ 1⟩                     so  db = Σ_ns dX

Residuals: W and Y, nothing else; of b only its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Inexact

from ..adjoint import Like, any_mode, like, sum_leading
from .convolution import ConvParams, check_channels, check_image, checked_params, with_bias
from .convolution_geometry import Lay, Options
from .convolution_maps import adjoint_W, adjoint_x, forward


class ConvTransposeResiduals(NamedTuple):
    """What the backward pass keeps."""

    W: Inexact[Array, "*k c o"]     # dY needs it
    y: Inexact[Array, "*n t o"]     # dW needs it
    b: Like | None                  # the type of b, no values: db must have it


def conv_transpose(
    params: ConvParams,
    y: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    size: int | Sequence[int] | None = None,
) -> Array:
    """x[n, s, c] = Σ over t, k with stride · t + dilation · k - low = s of Σ_o y[n, t, o] W[k, c, o], + b[c].

    Args:
        params: `ConvParams(W, b)` or a plain tuple; `W[*k, c/g, o]` as for `conv`, `b[c]` or None. Floating.
        y: `[..., *t, o]`, any number of leading axes, none included. Floating.
        stride, padding, dilation, groups: those of the `conv` whose adjoint it is.
        size: spatial sizes s of the result, an integer or one for each axis. With a stride several of them have the same
            t; left out, s = t · stride for "SAME" and "CIRCULAR", and otherwise all that the kernel covers,
            s = (t - 1) · stride + dilation · (k - 1) + 1 - low - high.

    Returns:
        `x[..., *s, c]` in the operands' promoted dtype. Half precision accumulates in float32 and is rounded once before
        b is added.

    Raises:
        TypeError: a parameter or y is no floating array, or params is no pair.
        ValueError: ranks or channels do not match, or groups does not divide them; an option makes no sense; `conv` does
            not take an input of that size to one of y's.

    Residuals: W and y.

    >>> params = ConvParams(W=jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1), b=None)
    >>> y = jnp.array([1.0, 2.0]).reshape(2, 1)
    >>> conv_transpose(params, y, stride=2)[:, 0].tolist()
    [1.0, 0.0, 1.0, 0.0]
    >>> conv_transpose(params, y, stride=2, padding="VALID")[:, 0].tolist()
    [1.0, 0.0, 1.0, 0.0, -2.0]
    """
    W, b = checked_params("conv_transpose", params, "(c,)")
    options = Options.of("conv_transpose", W.shape[:-2], stride, padding, dilation, groups)
    check_channels("conv_transpose", W, b, "c", groups * W.shape[-2], groups)
    return _conv_transpose(ConvParams(W, b), y, _laid(W, y, options, size))


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("lay",))
def _conv_transpose(params: ConvParams, y: Array, lay: Lay) -> Array:
    W, b = params
    x = adjoint_x(y, W, lay).astype(jnp.result_type(y, W))                     # Σ_k (n, t, o)(o, c) -> (n, s, c)
    return x if b is None else with_bias(x, b)


def _conv_transpose_fwd(
    params: ConvParams, y: Inexact[Array, "*n t o"], lay: Lay
) -> tuple[Inexact[Array, "*n s c"], ConvTransposeResiduals]:
    return _conv_transpose.fun(params, y, lay), ConvTransposeResiduals(params[0], y, like(params[1]))


def _conv_transpose_bwd(
    lay: Lay, residuals: ConvTransposeResiduals, dx: Inexact[Array, "*n s c"]
) -> tuple[ConvParams, Inexact[Array, "*n t o"]]:
    W, y, b = residuals
    db = None if b is None else sum_leading(dx, like=b)                        #                 (n, s, c) -> (c,)
    dW = adjoint_W(dx, y, lay)                                                 # (n, t, c)ᵀ(n, t, o) -> (k, c, o)
    dy = forward(dx, W, lay)                                                   # Σ_k (n, t, c)(c, o) -> (n, t, o)
    return ConvParams(dW, db), dy


_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


def _laid(W: Array, y: Any, options: Options, size: Any) -> Lay:
    """W over the result, once y and its size are as they must be."""
    check_image("conv_transpose", "y", "(..., *t, o)", y, W)
    if y.shape[-1] != W.shape[-1]:
        raise ValueError(
            f"conv_transpose: y has o={y.shape[-1]} channels (shape {y.shape}) but W has o={W.shape[-1]} "
            f"(shape {W.shape})"
        )
    t = tuple(y.shape[-W.ndim + 1 : -1])
    lay = options.over(options.natural(t) if size is None else _sizes(size, W.ndim - 2))
    if lay.t != t:
        raise ValueError(
            f"conv_transpose: conv takes inputs of spatial sizes {lay.s} to {lay.t}, but y has {t} (shape {y.shape}): "
            f"{'give another size' if size is not None else 'no size fits'} with this padding"
        )
    return lay


def _sizes(size: Any, rank: int) -> tuple[int, ...]:
    sizes = (size,) * rank if isinstance(size, int) else size
    if (isinstance(sizes, Sequence) and len(sizes) == rank
            and all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in sizes)):
        return tuple(sizes)
    raise ValueError(
        f"conv_transpose: size must be an integer, not negative, or one for each of the {rank} spatial axes, got {size!r}"
    )
