"""What `attention` is given: its operands and options, checked."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adjoint import may_be_sharded
from .checks import check_array, kind
from .normalization import check_real

BLOCK_BYTES = 2**23                 # of the scores of a block, about
CPU_BLOCK_BYTES = 2**21             # where they are to stay in the cache
LEAST_ROWS, MOST_ROWS = 32, 512     # of a head's block
BANDS, BAND_ROWS = 4, 128           # under `causal`: at most so many bands, each at least of so many queries


class Operands(NamedTuple):
    """The arrays: mask and bias have four axes, each of size 1 or that of `[b, h, t, s]`."""

    q: Any                          # [b, t, h, d]
    k: Any                          # [b, s, g, d]
    v: Any                          # [b, s, g, e]
    bias: Any                       # or None
    mask: Any                       # or None


class Block(NamedTuple):
    """What is computed at a time: queries, of some heads of keys of some examples; of all heads if of more than one."""

    rows: int
    examples: int
    heads: int


class Sight(NamedTuple):
    """The options, and what makes a block.

    XLA:CPU is at its best with one head's matrices after the other, many rows each. Other platforms take all heads at
    once, and so does CPU where heads or examples may be sharded.
    """

    scale: float
    causal: bool
    window: int | None
    softcap: float | None
    block: Block                    # on CPU; inside `on_each_platform`, that of the platform
    other: Block                    # elsewhere


def checked(
    q: Any, k: Any, v: Any, mask: Any, bias: Any, causal: Any, scale: Any, window: Any, softcap: Any,
    layer: str = "attention",
) -> tuple[Operands, Sight]:
    """Operands and options, once they fit."""
    for name, axes, x in (("q", "(b, t, h, d)", q), ("k", "(b, s, g, d)", k), ("v", "(b, s, g, e)", v)):
        check_real(layer, name, axes, x)
        if x.ndim != 4:
            raise ValueError(f"{layer}: {name} must have the axes {axes}, got shape {x.shape}")
    _check_fit(layer, q, k, v)
    (b, t, h, d), s = q.shape, k.shape[1]
    if mask is not None:
        check_array(layer, "mask", "(b, h, t, s)", mask)
        if mask.dtype != bool:
            raise TypeError(f"{layer}: mask must be boolean, got dtype {mask.dtype} (shape {mask.shape})")
    if bias is not None:
        check_real(layer, "bias", "(b, h, t, s)", bias)
    _check_options(layer, window, softcap)
    at = Operands(q, k, v, *(_four_axes(layer, name, x, (b, h, t, s)) for name, x in (("bias", bias), ("mask", mask))))
    own = 1 / math.sqrt(d) if scale is None and d else float(1 if scale is None else scale)
    cap = None if softcap is None else float(softcap)
    return at, Sight(own, bool(causal), window, cap, *_blocks(q.shape, s, k.shape[2], bool(causal)))


def _check_fit(layer: str, q: Any, k: Any, v: Any) -> None:
    (b, _, h, d), (kb, s, g, kd) = q.shape, k.shape
    if kb != b or v.shape[0] != b:
        raise ValueError(f"{layer}: q has b={b} examples (shape {q.shape}), k {kb} (shape {k.shape}), "
                         f"v {v.shape[0]} (shape {v.shape})")  # fmt: skip
    if kd != d:
        raise ValueError(f"{layer}: q has d={d} features (shape {q.shape}) but k has d={kd} (shape {k.shape})")
    if v.shape[1:3] != (s, g):
        raise ValueError(
            f"{layer}: k has s={s} keys of g={g} heads (shape {k.shape}) but v has s={v.shape[1]} of "
            f"g={v.shape[2]} (shape {v.shape})"
        )
    if g == 0 or h % g:
        raise ValueError(
            f"{layer}: the h={h} heads of q (shape {q.shape}) are no multiple of the g={g} heads of k "
            f"(shape {k.shape})"
        )


def _check_options(layer: str, window: Any, softcap: Any) -> None:
    if window is not None:
        if not isinstance(window, (int, np.integer)) or isinstance(window, bool):
            raise TypeError(f"{layer}: window must be an integer, got {kind(window)}")
        if window < 1:
            raise ValueError(f"{layer}: window must be at least 1, got {window}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"{layer}: softcap must be positive, got {softcap}")


def _four_axes(layer: str, name: str, x: Any, whole: tuple[int, ...]) -> Array | None:
    """With axes of size 1 before its own."""
    if x is None:
        return None
    shape = (1,) * (4 - x.ndim) + tuple(x.shape)
    if len(shape) != 4 or any(a not in (1, w) for a, w in zip(shape, whole, strict=True)):
        raise ValueError(f"{layer}: {name} must broadcast to (b, h, t, s) = {whole}, got shape {x.shape}")
    return jnp.asarray(x).reshape(shape)


def _blocks(q: tuple[int, ...], s: int, g: int, causal: bool) -> tuple[Block, Block]:
    """On CPU and elsewhere: as many queries as fill a block, of as few or of all heads."""
    b, t, h, _ = q
    r, all_heads = max(1, h // g), Block(_rows(BLOCK_BYTES, b * h, t, s, MOST_ROWS), b, g)
    if may_be_sharded():
        return all_heads, all_heads
    rows = _rows(CPU_BLOCK_BYTES, r, t, s, MOST_ROWS // r)
    if causal:
        rows = min(rows, max(BAND_ROWS, -(-t // BANDS)))
    pairs = max(1, CPU_BLOCK_BYTES // (4 * max(1, r * rows * s)))               # of an example and a head of keys
    heads = _divisor(g, pairs)
    examples = _divisor(b, pairs // g) if heads == g else min(b, 1)
    return Block(rows, examples, heads), all_heads


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`, or 1."""
    return max((m for m in range(1, min(most, n) + 1) if n % m == 0), default=min(n, 1))


def _rows(fill: int, heads: int, t: int, s: int, most: int) -> int:
    """As many queries as fill a block of so many heads, a multiple of the least, and not more than `most`."""
    fitting = fill // (4 * max(1, heads * s)) // LEAST_ROWS * LEAST_ROWS
    return max(1, min(t, max(LEAST_ROWS, min(fitting, most))))
