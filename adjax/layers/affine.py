"""Affine map: Y = X W + b.

Axes: n examples (any number of leading axes), d features in, p features out.

The map is linear in W and b for fixed X, and in X for fixed W. With ⟨A, B⟩ = Σ A B and dY the cotangent of Y,

    ⟨X δW, dY⟩ = ⟨δW, Xᵀ dY⟩        so  dW = Xᵀ dY
    ⟨δX W, dY⟩ = ⟨δX, dY Wᵀ⟩        so  dX = dY Wᵀ
    ⟨1 δbᵀ, dY⟩ = ⟨δb, dYᵀ 1⟩       so  db = Σ_n dY

Residuals: W and X, nothing else; of b only its type. Where W alone is differentiated X alone is kept, and conversely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Inexact

from ..adjoint import Like, any_mode, contract, like, sum_leading
from .checks import check_floating, check_pair

Initializer = Callable[..., Array]


class AffineParams(NamedTuple):
    """Parameters of `affine`: weights `W[d, p]` and bias `b[p]`, or None for none."""

    W: Array
    b: Array | None

    @classmethod
    def init(
        cls,
        key: Array,
        d: int,
        p: int,
        *,
        dtype: Any = jnp.float32,
        bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer = jax.nn.initializers.zeros,
    ) -> AffineParams:
        """Fresh parameters: W with variance 1/d (LeCun), b zero, unless other initializers are given.

        Args:
            key: a `jax.random.key`.
            d, p: features in and out.
            dtype: of both parameters.
            bias: False for `b = None`.
            kernel_init, bias_init: initializers as in `jax.nn.initializers`.

        >>> W, b = AffineParams.init(jax.random.key(0), 4, 3)
        >>> W.shape, b.shape
        ((4, 3), (3,))
        """
        if d < 0 or p < 0:
            raise ValueError(f"AffineParams.init: d and p must not be negative, got d={d}, p={p}")
        kernel_init = kernel_init or (jax.nn.initializers.lecun_normal() if d and p else jax.nn.initializers.zeros)
        W_key, b_key = jax.random.split(key)
        return cls(kernel_init(W_key, (d, p), dtype), bias_init(b_key, (p,), dtype) if bias else None)


class AffineResiduals(NamedTuple):
    """What the backward pass keeps."""

    W: Inexact[Array, "d p"]        # dX needs it
    X: Inexact[Array, "*n d"]       # dW needs it
    b: Like | None                  # the type of b, no values: db must have it


@any_mode
@jax.custom_vjp
def affine(params: AffineParams, X: Array) -> Array:
    """Y[..., p] = X[..., d] W[d, p] + b[p].

    Args:
        params: `AffineParams(W, b)` or a plain tuple; `W[d, p]`, `b[p]` or None. Real or complex floating.
        X: `[..., d]`, any number of leading axes, none included. Floating.

    Returns:
        `Y[..., p]` in the operands' promoted dtype. Half precision accumulates in float32 and is rounded once before b
        is added.

    Raises:
        TypeError: a parameter or X is no floating array, or params is no pair.
        ValueError: the feature axes of X, W and b do not match.

    Cotangents have the shape, dtype, sharding and varying mesh axes of their primals. Complex ones follow JAX's
    convention: the transpose, without conjugation (`dW = Xᵀ dY`, not `Xᴴ dY`).

    Residuals: W and X.

    >>> params = AffineParams(W=jnp.array([[2.0, 1.0], [-1.0, 3.0]]), b=jnp.array([0.5, -2.0]))
    >>> X = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> affine(params, X).tolist()
    [[2.5, -1.0], [-0.5, 1.0], [1.5, 2.0]]
    >>> jax.grad(lambda params: affine(params, X).sum())(params).W.tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    W, b = _checked(params, X)
    Y = contract("...d,dp->...p", X, W)                                        # (n, d)(d, p) -> (n, p)
    return Y if b is None else Y + jnp.expand_dims(b, tuple(range(Y.ndim - 1)))  # (n, p) + (1, p) -> (n, p)


def affine_fwd(
    params: AffineParams | tuple[Any, Any], X: Inexact[Array, "*n d"]
) -> tuple[Inexact[Array, "*n p"], AffineResiduals]:
    Y = affine.fun(params, X)
    W, b = params
    return Y, AffineResiduals(W, X, like(b))


def affine_bwd(
    residuals: AffineResiduals, dY: Inexact[Array, "*n p"]
) -> tuple[AffineParams, Inexact[Array, "*n d"]]:
    W, X, b = residuals
    db = None if b is None else sum_leading(dY, like=b)      #       (n, p) -> (p,)
    dW = contract("...d,...p->dp", X, dY, like=W)            # (d, n)(n, p) -> (d, p)
    dX = contract("...p,dp->...d", dY, W, like=X)            # (n, p)(p, d) -> (n, d)
    return AffineParams(dW, db), dX


affine.defvjp(affine_fwd, affine_bwd)


def _checked(params: Any, X: Any) -> AffineParams:
    """The parameters, once everything about the operands is as `affine` needs it."""
    W, b = check_pair("affine", params, ("W", "b"), "AffineParams")
    for name, axes, value in (("W", "(d, p)", W), ("b", "(p,)", b), ("X", "(..., d)", X)):
        if not (name == "b" and value is None):
            check_floating("affine", name, axes, value)
    if W.ndim != 2:
        raise ValueError(f"affine: W must have the axes (d, p), got shape {W.shape}")
    d, p = W.shape
    if X.ndim == 0:
        raise ValueError(f"affine: X must have a feature axis d={d}, got a scalar (shape ())")
    if X.shape[-1] != d:
        raise ValueError(
            f"affine: X has d={X.shape[-1]} features (shape {X.shape}) but W expects d={d} (shape {W.shape})"
        )
    if b is not None and b.shape != (p,):
        raise ValueError(f"affine: b must have shape (p,) = ({p},) to fit W (shape {W.shape}), got shape {b.shape}")
    return AffineParams(W, b)
