"""Convolution, a sum of shifted affine maps: Y = Σ_k S_k X W_k + b.

Axes: n examples (any leading axes), s spatial sizes in (1 to 3 axes), t out, k kernel, c channels in, o out, g groups.

S_k reads for every position i of the result the entry of X under tap k: (S_k X)[i] = Xp[stride · i + dilation · k], Xp
being X padded. It is a slice: linear, and S_kᵀ puts the slice back. The map is linear in W and in X, so with dY the
cotangent of Y, tap by tap as in `affine`,

    ⟨S_k X δW_k, dY⟩ = ⟨δW_k, (S_k X)ᵀ dY⟩      so  dW_k = (S_k X)ᵀ dY
    ⟨S_k δX W_k, dY⟩ = ⟨δX, S_kᵀ dY W_kᵀ⟩       so  dX = Σ_k S_kᵀ dY W_kᵀ
    ⟨1 δbᵀ, dY⟩ = ⟨δb, dYᵀ 1⟩                   so  db = Σ_nt dY

dX, taken as a map of dY, is a layer of its own: `conv_transpose`. `convolution_definition` is these lines as code;
`convolution_maps` chooses for each platform the formulation that is quick there.

Residuals: W and X, nothing else, and each only where the other is differentiated; of b only its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..adjoint import Like, any_mode, layout_of, like, partitioned, sum_leading
from . import convolution_maps as maps
from .convolution_geometry import Lay, Options
from .convolution_operands import check_operands
from .convolution_wrap import folded, wrapped

Initializer = Callable[..., Array]


class ConvParams(NamedTuple):
    """Parameters of `conv` and `conv_transpose`: kernel `W[*k c/g o]`, and bias `b` (one a channel) or None."""

    W: Array
    b: Array | None

    @classmethod
    def init(
        cls,
        key: Array,
        c: int,
        o: int,
        kernel: Sequence[int],
        *,
        groups: int = 1,
        dtype: Any = jnp.float32,
        bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer = jax.nn.initializers.zeros,
    ) -> ConvParams:
        """Fresh parameters of `conv`: W with variance 1 / (Π k · c/g) (LeCun), b zero, unless others are given.

        Args:
            key: a `jax.random.key`.
            c, o: channels in and out.
            kernel: sizes of the kernel, one for each of 1 to 3 spatial axes.
            groups: of channels; depthwise is `groups=c`.
            dtype: of both parameters.
            bias: False for `b = None`.
            kernel_init, bias_init: initializers as in `jax.nn.initializers`.

        >>> W, b = ConvParams.init(jax.random.key(0), 4, 6, (3, 3), groups=2)
        >>> W.shape, b.shape
        ((3, 3, 2, 6), (6,))
        """
        if groups < 1 or c % groups or o % groups:
            raise ValueError(f"ConvParams.init: c={c} and o={o} must be multiples of {groups=}")
        shape = (*kernel, c // groups, o)
        kernel_init = kernel_init or (
            jax.nn.initializers.lecun_normal() if math.prod(shape) else jax.nn.initializers.zeros
        )
        W_key, b_key = jax.random.split(key)
        return cls(kernel_init(W_key, shape, dtype), bias_init(b_key, (o,), dtype) if bias else None)


class ConvResiduals(NamedTuple):
    """What the backward pass keeps."""

    W: Float[Array, "*k c o"]           # dX needs it
    x: Float[Array, "n *s c"]           # dW needs it
    b: Like | None                      # the type of b, no values


def conv(
    params: ConvParams,
    x: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[Sequence[int]] = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """Y[n *t o] = Σ_k x[n (stride · t + dilation · k - low) c] W[k c o] + b[o].

    Args:
        params: `ConvParams(W, b)` or a plain tuple; `W[*k c/g o]`, whose rank says how many spatial axes there are, 1
            to 3; `b[o]` or None. Real floating.
        x: `[n..., *s, c]`, channels last, any number of leading axes, none included. Real floating.
        stride: from one position to the next, a number or one for each spatial axis.
        padding: "SAME" for t = ⌈s / stride⌉, "VALID" for none, "CIRCULAR" for t as in "SAME" with x repeated around
            itself, a number, or a pair (low, high) for each spatial axis; zeros where it is not circular.
        dilation: the distance between taps of the kernel, likewise.
        groups: channels in and out fall into so many groups, convolved each by itself; c for a depthwise convolution.

    Returns:
        `Y[n..., *t, o]` in the operands' promoted dtype, t = ⌊(s + low + high - span) / stride⌋ + 1 with the kernel's
        span = (k - 1) · dilation + 1. Half precision accumulates in float32 and is rounded once before b is added.

    Raises:
        TypeError: a parameter or x is no real floating array, or params is no pair.
        ValueError: ranks, channels, groups or options do not fit; the kernel does not fit into the padded input.

    Residuals: W and x.

    >>> x, W = jnp.array([[[1.0], [2.0], [4.0]]]), jnp.array([[[1.0]], [[-1.0]]])
    >>> conv(ConvParams(W, None), x, padding="VALID")[0, :, 0].tolist()
    [-1.0, -2.0]
    >>> jax.grad(lambda x: conv(ConvParams(W, None), x, padding="VALID")[0, 1, 0])(x)[0, :, 0].tolist()
    [0.0, 1.0, -1.0]
    """
    W, b, rank = check_operands("conv", params, x, "x", groups)
    lead, s = x.shape[: x.ndim - 1 - rank], x.shape[x.ndim - 1 - rank : -1]
    lay = Options.of("conv", W.shape[:-2], stride, padding, dilation, groups).over(s)
    if 0 in lay.t and 0 not in s:
        g = lay.geometry
        raise ValueError(
            f"conv: the kernel of W (shape {W.shape}, dilation {g.dilation}) spans {g.span(lay.k)}, more than the "
            f"padded input (x has shape {x.shape}, padding {g.padding})"
        )
    return as_before(_conv(ConvParams(W, b), as_batch(x, rank), lay), lead)


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(params: ConvParams, x: Array, lay: Lay) -> Array:
    W, b = params
    Y = maps.forward(wrapped(x, lay), W, lay.geometry).astype(jnp.result_type(x, W))   # (n, s, c) -> (n, t, o)
    return Y if b is None else Y + jnp.expand_dims(b, tuple(range(Y.ndim - 1)))


def _conv_fwd(params: ConvParams, x: Array, lay: Lay) -> tuple[Array, ConvResiduals]:
    W, b = params
    return _conv.fun(params, x, lay), ConvResiduals(W, x, like(b))


def _conv_bwd(lay: Lay, residuals: ConvResiduals, dY: Array) -> tuple[ConvParams, Array]:
    W, x, b = residuals
    db = None if b is None else sum_leading(dY, like=b)                     #               (n, t, o) -> (o,)
    dW = maps.adjoint_W(wrapped(x, lay), dY, lay.geometry, lay.k, like=W)   # (n, s, c)(n, t, o) -> (k, c, o)
    dx = maps.adjoint_x(dY, W, lay.geometry, lay.wrapped, like=x)           # (n, t, o)(k, c, o) -> (n, s, c)
    return ConvParams(dW, db), folded(dx, lay)


_conv.defvjp(_conv_fwd, _conv_bwd)


def as_batch(x: Array, rank: int) -> Array:
    """x with one axis for all its leading axes."""
    if x.ndim == rank + 2:
        return x
    names, spatial = layout_of(x), x.shape[x.ndim - 1 - rank :]
    first = names[0] if x.ndim > rank + 1 else None
    n = math.prod(x.shape[: x.ndim - 1 - rank])
    return partitioned(lambda x: x.reshape(n, *spatial), x, axes=(first, *names[x.ndim - 1 - rank :]))


def as_before(y: Array, lead: Sequence[int]) -> Array:
    """The leading axes again."""
    if len(lead) == 1:
        return y
    names, rest = layout_of(y), y.shape[1:]
    first = (names[0], *[None] * (len(lead) - 1)) if lead else ()
    return partitioned(lambda y: y.reshape(*lead, *rest), y, axes=(*first, *names[1:]))
