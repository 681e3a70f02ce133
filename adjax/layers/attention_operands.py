"""What `attention` is given: its operands and options, checked."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from .checks import check_array, kind
from .normalization import check_real

BLOCK_BYTES = 2**23                 # of the scores of a block, about
LEAST_ROWS, MOST_ROWS = 32, 256     # of a block


class Operands(NamedTuple):
    """The arrays: mask and bias have four axes, each of size 1 or that of `[b, h, t, s]`."""

    q: Any                          # [b, t, h, d]
    k: Any                          # [b, s, g, d]
    v: Any                          # [b, s, g, e]
    bias: Any                       # or None
    mask: Any                       # or None


class Sight(NamedTuple):
    """The options, and how many queries make a block."""

    scale: float
    causal: bool
    window: int | None
    softcap: float | None
    rows: int


def checked(
    q: Any, k: Any, v: Any, mask: Any, bias: Any, causal: Any, scale: Any, window: Any, softcap: Any
) -> tuple[Operands, Sight]:
    """Operands and options, once they fit."""
    for name, axes, x in (("q", "(b, t, h, d)", q), ("k", "(b, s, g, d)", k), ("v", "(b, s, g, e)", v)):
        check_real("attention", name, axes, x)
        if x.ndim != 4:
            raise ValueError(f"attention: {name} must have the axes {axes}, got shape {x.shape}")
    _check_fit(q, k, v)
    (b, t, h, d), s = q.shape, k.shape[1]
    if mask is not None:
        check_array("attention", "mask", "(b, h, t, s)", mask)
        if mask.dtype != bool:
            raise TypeError(f"attention: mask must be boolean, got dtype {mask.dtype} (shape {mask.shape})")
    if bias is not None:
        check_real("attention", "bias", "(b, h, t, s)", bias)
    _check_options(window, softcap)
    at = Operands(q, k, v, *(_four_axes(name, x, (b, h, t, s)) for name, x in (("bias", bias), ("mask", mask))))
    own = 1 / math.sqrt(d) if scale is None and d else float(1 if scale is None else scale)
    return at, Sight(own, bool(causal), window, None if softcap is None else float(softcap), _rows(b * h, t, s))


def _check_fit(q: Any, k: Any, v: Any) -> None:
    (b, _, h, d), (kb, s, g, kd) = q.shape, k.shape
    if kb != b or v.shape[0] != b:
        raise ValueError(f"attention: q has b={b} examples (shape {q.shape}), k {kb} (shape {k.shape}), "
                         f"v {v.shape[0]} (shape {v.shape})")  # fmt: skip
    if kd != d:
        raise ValueError(f"attention: q has d={d} features (shape {q.shape}) but k has d={kd} (shape {k.shape})")
    if v.shape[1:3] != (s, g):
        raise ValueError(
            f"attention: k has s={s} keys of g={g} heads (shape {k.shape}) but v has s={v.shape[1]} of "
            f"g={v.shape[2]} (shape {v.shape})"
        )
    if g == 0 or h % g:
        raise ValueError(
            f"attention: the h={h} heads of q (shape {q.shape}) are no multiple of the g={g} heads of k "
            f"(shape {k.shape})"
        )


def _check_options(window: Any, softcap: Any) -> None:
    if window is not None:
        if not isinstance(window, (int, np.integer)) or isinstance(window, bool):
            raise TypeError(f"attention: window must be an integer, got {kind(window)}")
        if window < 1:
            raise ValueError(f"attention: window must be at least 1, got {window}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"attention: softcap must be positive, got {softcap}")


def _four_axes(name: str, x: Any, whole: tuple[int, ...]) -> Array | None:
    """With axes of size 1 before its own."""
    if x is None:
        return None
    shape = (1,) * (4 - x.ndim) + tuple(x.shape)
    if len(shape) != 4 or any(a not in (1, w) for a, w in zip(shape, whole, strict=True)):
        raise ValueError(f"attention: {name} must broadcast to (b, h, t, s) = {whole}, got shape {x.shape}")
    return jnp.asarray(x).reshape(shape)


def _rows(heads: int, t: int, s: int) -> int:
    """As many queries as fill a block, a multiple of the least."""
    fitting = BLOCK_BYTES // (4 * max(1, heads * s)) // LEAST_ROWS * LEAST_ROWS
    return max(1, min(t, MOST_ROWS, max(LEAST_ROWS, fitting)))
