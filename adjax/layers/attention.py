"""Attention: O = A V with A = softmax(scale Q Kᵀ + bias), row by row of the queries.

Axes: b examples, t queries, s keys, g heads of keys and values, r heads of queries for each of them (h = g r), d and e
features. For one head

    S = scale Q Kᵀ,    S' = c tanh(S/c) + bias,    A = exp(S' − max_s S') / Σ_s exp(S' − max_s S'),    O = A V

where softcap c and bias are options and S' is −∞ at keys that a query may not see. With dO the cotangent of O

    ⟨A δV, dO⟩                                          so  dV = Aᵀ dO
    ⟨δA V, dO⟩ = ⟨δA, dO Vᵀ⟩                            so  dA = dO Vᵀ
    δA = A (δS' − Σ_s A δS'),  a symmetric map of δS'   so  dS' = A (dA − Σ_s A dA)
    δS' = (1 − tanh²(S/c)) δS + δbias                   so  dbias = dS',  dS = (1 − tanh²(S/c)) dS'
    δS = scale (δQ Kᵀ + Q δKᵀ)                          so  dQ = scale dS K,  dK = scale dSᵀ Q

and summed over the r heads that share a key. The derivative itself is

    δO = A δV + δA V

A, S and dS are t × s: they exist for a block of queries at a time (`attention_maps`), forward, backward and in
forward mode. So memory grows as t + s. Blocks skip the keys that none of their queries may see.

Residuals: Q, K, V, max_s S' and Σ_s exp(S' − max_s S') of every row, and mask and bias as they are given. Two numbers a
row and not their lse, and no O for Σ_s A dA = Σ_e dO O: where A is saturated, and where O is rounded to half precision,
those lose the digits that dA − Σ_s A dA is made of.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
from jax import Array
from jaxtyping import Float

from ..adjoint import any_mode
from .attention_maps import Rows, cotangents, forward, tangent
from .attention_operands import Operands, Sight, checked


class AttentionResiduals(NamedTuple):
    """What the backward pass keeps."""

    at: Operands                    # A is recomputed from them
    rows: Rows


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Array:
    """O = softmax(scale Q Kᵀ + bias) V, for each example and head, in memory that grows as t + s.

    Args:
        q: `[b, t, h, d]`, real floating.
        k: `[b, s, g, d]`. Heads of queries share those of keys in groups of h/g: g = h is the usual case, g = 1 one key
            for all heads. Head i of the queries belongs to head i // (h/g) of the keys.
        v: `[b, s, g, e]`.
        mask: boolean, broadcast to `[b, h, t, s]`: True where a query may see a key.
        bias: real floating, broadcast to `[b, h, t, s]`, added to the scores. It is differentiated.
        causal: query i sees keys j ≤ i, counted from the start of both.
        scale: of the scores, 1/√d if left out.
        window: w ≥ 1: query i sees keys with |i − j| < w.
        softcap: c > 0: scores are bent into (−c, c) by c tanh(·/c), before the bias.

    Returns:
        `O[b, t, h, e]` in v's dtype. All that lies between is float32, or wider where an operand is. A query that sees
        no key has O = 0, and has no part in any gradient.

    Raises:
        TypeError: q, k, v or bias is not real floating, mask is not boolean.
        ValueError: shapes do not fit, or an option is out of its range.

    Residuals: q, k, v, mask and bias as given, and two float32 numbers for every query and head.
    The recomputation is that of FlashAttention (Dao et al., 2022), a block of queries at a time.

    >>> import jax.numpy as jnp
    >>> q = k = jnp.zeros((1, 3, 1, 2))
    >>> v = jnp.array([3.0, 6.0, 0.0]).reshape(1, 3, 1, 1)
    >>> attention(q, k, v).ravel().tolist(), attention(q, k, v, causal=True).ravel().tolist()
    ([3.0, 3.0, 3.0], [3.0, 4.5, 3.0])
    >>> jax.grad(lambda v: attention(q, k, v, causal=True)[0, 1, 0, 0])(v).ravel().tolist()
    [0.5, 0.5, 0.0]
    """
    at, sight = checked(q, k, v, mask, bias, causal, scale, window, softcap)
    return _attention(at, sight)


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _attention(at: Operands, sight: Sight) -> Array:
    return forward(at, sight)[0]


def _attention_fwd(at: Operands, sight: Sight) -> tuple[Float[Array, "b t h e"], AttentionResiduals]:
    o, rows = forward(at, sight)
    return o, AttentionResiduals(at, rows)


def _attention_bwd(
    sight: Sight, residuals: AttentionResiduals, dO: Float[Array, "b t h e"]
) -> tuple[Operands]:
    """dV = Aᵀ dO, dS' = A (dA − Σ_s A dA), dbias = dS', dQ = scale dS K, dK = scale dSᵀ Q, block by block."""
    return (cotangents(residuals.at, sight, residuals.rows, dO),)


def _attention_tangent(sight: Sight, residuals: AttentionResiduals, tangents: tuple[Operands]) -> Array:
    """δO = A δV + δA V, block by block."""
    return tangent(residuals.at, sight, residuals.rows, tangents[0])


_attention.defvjp(_attention_fwd, _attention_bwd)
_attention.deftangent(_attention_tangent)
