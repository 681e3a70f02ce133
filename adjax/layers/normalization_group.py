"""Group normalization: the channels of each example are normalized group by group.

Axes: n examples, s positions (any number of axes), c channels in g groups.

    Π X = the mean over the s positions and the c/g channels of a group, example by example, N = s c/g entries each

With E[c, g] = 1 where channel c is in group g, the group means of a sum T[n, c] over positions are T E/N and go back to
the channels by Eᵀ: Π = E Eᵀ Σₛ/N. The rest is in `normalization`: with A = Σₛ dY and C = Σₛ dY (X − μ), both [n, c],

    dX = r (scale dY − Π(scale A) − (X − μ) r² Π(scale C)),    dscale = Σₙ r C,    dbias = Σₙ A

μ is summed relative to a number m near it, so that nothing cancels where |μ| ≫ σ: the mean over the first of the s
positions, which spares a pass over X. It is near enough: of a share f of the entries, σ² ≥ f (m − μ)².

Residuals: X, scale, and μ and r of every group of every example, n g numbers each; of bias only its type.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from ..adjoint import Like, any_mode, contract, like
from .checks import kind
from .normalization import (
    NormParams,
    along,
    centred,
    check_channels,
    fresh,
    normalized,
    pulled_back,
    working_dtype,
)


class GroupResiduals(NamedTuple):
    """What the backward pass keeps."""

    scale: Array | None             # dX needs it
    bias: Like | None               # no values: whether there is one
    x: Float[Array, "n *s c"]       # X − μ is recomputed from it
    mean: Float[Array, "n *ones g"]
    r: Float[Array, "n *ones g"]


def group_norm(params: Any, x: Array, *, groups: int, eps: float = 1e-5) -> Array:
    """Y = scale (X − μ)/√(σ² + ε) + bias, with the mean and variance of each group of channels of each example.

    Args:
        params: `NormParams(scale[c] | None, bias[c] | None)` or a plain tuple. Real floating.
        x: `[n, ..., c]`: the first axis are the examples, those between are positions and may be missing. Without them,
            `[n, c]`, a statistic has c/g entries; `[c]` is one example. Real floating. One image `[h, w, c]` is not
            told from h rows `[w, c]`: give it as `x[None]`, or under `jax.vmap`.
        groups: g ≥ 1, a divisor of c. With g = 1 an example is normalized as a whole, with g = c each channel alone.
        eps: ε > 0.

    Returns:
        Y, of x's shape and dtype. The variance is the biased one. Statistics, and all that lies between, are float32,
        or wider where an operand is. Where a statistic has one entry, Y = bias.

    Raises:
        TypeError: an argument is no real floating array, params is no pair, groups is no integer.
        ValueError: scale or bias is no `[c]`, c is not divisible by groups, groups < 1, eps ≤ 0.

    Residuals: x, scale, and the mean and 1/√(σ² + ε) of each group of each example.

    >>> x = jnp.array([[1.0, 3.0, -2.0, 2.0]])
    >>> y = group_norm((jnp.array([1.0, 1.0, 4.0, 4.0]), None), x, groups=2)
    >>> [round(v, 2) for v in y[0].tolist()]
    [-1.0, 1.0, -4.0, 4.0]
    """
    checked = check_channels("group_norm", params, x, eps)
    return _group_norm(checked, x, _checked_groups(groups, x), float(eps))


@any_mode
@partial(jax.custom_vjp, nondiff_argnames=("groups", "eps"))
def _group_norm(params: NormParams, x: Array, groups: int, eps: float) -> Array:
    return _group_norm_fwd(params, x, groups, eps)[0]


def _group_norm_fwd(
    params: NormParams, x: Float[Array, "n *s c"], groups: int, eps: float
) -> tuple[Array, GroupResiduals]:
    x_ = x.astype(working_dtype(x, *params))
    average, spread = lambda t: _averages(_total(t), t, groups), lambda m: _spread(m, x)
    near = lax.stop_gradient(average(x_[:, :1] if x.ndim > 2 else x_))
    mean = near + average(centred(x_, fresh(spread(near))[0]))                     # (n, s, c) -> (n, 1, g)
    var = average(jnp.square(centred(x, fresh(spread(mean))[0])))                  # (n, s, c) -> (n, 1, g)
    r = lax.rsqrt(var + eps)
    y = normalized(x, spread(mean), spread(r), params)                             # (n, s, c)
    return y, GroupResiduals(params.scale, like(params.bias), x, mean, r)


def _group_norm_bwd(
    groups: int, eps: float, residuals: GroupResiduals, dY: Float[Array, "n *s c"]
) -> tuple[NormParams, Array]:
    scale, bias, x, mean, r = residuals
    mean, r = _spread(mean, x), _spread(r, x)                                      # (n, 1, g) -> (n, 1, c)
    k = r if scale is None else r * along(scale.astype(r.dtype), x)
    dY_ = dY.astype(r.dtype)
    A = _total(dY_)                                                                # (n, s, c) -> (n, 1, c)
    C = _total(dY_ * centred(x, fresh(mean, r)[0]))                                # (n, s, c) -> (n, 1, c)
    dbias = None if bias is None else jnp.sum(A, range(x.ndim - 1))                # (n, 1, c) -> (c,)
    dscale = None if scale is None else jnp.sum(r * C, range(x.ndim - 1))          # (n, 1, c) -> (c,)
    p = r * r * _spread(_averages(k * C, x, groups), x)                            # (n, 1, c)
    q = _spread(_averages(k * A, x, groups), x)                                    # (n, 1, c)
    return NormParams(dscale, dbias), pulled_back(x, dY, mean, (k, p, q))          # (n, s, c)


_group_norm.defvjp(_group_norm_fwd, _group_norm_bwd)


def _total(t: Array) -> Array:
    """Σₛ, its axes kept as 1, the last of them first: XLA:CPU sums all of them at once with one thread."""
    positions = range(1, t.ndim - 1)
    if len(positions) > 1:
        (t,) = fresh(jnp.sum(t, -2, keepdims=True))
    return jnp.sum(t, positions, keepdims=True)


def _members(x: Array, groups: int, dtype: Any) -> Array:
    """E[c, g]."""
    return jnp.asarray(np.repeat(np.eye(groups), x.shape[-1] // groups, axis=0), dtype)


def _averages(total: Array, x: Array, groups: int) -> Array:
    """Of each group, from the totals over positions: T E/N."""
    N = max(math.prod(x.shape[1:]) // groups, 1) if x.ndim > 1 else max(len(x) // groups, 1)
    with jax.default_matmul_precision("highest"):
        return contract("...c,cg->...g", total, _members(x, groups, total.dtype)) / N


def _spread(statistic: Array, x: Array) -> Array:
    """To the channels of each group: Eᵀ. Written as a product, it is a small array also where all of X reads it."""
    with jax.default_matmul_precision("highest"):
        return contract("...g,cg->...c", statistic, _members(x, statistic.shape[-1], statistic.dtype))


def _checked_groups(groups: Any, x: Array) -> int:
    if not isinstance(groups, (int, np.integer)) or isinstance(groups, bool):
        raise TypeError(f"group_norm: groups must be an integer, got {kind(groups)}")
    if groups < 1:
        raise ValueError(f"group_norm: groups must be at least 1, got {groups}")
    if x.shape[-1] % groups:
        raise ValueError(f"group_norm: groups={groups} do not divide the c={x.shape[-1]} channels (shape {x.shape})")
    return int(groups)
