"""Normalizations with wrong rules.

Axes: n examples, d features. With r = 1/√(var + ε), x̂ = (x − mean) r and g = dY γ,

    dx = r (g − mean(g) − x̂ mean(g x̂))        dγ = Σ_n dY x̂        dβ = Σ_n dY

the two means taken over whatever the statistics are taken over.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant


def statistics(x, eps, axis=-1):
    """x̂ and r."""
    mean = x.mean(axis, keepdims=True)
    r = lax.rsqrt(((x - mean) ** 2).mean(axis, keepdims=True) + eps)
    return (x - mean) * r, r


def layer_norm(x, gamma, beta, eps=1e-5):
    """Y[n, d] = γ[d] x̂[n, d] + β[d], normalized over d."""
    return gamma * statistics(x, eps)[0] + beta


def rms_norm(x, gamma, eps=1e-5):
    """Y[n, d] = γ[d] x[n, d] / √(mean_d x² + ε)."""
    return gamma * (x * lax.rsqrt((x * x).mean(-1, keepdims=True) + eps))


def batch_norm(x, gamma, mean, var, train=False):
    """Y[n, d] = γ[d] x̂[n, d], normalized over n, or by the running statistics when not training."""
    if train:
        return gamma * statistics(x, 1e-5, axis=0)[0]
    return gamma * (x - mean) * lax.rsqrt(var + 1e-5)


def group_norm(x, groups=1):
    """x̂[n, d], normalized over each of the groups into which d is divided in turn."""
    n, d = x.shape
    return statistics(x.reshape(n, groups, d // groups), 1e-5)[0].reshape(n, d)


def masked_batch_norm(x, mask):
    """x̂[n, d], normalized over those examples where mask[n]; zero elsewhere."""
    at, count = mask[:, None], jnp.maximum(mask.sum(), 1).astype(x.dtype)
    mean = jnp.where(at, x, 0).sum(0) / count
    var = jnp.where(at, (x - mean) ** 2, 0).sum(0) / count
    return jnp.where(at, (x - mean) * lax.rsqrt(var + 0.1), 0)


def masked_rms_norm(x, mask):
    """x r, zero where not mask[n, d]; r from the elements that count."""
    return jnp.where(mask, x * masked_r(x, mask), 0)


def masked_r(x, mask):
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1).astype(x.dtype)
    return lax.rsqrt(jnp.where(mask, x * x, 0).sum(-1, keepdims=True) / count + 0.1)


def adjoint_x(g, normalized, r, axis=-1, through_mean=True, through_var=True, less=0):
    """dx; the parts that come through the statistics can be left out, and their means taken over d − less."""
    mean = lambda a: a.sum(axis, keepdims=True) / (a.shape[axis] - less)
    return r * (g - (mean(g) if through_mean else 0) - (normalized * mean(g * normalized) if through_var else 0))


def layer_norm_rule(dx=adjoint_x, dgamma=None, dbeta=None, eps_seen=None):
    """The rule right but for what is given."""
    def backward(eps, residuals, dY):
        x, gamma, beta = residuals
        normalized, r = statistics(x, eps if eps_seen is None else eps_seen)
        return (
            dx(dY * gamma, normalized, r),
            dgamma(dY, x, beta) if dgamma else (dY * normalized).sum(0),
            dbeta(dY, normalized) if dbeta else dY.sum(0),
        )
    return backward


def sums_swapped(eps, residuals, dY):
    dx, dgamma, dbeta = layer_norm_rule()(eps, residuals, dY)
    return dx, dbeta, dgamma


def from_the_output(eps, residuals, dY):
    """x̂ recovered from the output, which γ = 0 has erased."""
    x, gamma, beta = residuals
    normalized = (layer_norm(x, gamma, beta, eps) - beta) / gamma
    _, r = statistics(x, eps)
    return adjoint_x(dY * gamma, normalized, r), (dY * normalized).sum(0), dY.sum(0)


def rows_in_bfloat16(eps, residuals, dY):
    """dβ summed row by row, in the dtype of the rows."""
    dx, dgamma, _ = layer_norm_rule()(eps, residuals, dY)
    start = jnp.zeros(dY.shape[1:], dY.dtype)
    return dx, dgamma, lax.scan(lambda total, row: (total + row, None), start, dY)[0]


def rms_norm_rule(through_r=True, rows=jnp.sum):
    def backward(eps, residuals, dY):
        x, gamma = residuals
        r = lax.rsqrt((x * x).mean(-1, keepdims=True) + eps)
        return adjoint_x(dY * gamma, x * r, r, through_mean=False, through_var=through_r), rows(dY * x * r, axis=0)
    return backward


def as_in_evaluation(train, residuals, dY):
    x, gamma, mean, var = residuals
    r = lax.rsqrt(var + 1e-5)
    return dY * gamma * r, (dY * (x - mean) * r).sum(0), jnp.zeros_like(mean), jnp.zeros_like(var)


def groups_seen(divide):
    """The rule that divides d its own way: `divide(x, groups)` has the elements of a group along its last axis."""
    def backward(groups, residuals, dY):
        x = residuals[0]
        _, pullback = jax.vjp(lambda x: statistics(divide(x, groups), 1e-5)[0], x)
        return pullback(divide(dY, groups))
    return backward


def every_example(residuals, dY):
    x, mask = residuals
    return jax.vjp(lambda x: masked_batch_norm(x, jnp.ones_like(mask)), x)[1](dY)[0], None


def unmasked_at_the_end(residuals, dY):
    x, mask = residuals
    r, count = masked_r(x, mask), jnp.maximum(mask.sum(-1, keepdims=True), 1).astype(x.dtype)
    return r * dY - x * r**3 * jnp.where(mask, dY * x, 0).sum(-1, keepdims=True) / count, None


ROWS = normal((4, 6), (6,), (6,))
SQUARE = normal((6, 6), (6,), (6,))
SCALED = normal((4, 6), (6,))


def running(rng):
    x, gamma, mean = normal((6, 4), (4,), (4,))(rng)
    return x, gamma, mean, rng.uniform(0.5, 2.0, 4)


def masked(*axes):
    """x[n, d], and a mask of its leading axes with both values."""
    def arguments(rng):
        x = rng.standard_normal((5, 6))
        shape = tuple(x.shape[i] for i in axes)
        return x, np.arange(np.prod(shape)).reshape(shape) % 3 != 1
    return arguments


LAYER = {
    "no derivative through the mean": ({"dx": functools.partial(adjoint_x, through_mean=False)}, "derivative through"),
    "no derivative through the variance": ({"dx": functools.partial(adjoint_x, through_var=False)},
                                           "derivative through"),
    "n − 1 in the rule": ({"dx": functools.partial(adjoint_x, less=1)}, None),
    "dgamma of what is not normalized": ({"dgamma": lambda dY, x, beta: (dY * x).sum(0)}, None),
    "dgamma of what is already shifted": ({"dgamma": lambda dY, x, beta: (dY * (statistics(x, 1e-5)[0] + beta)).sum(0)},
                                          None),
    "dbeta of the other sign": ({"dbeta": lambda dY, normalized: -dY.sum(0)}, "-1 times"),
}

MUTANTS = [
    *(Mutant(f"layer_norm: {name}", planted(layer_norm, layer_norm_rule(**parts)), ROWS, law="adjoint",
             diagnosis=diagnosis) for name, (parts, diagnosis) in LAYER.items()),
    Mutant("layer_norm: eps ignored", planted(layer_norm, layer_norm_rule(eps_seen=1e-5), eps=0.5), ROWS,
           law="adjoint", diagnosis="option eps"),
    Mutant("layer_norm: means over the wrong axis, square",
           planted(layer_norm, layer_norm_rule(dx=functools.partial(adjoint_x, axis=0))), SQUARE, law="adjoint"),
    Mutant("layer_norm: dgamma and dbeta swapped", planted(layer_norm, sums_swapped), ROWS,
           law="adjoint", diagnosis="swapped"),
    Mutant("layer_norm: recovered from the output", planted(layer_norm, from_the_output), ROWS,
           law="points", diagnosis="not finite"),
    Mutant("layer_norm: dbeta summed in bfloat16", planted(layer_norm, rows_in_bfloat16), ROWS,
           dtypes=("bfloat16",), law="half precision"),
    Mutant("rms_norm: no derivative through r", planted(rms_norm, rms_norm_rule(through_r=False)), SCALED,
           law="adjoint", diagnosis="derivative through"),
    Mutant("rms_norm: dgamma averaged over the examples", planted(rms_norm, rms_norm_rule(rows=jnp.mean)), SCALED,
           law="adjoint", diagnosis="averages over"),
    Mutant("batch_norm: the rule of evaluation in training", planted(batch_norm, as_in_evaluation, train=True), running,
           law="adjoint", diagnosis="option train"),
    Mutant("batch_norm: mask ignored", planted(masked_batch_norm, every_example), masked(0),
           law="adjoint", diagnosis="mask"),
    Mutant("rms_norm: not masked at the end", planted(masked_rms_norm, unmasked_at_the_end), masked(0, 1),
           law="adjoint", diagnosis="mask"),
    Mutant("group_norm: groups ignored", planted(group_norm, groups_seen(lambda x, groups: x[:, None]), groups=2),
           normal((4, 6)), law="adjoint", diagnosis="option groups"),
    Mutant("group_norm: groups interleaved",
           planted(group_norm, groups_seen(lambda x, groups: x.reshape(len(x), -1, groups).swapaxes(1, 2)), groups=2),
           normal((4, 6)), law="adjoint"),
]
