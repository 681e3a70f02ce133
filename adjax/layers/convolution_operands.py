"""What `conv` and `conv_transpose` say of wrong operands."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .checks import check_floating, check_pair


def check_operands(layer: str, params: Any, x: Any, name: str, groups: Any) -> tuple[Any, Any, int]:
    """W, b and the number of spatial axes, once the operands fit each other.

    `x`, called `name`, has W's channels in ("x", c) or out ("y", o); b has the other ones.
    """
    W, b = check_pair(layer, params, ("W", "b"), "ConvParams")
    letter, other = ("c", "o") if name == "x" else ("o", "c")
    for what, axes, value in (("W", "(*k, c/g, o)", W), ("b", f"({other},)", b), (name, f"(n, *s, {letter})", x)):
        if not (what == "b" and value is None):
            _check_real(layer, what, axes, value)
    rank = _rank(layer, W, x, name, letter)
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"{layer}: groups must be a positive integer, got {groups!r}")
    channels = {"c": W.shape[-2] * groups, "o": W.shape[-1]}
    if channels["o"] % groups:
        raise ValueError(f"{layer}: W has o={channels['o']} channels out (shape {W.shape}), no multiple of {groups=}")
    if x.shape[-1] != channels[letter]:
        raise ValueError(
            f"{layer}: {name} has {letter}={x.shape[-1]} channels (shape {x.shape}) but W expects "
            f"{letter}={channels[letter]} (shape {W.shape}, {groups=})"
        )
    if b is not None and b.shape != (channels[other],):
        raise ValueError(
            f"{layer}: b must have shape ({other},) = ({channels[other]},) to fit W (shape {W.shape}, {groups=}), "
            f"got shape {b.shape}"
        )
    return W, b, rank


def _check_real(layer: str, name: str, axes: str, value: Any) -> None:
    check_floating(layer, name, axes, value)
    if jnp.issubdtype(value.dtype, np.complexfloating):
        raise TypeError(f"{layer}: {name} must be real, got dtype {value.dtype} (shape {value.shape})")


def _rank(layer: str, W: Any, x: Any, name: str, letter: str) -> int:
    """The number of spatial axes."""
    if not 3 <= W.ndim <= 5:
        raise ValueError(f"{layer}: W must have the axes (*k, c/g, o) with 1 to 3 kernel axes k, got shape {W.shape}")
    if 0 in W.shape[:-2]:
        raise ValueError(f"{layer}: W has a kernel of size 0 (shape {W.shape})")
    rank = int(W.ndim) - 2
    if x.ndim < rank + 1:
        raise ValueError(f"{layer}: {name} must have {rank} spatial axes and channels {letter}, got shape {x.shape}")
    return rank
