"""The adjoint of a convolution, as a layer: X = Σ_k S_kᵀ Y W_kᵀ + b.

Axes: n examples, t spatial sizes in, s out, k kernel, o channels in, c out, g groups: those of `conv`, whose adjoint it
is: ⟨conv(x), y⟩ = ⟨x, conv_transpose(y)⟩ for the same W and options. It is linear in W and in Y; with dX the cotangent
of X, moving S_k and W_k back to the other side,

    ⟨S_kᵀ δY W_kᵀ, dX⟩ = ⟨δY, S_k dX W_k⟩        so  dY = Σ_k S_k dX W_k        the convolution itself
    ⟨S_kᵀ Y δW_kᵀ, dX⟩ = ⟨δW_k, (S_k dX)ᵀ Y⟩     so  dW_k = (S_k dX)ᵀ Y
    ⟨1 δbᵀ, dX⟩ = ⟨δb, dXᵀ 1⟩                    so  db = Σ_ns dX

Residuals: W and Y, each only where the other is differentiated; of b only its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..adjoint import Like, any_mode, like, sum_leading
from . import convolution_maps as maps
from .convolution import ConvParams, as_batch, as_before
from .convolution_geometry import Lay, Options
from .convolution_operands import check_operands
from .convolution_wrap import folded, wrapped
from .window import per_axis


class ConvTransposeResiduals(NamedTuple):
    """What the backward pass keeps."""

    W: Float[Array, "*k c o"]           # dY needs it
    y: Float[Array, "n *t o"]           # dW needs it
    b: Like | None                      # the type of b, no values


def conv_transpose(
    params: ConvParams,
    y: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[Sequence[int]] = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    size: int | Sequence[int] | None = None,
) -> Array:
    """X[n *s c] = Σ over stride · t + dilation · k - low = s of y[n t o] W[k c o] + b[c]: the adjoint of `conv`.

    Args:
        params: `ConvParams(W, b)` or a plain tuple; `W[*k c/g o]` as of the `conv` whose adjoint this is, `b[c]` or
            None. Real floating.
        y: `[n..., *t, o]`, channels last, any number of leading axes, none included. Real floating.
        stride, padding, dilation, groups: those of that `conv`.
        size: s, the spatial sizes of the result, a number or one for each axis: a stride makes several possible. Left
            out, t · stride for "SAME" and "CIRCULAR", else (t - 1) · stride + span - low - high, the smallest that fit.

    Returns:
        `X[n..., *s, c]` in the operands' promoted dtype. Half precision accumulates in float32.

    Raises:
        TypeError: a parameter or y is no real floating array, or params is no pair.
        ValueError: ranks, channels, groups or options do not fit; `conv` does not take `size` to t.

    Residuals: W and y.

    >>> y, W = jnp.array([[[1.0], [3.0]]]), jnp.array([[[1.0]], [[-1.0]]])
    >>> conv_transpose(ConvParams(W, None), y, padding="VALID")[0, :, 0].tolist()
    [1.0, 2.0, -3.0]
    >>> conv_transpose(ConvParams(W, None), y, stride=2)[0, :, 0].tolist()
    [1.0, -1.0, 3.0, -3.0]
    """
    W, b, rank = check_operands("conv_transpose", params, y, "y", groups)
    lead, t = y.shape[: y.ndim - 1 - rank], y.shape[y.ndim - 1 - rank : -1]
    options = Options.of("conv_transpose", W.shape[:-2], stride, padding, dilation, groups)
    s = options.natural(t) if size is None else per_axis("conv_transpose", "size", size, rank)
    lay = options.over(s)
    if lay.t != t:
        raise ValueError(
            f"conv_transpose: a conv of spatial sizes {s} with the kernel of W (shape {W.shape}) and these options "
            f"gives {lay.t}, not the sizes {t} of y (shape {y.shape})"
        )
    return as_before(_conv_transpose(ConvParams(W, b), as_batch(y, rank), lay), lead)


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_transpose(params: ConvParams, y: Array, lay: Lay) -> Array:
    W, b = params
    X = folded(maps.adjoint_x(y, W, lay.geometry, lay.wrapped), lay)        # (n, t, o)(k, c, o) -> (n, s, c)
    X = X.astype(jnp.result_type(y, W))
    return X if b is None else X + jnp.expand_dims(b, tuple(range(X.ndim - 1)))


def _conv_transpose_fwd(params: ConvParams, y: Array, lay: Lay) -> tuple[Array, ConvTransposeResiduals]:
    W, b = params
    return _conv_transpose.fun(params, y, lay), ConvTransposeResiduals(W, y, like(b))


def _conv_transpose_bwd(lay: Lay, residuals: ConvTransposeResiduals, dX: Array) -> tuple[ConvParams, Array]:
    W, y, b = residuals
    db = None if b is None else sum_leading(dX, like=b)                     #               (n, s, c) -> (c,)
    dX = wrapped(dX, lay)
    dW = maps.adjoint_W(dX, y, lay.geometry, lay.k, like=W)                 # (n, s, c)(n, t, o) -> (k, c, o)
    dy = maps.forward(dX, W, lay.geometry, like=y)                          # (n, s, c)(k, c, o) -> (n, t, o)
    return ConvParams(dW, db), dy


_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)
