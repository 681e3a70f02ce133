"""Attention with wrong rules.

Axes: t queries, s keys, d their features, e features of the values. With S = scale Q Kᵀ, capped and masked, and A its
softmax over s,

    dV = Aᵀ dO     dA = dO Vᵀ     dS = A (dA − Σ_s dA A)     dQ = scale dS K     dK = scale dSᵀ Q
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant

FAR_BELOW = -1e30       # a score that no other notices


def allowed(t, s, causal, window):
    """Which keys a query sees, (t, s): those not after it, and not further back than the window."""
    back = jnp.arange(t)[:, None] - jnp.arange(s)
    return (back >= 0 if causal else back == back) & (back < (t + s if window is None else window))


def scores(q, k, scale):
    """S[t, s] = scale q[t] · k[s]."""
    return (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.T)


def softmax(S):
    """A[t, s]."""
    E = jnp.exp(S - lax.stop_gradient(S.max(-1, keepdims=True)))
    return E / E.sum(-1, keepdims=True)


def weights(q, k, causal, scale, window, softcap):
    """A[t, s]."""
    S = scores(q, k, scale)
    S = S if softcap is None else softcap * jnp.tanh(S / softcap)
    return softmax(jnp.where(allowed(*S.shape, causal, window), S, FAR_BELOW))


def attention(q, k, v, causal=False, scale=None, window=None, softcap=None):
    """O[t, e] = A V."""
    return weights(q, k, causal, scale, window, softcap) @ v


def attention_masked(q, k, v, mask):
    """O[t, e] with mask[t, s]; zero for a query that sees nothing."""
    return jnp.where(mask.any(-1, keepdims=True), softmax(jnp.where(mask, scores(q, k, None), FAR_BELOW)), 0) @ v


def attention_biased(q, k, v, bias):
    """O[t, e] with bias[t, s] added to the scores."""
    return softmax(scores(q, k, None) + bias) @ v


def attention_lse(q, k, v):
    """O[t, e] and log Σ_s exp S[t, s]."""
    S = scores(q, k, None)
    top = S.max(-1)
    return softmax(S) @ v, top + jnp.log(jnp.exp(S - top[:, None]).sum(-1))


def attention_grouped(q, k, v):
    """O[h, t, e] of q[h, t, d], k[g, s, d] and v[g, s, e]: each head of k and v serves h/g heads of q in turn."""
    g, h = len(k), len(q)
    A = softmax(jnp.einsum("grtd,gsd->grts", q.reshape(g, h // g, *q.shape[1:]), k))
    return jnp.einsum("grts,gse->grte", A, v).reshape(h, q.shape[1], v.shape[2])


def adjoint_scores(A, dA, row_term=True):
    """dS[t, s]."""
    return A * (dA - (dA * A).sum(-1, keepdims=True) if row_term else dA)


def rule(seen=lambda options: options, row_term=True, cap_slope=True, weights=weights, change=lambda *all: all):
    """The rule right but for what is given.

    Args:
        seen: the options that it sees, of (causal, scale, window, softcap).
        row_term, cap_slope: whether dS has the softmax's sum over s, and the slope of the cap.
        weights: how A is recomputed.
        change: of dQ, dK, dV.
    """
    def backward(causal, scale, window, softcap, residuals, dO):
        q, k, v = residuals
        causal, scale, window, softcap = options = seen((causal, scale, window, softcap))
        A = weights(q, k, *options)
        dS = adjoint_scores(A, dO @ v.T, row_term)
        if softcap is not None and cap_slope:
            dS = dS * (1 - jnp.tanh(scores(q, k, scale) / softcap) ** 2)
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return change(scale * (dS @ k), scale * (dS.T @ q), A.T @ dO)
    return backward


def with_option(index, value):
    """Options of which one is seen otherwise."""
    return lambda options: (*options[:index], value, *options[index + 1:])


def causal_from_the_end(q, k, *options):
    """The last query aligned with the last key."""
    S = scores(q, k, None)
    t, s = S.shape
    return softmax(jnp.where(jnp.arange(t)[:, None] + s - t >= jnp.arange(s), S, FAR_BELOW))


def overflowing(q, k, *options):
    """Without the maximum taken off first."""
    E = jnp.exp(scores(q, k, None))
    return E / E.sum(-1, keepdims=True)


def scores_transposed(causal, scale, window, softcap, residuals, dO):
    q, k, v = residuals
    A = weights(q, k, causal, scale, window, softcap)
    dS = q.shape[-1] ** -0.5 * adjoint_scores(A, dO @ v.T)
    return dS.T @ k, dS @ q, A.T @ dO


def masked_rule(A_seen):
    """The rule of the masked attention whose weights are `A_seen(S, mask)`."""
    def backward(residuals, dO):
        q, k, v, mask = residuals
        A = A_seen(scores(q, k, None), mask)
        dS = q.shape[-1] ** -0.5 * adjoint_scores(A, dO @ v.T)
        return dS @ k, dS.T @ q, A.T @ dO, None
    return backward


def bias_transposed(residuals, dO):
    q, k, v, bias = residuals
    A = softmax(scores(q, k, None) + bias)
    dS = adjoint_scores(A, dO @ v.T)
    scale = q.shape[-1] ** -0.5
    return scale * (dS @ k), scale * (dS.T @ q), A.T @ dO, dS.T


def lse_dropped(residuals, cotangents):
    return rule()(False, None, None, None, residuals, cotangents[0])


def grouped_rule(gather):
    """The rule that makes of dk[g, r, s, d], one for each head of q, its sum by `gather`; likewise of dv."""
    def backward(residuals, dO):
        q, k, v = residuals
        split = lambda x: x.reshape(len(k), len(q) // len(k), *x.shape[1:])
        A = softmax(jnp.einsum("grtd,gsd->grts", split(q), k))
        dS = adjoint_scores(A, jnp.einsum("grte,gse->grts", split(dO), v))
        dQ = jnp.einsum("grts,gsd->grtd", dS, k).reshape(q.shape)
        dk = jnp.einsum("grts,grtd->grsd", dS, split(q))
        return dQ, gather(dk), gather(jnp.einsum("grts,grte->grse", A, split(dO)))
    return backward


def other_grouping(dk):
    """Head h is taken to belong to group h mod g."""
    g, r = dk.shape[:2]
    return dk.reshape(r, g, *dk.shape[2:]).sum(0)


PLAIN = normal((5, 4), (7, 4), (7, 3))
SQUARE = normal((5, 4), (5, 4), (5, 3))
ALIKE = normal((5, 4), (7, 4), (7, 4))
STEEP = normal((5, 4), (7, 4), (7, 3), scale=2.0)
BIASED = normal((5, 4), (5, 4), (5, 3), (5, 5))
HEADS = normal((6, 5, 4), (2, 7, 4), (2, 7, 8))


def masked(rng):
    """No row of the mask is empty."""
    return *PLAIN(rng), (np.arange(35).reshape(5, 7) * 3) % 5 != 1


MUTANTS = [
    Mutant("attention: scale missing in dQ",
           planted(attention, rule(change=lambda dQ, dK, dV: (dQ * 4**0.5, dK, dV))), PLAIN,
           law="adjoint", diagnosis="2 times"),
    Mutant("attention: scale ignored", planted(attention, rule(with_option(1, None)), scale=0.2), PLAIN,
           law="adjoint", diagnosis="option scale"),
    Mutant("attention: causal ignored", planted(attention, rule(with_option(0, False)), causal=True), PLAIN,
           law="adjoint", diagnosis="option causal"),
    Mutant("attention: causal from the end", planted(attention, rule(weights=causal_from_the_end), causal=True), PLAIN,
           law="adjoint"),
    Mutant("attention: window one too wide", planted(attention, rule(with_option(2, 4)), causal=True, window=3), SQUARE,
           law="adjoint", diagnosis="option window"),
    Mutant("attention: softcap ignored", planted(attention, rule(with_option(3, None)), softcap=1.5), STEEP,
           law="adjoint", diagnosis="option softcap"),
    Mutant("attention: slope of the softcap missing", planted(attention, rule(cap_slope=False), softcap=1.5), STEEP,
           law="adjoint"),
    Mutant("attention: dK and dV swapped",
           planted(attention, rule(change=lambda dQ, dK, dV: (dQ, dV, dK))), ALIKE,
           law="adjoint", diagnosis="swapped"),
    Mutant("attention: no derivative through the softmax's sum", planted(attention, rule(row_term=False)), PLAIN,
           law="adjoint", diagnosis="derivative through"),
    Mutant("attention: dS transposed, square", planted(attention, scores_transposed), SQUARE, law="adjoint"),
    Mutant("attention: large scores overflow", planted(attention, rule(weights=overflowing)), PLAIN,
           law="points", diagnosis="not finite"),
    Mutant("attention: mask missing", planted(attention_masked, masked_rule(lambda S, mask: softmax(S))), masked,
           law="adjoint", diagnosis="mask"),
    Mutant("attention: queries that see nothing get a gradient",
           planted(attention_masked, masked_rule(lambda S, mask: softmax(jnp.where(mask, S, FAR_BELOW)))), masked,
           law="points", diagnosis="is not zero where"),
    Mutant("attention: dbias transposed, square", planted(attention_biased, bias_transposed), BIASED,
           law="adjoint", diagnosis="transposed"),
    Mutant("attention: cotangent of the log-sum-exp dropped", planted(attention_lse, lse_dropped), PLAIN,
           law="adjoint", diagnosis="output"),
    Mutant("attention: only the last head of a group counts",
           planted(attention_grouped, grouped_rule(lambda dk: dk[:, -1])), HEADS, law="adjoint"),
    Mutant("attention: heads of a group averaged", planted(attention_grouped, grouped_rule(lambda dk: dk.mean(1))),
           HEADS, law="adjoint", diagnosis="times"),
    Mutant("attention: heads grouped otherwise", planted(attention_grouped, grouped_rule(other_grouping)), HEADS,
           law="adjoint"),
]
