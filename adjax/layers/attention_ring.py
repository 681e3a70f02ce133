"""Attention over a sequence whose blocks lie on the devices of a ring.

Axes: those of `attention`; n devices, each with its own block of Q, K and V. A block is what the letters stand for
here, and P shifts blocks by one device round the ring: after j shifts device m sees

    (P^j K)_m = K_i,    i = m − j modulo n

With A_j that part of A which belongs to the keys P^j K,

    O = Σ_j A_j P^j V,    A_j = exp(S'_j − top) / total,    S_j = scale Q (P^j K)ᵀ

where top and total are those of all n parts. P is a permutation, so its transpose is the shift back:

    ⟨Σ_j A_j P^j δV, dO⟩                       so  dV = Σ_j P^−j A_jᵀ dO
    dA_j = dO (P^j V)ᵀ                         so  dS'_j = A_j (dA_j − μ),  μ = Σ_j Σ_s A_j dA_j
    δS_j = scale (δQ (P^j K)ᵀ + Q (P^j δK)ᵀ)   so  dQ = Σ_j scale dS_j P^j K,  dK = Σ_j P^−j scale dS_jᵀ Q

The keys go round twice: once for μ, and once for the rest, backward, j from n − 1 down to 0 by shifts back. There dK
and dV travel with the keys that they belong to, and every device on the way adds its part (Horner's rule in P^−1):

    dK ← P^−1 dK + scale dS_jᵀ Q

They are whole when they are at home, j = 0. (Once would do if O were kept, as μ = Σ_e dO O, which loses digits: see
`attention`.) The derivative too goes round twice, for ν = Σ_j Σ_s A_j δS'_j and for

    δO = Σ_j A_j P^j δV + A_j (δS'_j − ν) P^j V

A device holds two blocks of other devices at a time, the one it looks at and the next, which arrives meanwhile. Under
`causal` it passes later keys on without a look.

Residuals: those of `attention`, of the device's own block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import any_mode, linear_call
from ..adjoint.cotangent import varying
from .attention import AttentionResiduals
from .attention_blocks import dtype_of
from .attention_maps import Rows, cotangents, forward, mean_of_cotangents, mean_of_tangents, tangent
from .attention_operands import Operands, Sight, checked

LAYER = "ring_attention"


class Ring(NamedTuple):
    """The mesh axis, its size, and what a device sees of its own block."""

    axis: Any
    n: int
    sight: Sight


def ring_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    axis_name: Any,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
) -> Array:
    """O = softmax(scale Q Kᵀ) V over a sequence whose blocks lie on the devices of a mesh axis, inside `jax.shard_map`.

    On the whole sequence it is `attention`; no device ever holds more of it than a few blocks. Sizes are those of a
    block: of a sequence of T queries, t = T/n on each of n devices.

    Args:
        q: `[b, t, h, d]`, real floating: this device's queries.
        k: `[b, s, g, d]`: this device's keys. Heads of queries share those of keys in groups of h/g.
        v: `[b, s, g, e]`: this device's values.
        axis_name: of the mesh axis over which the sequence is sharded, in order; or a tuple of names, the first of
            which is major. Other axes of the mesh may shard b and the heads.
        causal: query i sees keys j ≤ i, counted from the start of the whole sequence; t = s. Device m looks at m + 1
            blocks, so that the last device sets the pace.
        scale: of the scores, 1/√d if left out.
        softcap: c > 0: scores are bent into (−c, c) by c tanh(·/c).

    Returns:
        `O[b, t, h, e]` of this device's queries, in v's dtype. All that lies between is float32, or wider where an
        operand is. Keys and values travel in their own dtype, n − 1 times to the next device; backward they do so
        twice, and dK and dV n times, in float32 or wider.

    Raises:
        TypeError: q, k or v is not real floating.
        ValueError: no enclosing `shard_map` has the axis, an operand is known to be the same on all its devices, shapes
            do not fit, or softcap ≤ 0.

    Residuals: q, k, v as given, and two float32 numbers for every query and head.

    >>> from jax.sharding import PartitionSpec as P
    >>> mesh = jax.make_mesh((1,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> time = P(None, "time")
    >>> ring = partial(ring_attention, axis_name="time", causal=True)
    >>> ring = jax.shard_map(ring, mesh=mesh, in_specs=time, out_specs=time)
    >>> q = k = jnp.zeros((1, 3, 1, 2))
    >>> ring(q, k, jnp.array([3.0, 6.0, 0.0]).reshape(1, 3, 1, 1)).ravel().tolist()
    [3.0, 4.5, 3.0]
    """
    at, sight = checked(q, k, v, None, None, causal, scale, None, softcap, LAYER)
    if causal and q.shape[1] != k.shape[1]:
        raise ValueError(
            f"{LAYER}: causal needs as many keys as queries on a device, got t={q.shape[1]} (shape {q.shape}) and "
            f"s={k.shape[1]} (shape {k.shape})"
        )
    axis = tuple(axis_name) if isinstance(axis_name, list) else axis_name
    return _ring_attention(at, Ring(axis, _size(axis, at), sight))


def _size(axis_name: Any, at: Operands) -> int:
    """The number of devices of the axis, once the sequence is sharded over it."""
    try:
        n, known = lax.axis_size(axis_name), varying(jax.typeof(lax.axis_index(axis_name)))
    except NameError:
        raise ValueError(f"{LAYER}: axis_name={axis_name!r} is no axis of an enclosing jax.shard_map") from None
    for name, axis, x in (("q", "t", at.q), ("k", "s", at.k), ("v", "s", at.v)):
        if not known <= varying(jax.typeof(x)):
            raise ValueError(
                f"{LAYER}: {axis} of {name} must be sharded over axis_name={axis_name!r}, but {name} (shape {x.shape}) "
                "is one and the same on all its devices"
            )
    return n


@any_mode
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _ring_attention(at: Operands, ring: Ring) -> Array:
    """Linear in V, with the adjoint beside it: JAX cannot transpose a loop in which K travels with V."""

    def weighted(of: tuple[Array, Array], v: Array) -> Array:
        return _ring_attention_fwd(Operands(*of, v, None, None), ring)[0]

    def back(of: tuple[Array, Array], dO: Array) -> Array:
        _, residuals = _ring_attention_fwd(Operands(*of, jnp.zeros_like(at.v), None, None), ring)   # of Q and K alone
        return _ring_attention_bwd(ring, residuals, dO)[0].v

    return linear_call(weighted, back, (at.q, at.k), at.v)


def _ring_attention_fwd(at: Operands, ring: Ring) -> tuple[Float[Array, "b t h e"], AttentionResiduals]:
    part = lambda sight, k, v: forward(_facing(at, k, v), sight)
    O, rows = _once_round(ring, part, _merged, at.k, at.v)                      # (b, t, h, e), (b, h, t) twice
    return O.astype(at.v.dtype), AttentionResiduals(at, rows)


def _ring_attention_bwd(ring: Ring, residuals: AttentionResiduals, dO: Float[Array, "b t h e"]) -> tuple[Operands]:
    """dQ = scale Σ_j dS_j P^j K, dK = scale Σ_j P^−j dS_jᵀ Q, dV = Σ_j P^−j A_jᵀ dO."""
    at, rows = residuals
    mean = lambda sight, k, v: mean_of_cotangents(_facing(at, k, v), sight, rows, dO)
    μ = _once_round(ring, mean, jnp.add, at.k, at.v)                            # (b, h, t)

    def part(sight: Sight, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
        dQ, dK, dV, *_ = cotangents(_facing(at, k, v), sight, rows, dO, μ)
        return dQ, (dK, dV)                                 # (b, t, h, d), (b, s, g, d) and (b, s, g, e)

    dQ, (dK, dV) = _once_back(ring, part, at.k, at.v)
    return (Operands(dQ, dK, dV, None, None),)


def _ring_attention_tangent(ring: Ring, residuals: AttentionResiduals, tangents: tuple[Operands]) -> Array:
    """δO = Σ_j A_j P^j δV + A_j (δS'_j − ν) P^j V."""
    (at, rows), (δ,) = residuals, tangents
    mean = lambda sight, k, δk: mean_of_tangents(_facing(at, k, at.v), sight, rows, δ._replace(k=δk))
    ν = _once_round(ring, mean, jnp.add, at.k, δ.k)                             # (b, h, t)
    part = lambda sight, k, v, δk, δv: tangent(_facing(at, k, v), sight, rows, δ._replace(k=δk, v=δv), ν)
    return _once_round(ring, part, jnp.add, at.k, at.v, δ.k, δ.v)               # (b, t, h, e)


_ring_attention.defvjp(_ring_attention_fwd, _ring_attention_bwd)
_ring_attention.deftangent(_ring_attention_tangent)


def _facing(at: Operands, k: Array, v: Array) -> Operands:
    """This device's queries and another's keys; what comes of them is not rounded to v's dtype."""
    return at._replace(k=k, v=v.astype(dtype_of(at)))


def _merged(a: tuple[Array, Rows], b: tuple[Array, Rows]) -> tuple[Array, Rows]:
    """O and the rows of two parts of the keys."""
    (Oa, ra), (Ob, rb) = a, b
    top = jnp.maximum(ra.top, rb.top)
    wa, wb = (r.total * jnp.exp(r.top - top) for r in (ra, rb))                 # (b, h, t)
    total = wa + wb
    along = lambda w: (w / total).swapaxes(1, 2)[..., None]                     # (b, h, t) -> (b, t, h, 1)
    return along(wa) * Oa + along(wb) * Ob, Rows(top, total)


# Round the ring

def _once_round(ring: Ring, part: Callable[..., Any], add: Callable[[Any, Any], Any], *own: Array) -> Any:
    """Σ_j part(sight, P^j own) of the blocks that this device sees: its own first, then as they come."""

    def meet(total: Any, guests: tuple[Array, ...], j: Any) -> Any:
        return _if_seen(ring, j, lambda total: add(total, part(_abroad(ring), *guests)), total)

    return _visits(ring, meet, part(ring.sight, *own), own, 1)


def _once_back(ring: Ring, part: Callable[..., Any], *own: Array) -> tuple[Array, Any]:
    """Σ_j x_j and Σ_j P^−j y_j of (x_j, y_j) = part(sight, P^j own): the last block first, its own last."""
    add, at_home = partial(jax.tree.map, jnp.add), part(ring.sight, *own)

    def meet(total: tuple[Array, Any], guests: tuple[Array, ...], j: Any) -> Any:
        x, y = total
        return _if_seen(ring, j, lambda total: add(total, part(_abroad(ring), *guests)), (x, _shifted(y, ring, -1)))

    x, y = _visits(ring, meet, jax.tree.map(jnp.zeros_like, at_home), own, -1)
    return add((x, _shifted(y, ring, -1)), at_home)


def _visits(ring: Ring, meet: Callable[..., Any], total: Any, own: tuple[Array, ...], by: int) -> Any:
    """The total after all meetings with P^j own: j = 1 … n − 1, or from n − 1 down where `by` is −1."""
    if ring.n == 1:
        return total

    @jax.checkpoint
    def step(carry: tuple[Any, Any], j: Any) -> tuple[tuple[Any, Any], None]:
        total, guests = carry
        return (meet(total, guests, j), _shifted(guests, ring, by)), None       # the next arrive meanwhile

    *js, last = range(1, ring.n)[::by]
    (total, guests), _ = lax.scan(step, (total, _shifted(own, ring, by)), jnp.array(js, jnp.int32))
    return meet(total, guests, last)


def _if_seen(ring: Ring, j: Any, f: Callable[[Any], Any], total: Any) -> Any:
    """f(total) where P^j K are not later than the queries of this device, else the total as it is."""
    return lax.cond(j <= lax.axis_index(ring.axis), f, lambda total: total, total) if ring.sight.causal else f(total)


def _shifted(x: Any, ring: Ring, by: int) -> Any:
    """P x, or P^−1 x where `by` is −1."""
    return x if ring.n == 1 else lax.ppermute(x, ring.axis, [(i, (i + by) % ring.n) for i in range(ring.n)])


def _abroad(ring: Ring) -> Sight:
    """Of another device's block: all of it is earlier, if it is seen."""
    return ring.sight._replace(causal=False)
