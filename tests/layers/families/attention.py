"""attention: O = softmax(scale Q Kᵀ + bias) V, in blocks of few queries; ring_attention, of a sequence in blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from adjax import ring_attention
from adjax.layers.attention import _attention
from adjax.layers.attention_operands import Block, checked
from tests.cases import Case, Certified, Layout, normal

Shape = tuple[int, ...]


def in_blocks(
    q: Array, k: Array, v: Array, bias: Array | None = None, *, rows: int = 2, mask: Array | None = None,
    causal: bool = False, scale: float | None = None, window: int | None = None, softcap: float | None = None,
) -> Array:  # fmt: skip
    """`attention` in blocks of so many queries of a head of keys, and elsewhere of all heads."""
    at, sight = checked(q, k, v, mask, bias, causal, scale, window, softcap)
    return _attention(at, sight._replace(block=Block(rows, 1, 1), other=Block(rows, *k.shape[0:3:2])))


def plain_attention(
    q: Array, k: Array, v: Array, bias: Array | None = None, *, rows: int = 2, mask: Array | None = None,
    causal: bool = False, scale: float | None = None, window: int | None = None, softcap: float | None = None,
) -> Array:  # fmt: skip
    """What autodiff is asked about; all scores at once, whatever the rows."""
    k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    S = jnp.einsum("bthd,bshd->bhts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    S = S if softcap is None else softcap * jnp.tanh(S / softcap)
    S = S if bias is None else S + jnp.reshape(bias, (1,) * (4 - bias.ndim) + bias.shape)
    i, j = np.arange(q.shape[1])[:, None], np.arange(k.shape[1])[None]
    seen = np.ones((1, 1, len(i), j.size), bool) if mask is None else np.asarray(mask)
    seen = seen & (j <= i) if causal else seen
    seen = seen if window is None else seen & (abs(i - j) < window)
    A = jax.nn.softmax(jnp.where(seen, S, -1e30), -1) * seen.any(-1, keepdims=True).astype(S.dtype)
    return jnp.einsum("bhts,bshe->bthe", A, v)


def in_a_ring(q: Array, k: Array, v: Array, *, n: int, **options: Any) -> Array:
    """`ring_attention` of a sequence in n blocks, on one device: the ring is the axis of a `vmap`."""
    q, k, v = (x.reshape(x.shape[0], n, -1, *x.shape[2:]) for x in (q, k, v))
    O = jax.vmap(partial(ring_attention, axis_name="ring", **options), 1, 1, axis_name="ring")(q, k, v)
    return O.reshape(O.shape[0], -1, *O.shape[3:])


def arguments(q: Shape, k: Shape, e: int, bias: Shape | None = None) -> Callable[[np.random.Generator], Any]:
    """A maker of `(q, k, v)`, and the bias."""
    shapes = [q, k, (*k[:3], e), *([] if bias is None else [bias])]
    return lambda rng: tuple(normal(rng, *shape) for shape in shapes)


def case(name: str, *shapes: Any, **options: Any) -> Case:
    functions = (partial(f, **options) for f in (in_blocks, plain_attention))
    return Case(f"attention {name}", *functions, arguments(*shapes), linear_in=(2,))


MASK = np.random.default_rng(0).random((2, 1, 5, 4)) < 0.6
MASK[:, :, 1] = False                                               # a query that sees nothing
CASES = [
    case("window", (1, 4, 4, 2), (1, 5, 2, 2), 1, causal=True, window=3),                             # loops
    case("causal", (2, 5, 2, 3), (2, 4, 1, 3), 2, causal=True),                                       # bands
    case("bias, mask, softcap", (2, 5, 2, 3), (2, 4, 2, 3), 2, (2, 1, 4), mask=MASK, softcap=1.5),    # and a rest
]


def certified(
    name: str, *shapes: Any, dtype: Any = jnp.float32, everywhere: bool = False, **options: Any
) -> Certified:
    made = jax.tree.map(lambda x: x.astype(dtype), arguments(*shapes)(np.random.default_rng(1)))
    return Certified(f"attention, {name}", partial(in_blocks, **options), made, everywhere)


CERTIFIED = [
    certified("of all", (2, 3, 2, 3), (2, 4, 1, 3), 2, everywhere=True),
    certified("causal", (1, 5, 2, 3), (1, 5, 2, 3), 2, dtype=jnp.float64, causal=True),
    certified("bias for all queries", (2, 3, 2, 2), (2, 4, 2, 2), 3, (2, 1, 4)),
    certified("window", (1, 5, 1, 3), (1, 6, 1, 3), 2, window=2),
    certified("masked rows", (2, 5, 1, 2), (2, 4, 1, 2), 3, mask=MASK),
    certified("softcap", (1, 3, 2, 2), (1, 4, 2, 2), 2, softcap=1.5, scale=0.7),
    certified("bfloat16", (1, 3, 2, 4), (1, 5, 1, 4), 3, dtype=jnp.bfloat16),
    certified("float16", (1, 4, 1, 4), (1, 4, 1, 4), 3, dtype=jnp.float16, causal=True),
]

IN_A_RING = arguments((1, 4, 2, 2), (1, 4, 1, 2), 3)(np.random.default_rng(1))
BY_PLAIN = {"laws": ["structure", "linear", "adjoint"], "reference": plain_attention}
CERTIFIED += [Certified("ring_attention", partial(in_a_ring, n=2), IN_A_RING, options=BY_PLAIN)]

WIDE = case("sharded", (8, 4, 4, 3), (8, 5, 2, 3), 3, causal=True)
BATCH, HEADS = P("data"), P("data", None, "model")
LAYOUTS = [
    Layout("attention data", WIDE, (BATCH,) * 3, BATCH),
    Layout("attention heads", WIDE, (HEADS,) * 3, HEADS),
]
