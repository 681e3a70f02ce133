"""Convolution: a sum of shifted affine maps, Y = Σ_k S_k X W_k + b.

Axes: n examples (any number of leading axes), s spatial axes in (1 to 3) and t out, k taps of the kernel, c channels in,
o out, in groups. S_k reads, at each position t, what tap k sees there: x[stride · t + dilation · k - low], 0 outside of x
(or what lies there once x is continued around its edges: CIRCULAR). W_k[c o] is the matrix of that tap; groups make it
block-diagonal: the channels of a group see one another alone.

The map is linear in W and b for fixed X, and in X for fixed W. Tap by tap it is the affine map of S_k X, so that

    ⟨S_k X δW_k, dY⟩ = ⟨δW_k, (S_k X)ᵀ dY⟩        so  dW_k = (S_k X)ᵀ dY
    ⟨S_k δX W_k, dY⟩ = ⟨δX, S_kᵀ dY W_kᵀ⟩         so  dX = Σ_k S_kᵀ dY W_kᵀ
    ⟨1 δbᵀ, dY⟩ = ⟨δb, dYᵀ 1⟩                     so  db = Σ_nt dY

S_kᵀ puts each entry back where it was read. `convolution_definition` spells these three maps just so; GPU and TPU run
them as convolutions of their own (`convolution_native`), CPUs by whichever formulation is quick (`convolution_cpu`).

Residuals: W and X, nothing else; of b only its type. Where W alone is differentiated X alone is kept, and conversely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Inexact

from ..adjoint import Like, any_mode, like, sum_leading
from .checks import check_floating, check_pair
from .convolution_geometry import Lay, Options
from .convolution_maps import adjoint_W, adjoint_x, forward

Initializer = Callable[..., Array]


class ConvParams(NamedTuple):
    """Parameters of `conv`: kernel `W[*k, c/g, o]` and bias `b[o]`, or None; of `conv_transpose` likewise, but `b[c]`."""

    W: Array
    b: Array | None

    @classmethod
    def init(
        cls,
        key: Array,
        c: int,
        o: int,
        kernel: int | Sequence[int],
        *,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = jnp.float32,
        kernel_init: Initializer | None = None,
        bias_init: Initializer = jax.nn.initializers.zeros,
    ) -> ConvParams:
        """Fresh parameters: W with variance 1 / fan-in (LeCun), b zero, unless other initializers are given.

        Args:
            key: a `jax.random.key`.
            c, o: channels in and out.
            kernel: its size along each of 1 to 3 spatial axes; one integer for one axis.
            groups: into which c and o are divided; c for a depthwise convolution.
            bias: False for `b = None`.
            dtype: of both parameters.
            kernel_init, bias_init: initializers as in `jax.nn.initializers`; the fan-in is Π k · c / groups.

        >>> W, b = ConvParams.init(jax.random.key(0), 4, 6, (3, 3), groups=2)
        >>> W.shape, b.shape
        ((3, 3, 2, 6), (6,))
        """
        k = (kernel,) * 1 if isinstance(kernel, int) else tuple(kernel)
        if groups < 1 or c % groups or o % groups:
            raise ValueError(f"ConvParams.init: groups={groups} must divide c={c} and o={o}")
        if not 1 <= len(k) <= 3 or min(k) < 1:
            raise ValueError(f"ConvParams.init: kernel must be 1 to 3 positive sizes, got {kernel!r}")
        shape = (*k, c // groups, o)
        kernel_init = kernel_init or jax.nn.initializers.lecun_normal()
        W_key, b_key = jax.random.split(key)
        W = kernel_init(W_key, shape, dtype) if math.prod(shape) else jnp.zeros(shape, dtype)
        return cls(W, bias_init(b_key, (o,), dtype) if bias else None)


class ConvResiduals(NamedTuple):
    """What the backward pass keeps."""

    W: Inexact[Array, "*k c o"]     # dX needs it
    x: Inexact[Array, "*n s c"]     # dW needs it
    b: Like | None                  # the type of b, no values: db must have it


def conv(
    params: ConvParams,
    x: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """y[n, t, o] = Σ_kc x[n, stride · t + dilation · k - low, c] W[k, c, o] + b[o].

    Args:
        params: `ConvParams(W, b)` or a plain tuple; `W[*k, c/g, o]` with 1 to 3 spatial axes k, `b[o]` or None. Real or
            complex floating.
        x: `[..., *s, c]`, channels last, any number of leading axes, none included. Floating.
        stride, dilation: between positions, and between taps: an integer, or one for each spatial axis.
        padding: "SAME", zeros so that t = ⌈s / stride⌉, of an odd number one more at the end; "CIRCULAR", as many, but x
            continued around its edges; "VALID", none; an integer, or a pair (low, high) for each spatial axis: zeros.
        groups: the channels c and o are divided into so many equal runs, and run j of o sees run j of c alone. With
            c groups, a depthwise convolution of o/c outputs for each channel.

    Returns:
        `y[..., *t, o]` in the operands' promoted dtype, t = ⌊(s + low + high - dilation · (k - 1) - 1) / stride⌋ + 1.
        Half precision accumulates in float32 and is rounded once before b is added.

    Raises:
        TypeError: a parameter or x is no floating array, or params is no pair.
        ValueError: ranks or channels do not match, or groups does not divide them; an option makes no sense; a kernel
            does not fit into the padded input.

    Cotangents have the shape, dtype, sharding and varying mesh axes of their primals, without conjugation.

    Residuals: W and x.

    >>> params = ConvParams(W=jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1), b=None)
    >>> x = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(4, 1)
    >>> conv(params, x)[:, 0].tolist(), conv(params, x, padding="CIRCULAR", stride=2)[:, 0].tolist()
    ([-2.0, -3.0, -6.0, 4.0], [-3.0, 3.0])
    >>> jax.grad(lambda params: conv(params, x).sum())(params).W[:, 0, 0].tolist()
    [7.0, 15.0, 14.0]
    """
    W, b = checked_params("conv", params, "(o,)")
    options = Options.of("conv", W.shape[:-2], stride, padding, dilation, groups)
    check_channels("conv", W, b, "o", W.shape[-1], groups)
    return _conv(ConvParams(W, b), x, _laid("conv", W, x, options))


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("lay",))
def _conv(params: ConvParams, x: Array, lay: Lay) -> Array:
    W, b = params
    y = forward(x, W, lay).astype(jnp.result_type(x, W))                       # Σ_k (n, t, c)(c, o) -> (n, t, o)
    return y if b is None else with_bias(y, b)


def _conv_fwd(
    params: ConvParams, x: Inexact[Array, "*n s c"], lay: Lay
) -> tuple[Inexact[Array, "*n t o"], ConvResiduals]:
    return _conv.fun(params, x, lay), ConvResiduals(params[0], x, like(params[1]))


def _conv_bwd(
    lay: Lay, residuals: ConvResiduals, dy: Inexact[Array, "*n t o"]
) -> tuple[ConvParams, Inexact[Array, "*n s c"]]:
    W, x, b = residuals
    db = None if b is None else sum_leading(dy, like=b)                        #                 (n, t, o) -> (o,)
    dW = adjoint_W(x, dy, lay)                                                 # (n, t, c)ᵀ(n, t, o) -> (k, c, o)
    dx = adjoint_x(dy, W, lay)                                                 # Σ_k (n, t, o)(o, c) -> (n, s, c)
    return ConvParams(dW, db), dx


_conv.defvjp(_conv_fwd, _conv_bwd)


def with_bias(y: Array, b: Array) -> Array:
    """y[... o] + b[o]."""
    return y + jnp.expand_dims(b, tuple(range(y.ndim - 1)))


def checked_params(layer: str, params: Any, b_axes: str) -> ConvParams:
    """The parameters, once they are floating arrays and W is a kernel."""
    W, b = check_pair(layer, params, ("W", "b"), "ConvParams")
    check_floating(layer, "W", "(*k, c/g, o)", W)
    if b is not None:
        check_floating(layer, "b", b_axes, b)
    if not 3 <= W.ndim <= 5:
        raise ValueError(f"{layer}: W must have the axes (*k, c/g, o) with 1 to 3 spatial axes, got shape {W.shape}")
    if 0 in W.shape[:-2]:
        raise ValueError(f"{layer}: the kernel must not be empty, got W of shape {W.shape}")
    return ConvParams(W, b)


def check_channels(layer: str, W: Array, b: Array | None, axis: str, channels: int, groups: int) -> None:
    """Raises ValueError unless groups divides o, and b has as many entries as the result has channels."""
    if W.shape[-1] % groups:
        raise ValueError(f"{layer}: W has o={W.shape[-1]} channels (shape {W.shape}), not divisible by groups={groups}")
    if b is not None and b.shape != (channels,):
        raise ValueError(
            f"{layer}: b must have shape ({axis},) = ({channels},) to fit W (shape {W.shape}), got shape {b.shape}"
        )


def check_image(layer: str, name: str, axes: str, value: Any, W: Array) -> None:
    """Raises TypeError unless the value is a floating array, ValueError unless it has W's spatial axes and channels."""
    check_floating(layer, name, axes, value)
    if value.ndim < W.ndim - 1:
        raise ValueError(
            f"{layer}: {name} must have the axes {axes} with {W.ndim - 2} spatial axes to fit W (shape {W.shape}), "
            f"got shape {value.shape}"
        )


def _laid(layer: str, W: Array, x: Any, options: Options) -> Lay:
    """W over x, once x is as it must be."""
    check_image(layer, "x", "(..., *s, c)", x, W)
    c, expected, groups = x.shape[-1], W.shape[-2], options.groups
    if c % groups:
        raise ValueError(f"{layer}: x has c={c} channels (shape {x.shape}), not divisible by groups={groups}")
    if c != expected * groups:
        raise ValueError(
            f"{layer}: x has c={c} channels (shape {x.shape}), c/g={c // groups} for each of groups={groups}, but W "
            f"expects c/g={expected} (shape {W.shape})"
        )
    lay = options.over(x.shape[-W.ndim + 1 : -1])
    if any(s and not t for s, t in zip(lay.s, lay.t, strict=True)):
        padded = tuple(low + s + high for s, (low, high) in zip(lay.s, lay.geometry.padding, strict=True))
        raise ValueError(
            f"{layer}: the kernel covers {lay.geometry.span(lay.k)} (W of shape {W.shape}, "
            f"dilation {options.dilation}), more than the padded input {padded} (x of shape {x.shape})"
        )
    return lay
