"""Softmax and its like with wrong rules.

Along the last axis, with p = softmax(x), the adjoints are

    softmax        dx = p (dY − Σ dY p)
    log_softmax    dx = dY − p Σ dY
    logsumexp      dx = p dY
    entropy        dx = −p (log p + H) dY,  H = −Σ p log p
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant


def softmax(x, axis=-1, temperature=1.0):
    """exp(x/T) / Σ exp(x/T) along an axis."""
    E = jnp.exp((x - lax.stop_gradient(x.max(axis, keepdims=True))) / temperature)
    return E / E.sum(axis, keepdims=True)


def softmax_where(x, mask):
    """The softmax of those elements where mask; zero elsewhere, and where a row has none."""
    p = softmax(jnp.where(mask, x, -1e30))
    return jnp.where(mask, p, 0)


def log_softmax(x):
    """x − log Σ exp x."""
    x = x - lax.stop_gradient(x.max(-1, keepdims=True))
    return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


def logsumexp(x):
    """log Σ exp x[n, d] over d."""
    top = lax.stop_gradient(x.max(-1))
    return top + jnp.log(jnp.exp(x - top[:, None]).sum(-1))


def entropy(x):
    """−Σ p log p, as log Σ exp x − Σ p x, which no probability of zero disturbs."""
    x = x - lax.stop_gradient(x.max(-1, keepdims=True))
    return jnp.log(jnp.exp(x).sum(-1)) - (softmax(x) * x).sum(-1)


def standardized_softmax(x):
    """Of x with its spread taken out, where there is any."""
    deviation = x - x.mean(-1, keepdims=True)
    squares = (deviation * deviation).mean(-1, keepdims=True)
    return softmax(deviation * lax.rsqrt(jnp.where(squares > 0, squares, 1)))


def softmax_rule(p=softmax, row=True, sum_axis=None, axis_seen=None, temperature_seen=None, divided=True):
    """The rule right but for what is given: how p is recomputed, the sum and its axis, the options it sees."""
    def backward(axis, temperature, residuals, dY):
        axis, T = axis_seen or axis, temperature_seen or temperature
        P = p(*residuals, axis, T)
        total = (dY * P).sum(axis if sum_axis is None else sum_axis, keepdims=True) if row else 0
        return (P * (dY - total) / (T if divided else 1),)
    return backward


def probabilities_clipped(x, axis, temperature):
    return jnp.clip(softmax(x, axis, temperature), 0, 0.99)


def two_classes(axis, temperature, residuals, dY):
    """A short cut for two classes, of which it takes the wrong one first."""
    [x] = residuals
    if x.shape[axis] != 2:
        return softmax_rule()(axis, temperature, residuals, dY)
    slope = softmax(x, axis, temperature).prod(axis, keepdims=True) / temperature
    return (slope * jnp.diff(dY, axis=axis) * jnp.asarray([1.0, -1.0], x.dtype),)


def unmasked(residuals, dY):
    return *softmax_rule()(-1, 1.0, residuals[:1], dY), None


def hard_log_softmax(residuals, dY):
    """As if log Σ exp were the maximum."""
    [x] = residuals
    return (dY - jax.nn.one_hot(x.argmax(-1), x.shape[-1], dtype=x.dtype) * dY.sum(-1, keepdims=True),)


def with_logarithm(residuals, dY):
    """p log p is NaN where p underflows."""
    p = softmax(*residuals)
    information = -p * jnp.log(p)
    return ((information - p * information.sum(-1, keepdims=True)) * dY[:, None],)


def divided_by_spread(residuals, dY):
    """The spread without its guard: 0/0 in a row of equal numbers."""
    [x] = residuals
    d = x.shape[-1]
    deviation = x - x.mean(-1, keepdims=True)
    r = 1 / jnp.sqrt((deviation * deviation).mean(-1, keepdims=True))
    normalized = deviation * r
    [g] = softmax_rule()(-1, 1.0, (normalized,), dY)
    return (r * (g - g.mean(-1, keepdims=True) - normalized * (g * normalized).sum(-1, keepdims=True) / d),)


ROWS = normal((4, 6))
SQUARE = normal((6, 6))


def leading(rng):
    """One element of each row ahead of the others, though not by much."""
    return (0.3 * rng.standard_normal((4, 6)) + np.eye(4, 6),)


def far_apart(rng):
    """Half of each row far below the other half."""
    return (rng.standard_normal((4, 6)) - 30 * (np.arange(6) % 2),)


def masked(rng):
    x = rng.standard_normal((4, 6))
    return x, np.arange(24).reshape(4, 6) % 5 > 1


MUTANTS = [
    Mutant("softmax: no derivative through the sum", planted(softmax, softmax_rule(row=False)), ROWS,
           law="adjoint", diagnosis="derivative through"),
    Mutant("softmax: sum over the wrong axis, square", planted(softmax, softmax_rule(sum_axis=0)), SQUARE,
           law="adjoint"),
    Mutant("softmax: axis ignored", planted(softmax, softmax_rule(axis_seen=-1), axis=0), ROWS,
           law="adjoint", diagnosis="option axis"),
    Mutant("softmax: temperature ignored", planted(softmax, softmax_rule(temperature_seen=1.0), temperature=2.5), ROWS,
           law="adjoint", diagnosis="option temperature"),
    Mutant("softmax: not divided by the temperature", planted(softmax, softmax_rule(divided=False), temperature=2.5),
           ROWS, law="adjoint", diagnosis="times"),
    Mutant("softmax: probabilities clipped at 0.99", planted(softmax, softmax_rule(p=probabilities_clipped)), leading,
           law="points"),
    Mutant("softmax: wrong for two classes", planted(softmax, two_classes), normal((4, 3)),
           law="sizes", diagnosis="-1 times"),
    Mutant("softmax: mask ignored", planted(softmax_where, unmasked), masked, law="adjoint", diagnosis="mask"),
    Mutant("log_softmax: no derivative through the logarithm", planted(log_softmax, lambda residuals, dY: (dY,)), ROWS,
           law="adjoint", diagnosis="derivative through"),
    Mutant("log_softmax: the maximum for the log-sum-exp", planted(log_softmax, hard_log_softmax), ROWS, law="adjoint"),
    Mutant("logsumexp: cotangent ignored",
           planted(logsumexp, lambda residuals, dY: (softmax(*residuals),)), ROWS,
           law="linear", diagnosis="cotangent is ignored"),
    Mutant("entropy: 0 log 0 where a probability underflows", planted(entropy, with_logarithm), far_apart,
           law="points", diagnosis="not finite"),
    Mutant("standardized softmax: 0/0 where all are equal", planted(standardized_softmax, divided_by_spread), ROWS,
           law="points", diagnosis="not finite"),
]
