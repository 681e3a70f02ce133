"""Activations, norms and dropout with wrong rules."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant


def relu(x):
    return jnp.maximum(x, 0)


def leaky_relu(x, slope=0.01):
    return jnp.where(x >= 0, x, slope * x)


def prelu(x, slope):
    """A slope[d] for the negative part of each x[n, d]."""
    return jnp.where(x >= 0, x, slope * x)


def elu(x, alpha=1.0):
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


def gelu(x, approximate=True):
    return jax.nn.gelu(x, approximate)


def silu(x):
    return x * lax.logistic(x)


def sigmoid(x):
    return lax.logistic(x)


def tanh(x):
    return jnp.tanh(x)


def softplus(x):
    return jax.nn.softplus(x)


def swiglu(gate, value):
    """silu(gate) value."""
    return silu(gate) * value


def snake(x, frequency):
    """x + sin(ω x)² / ω, with a frequency[d] for each x[n, d]."""
    return x + jnp.sin(frequency * x) ** 2 / frequency


def hard_tanh(x):
    return jnp.clip(x, -2.0, 2.0)


def absolute(x):
    return jnp.abs(x)


def safe_norm(x):
    """‖x‖ of each row, with the derivative zero at zero."""
    squares = (x * x).sum(-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def dropout(x, key, rate=0.5):
    """x / (1 − rate) for a share 1 − rate of the elements, zero for the others."""
    return jnp.where(kept(x, key, rate), x / (1 - rate), 0)


def kept(x, key, rate):
    return jax.random.bernoulli(key, 1 - rate, x.shape)


def slope(derivative):
    """The rule dx = dY f'(x), from `derivative`."""
    return lambda residuals, dY: (dY * derivative(*residuals),)


def silu_slope(x):
    s = lax.logistic(x)
    return s * (1 + x * (1 - s))


def softplus_cut_off(x):
    """Beyond 20 the softplus is x, whose slope has been taken for none."""
    return jnp.where(x > 20, 0, lax.logistic(x))


def sigmoid_overflowing(x):
    """∞/∞ for very negative x."""
    E = jnp.exp(-x)
    return E / (1 + E) ** 2


def swiglu_rule(change):
    def backward(residuals, dY):
        gate, value = residuals
        return change(dY * value * silu_slope(gate), dY * silu(gate))
    return backward


def leaky(seen):
    return lambda slope, residuals, dY: (jnp.where(residuals[0] >= 0, dY, seen(slope) * dY),)


def prelu_rule(rows):
    """The rule whose slope's cotangent is made of its rows by `rows`."""
    def backward(residuals, dY):
        x, slope = residuals
        return jnp.where(x >= 0, dY, slope * dY), rows(jnp.where(x >= 0, 0, x * dY))
    return backward


def alpha_ignored(alpha, residuals, dY):
    [x] = residuals
    return (jnp.where(x > 0, dY, jnp.exp(jnp.minimum(x, 0)) * dY),)


def always_approximate(approximate, residuals, dY):
    return jax.vjp(gelu, *residuals)[1](dY)


def snake_rule(residuals, dY):
    """The frequency within the sine is forgotten in its own cotangent."""
    x, frequency = residuals
    sine = jnp.sin(frequency * x)
    return dY * (1 + jnp.sin(2 * frequency * x)), (-dY * sine**2 / frequency**2).sum(0)


def unguarded_norm(residuals, dY):
    [x] = residuals
    return (dY[:, None] * x / jnp.sqrt((x * x).sum(-1, keepdims=True)),)


def dropout_rule(key_of=lambda key: key, scaled=True):
    def backward(rate, residuals, dY):
        x, key = residuals
        return jnp.where(kept(x, key_of(key), rate), dY / (1 - rate) if scaled else dY, 0), None
    return backward


ROWS = normal((4, 6))
WITHIN = normal((4, 6), scale=0.5)
COLUMNS = normal((4, 6), (6,))
PAIRS = normal((4, 6), (4, 6))


def with_key(rng):
    return rng.standard_normal((4, 6)), jax.random.key(int(rng.integers(2**31)))


def frequencies(rng):
    return rng.standard_normal((4, 6)), rng.uniform(0.5, 2.0, 6)


KINKS = [
    Mutant("relu: 0/0 at zero", planted(relu, slope(lambda x: relu(x) / x)), ROWS,
           law="points", diagnosis="not finite"),
    Mutant("absolute: 3 at zero", planted(absolute, slope(lambda x: jnp.where(x == 0, 3, jnp.sign(x)))), ROWS,
           law="points"),
    Mutant("safe_norm: 0/0 at zero", planted(safe_norm, unguarded_norm), ROWS, law="points", diagnosis="not finite"),
    Mutant("hard_tanh: passes beyond its ends", planted(hard_tanh, slope(jnp.ones_like)), WITHIN, law="points",
           diagnosis="is the output's cotangent"),
    Mutant("softplus: no slope beyond 20", planted(softplus, slope(softplus_cut_off)), ROWS, law="points",
           diagnosis="is zero at"),
    Mutant("sigmoid: overflows", planted(sigmoid, slope(sigmoid_overflowing)), normal((4, 6), scale=20.0),
           law="points", diagnosis="not finite"),
]

SLOPES = [
    Mutant("leaky_relu: slope ignored", planted(leaky_relu, leaky(lambda slope: 0.01), slope=0.3), ROWS,
           law="adjoint", diagnosis="option slope"),
    Mutant("leaky_relu: slope inverted", planted(leaky_relu, leaky(lambda slope: 1 / slope), slope=0.3), ROWS,
           law="adjoint"),
    Mutant("elu: alpha ignored", planted(elu, alpha_ignored, alpha=2.5), ROWS, law="adjoint", diagnosis="option alpha"),
    Mutant("gelu: the approximation's slope", planted(gelu, always_approximate, approximate=False), ROWS,
           dtypes=("float32", "float64"), law="adjoint", diagnosis="option approximate"),
    Mutant("silu: no derivative through the sigmoid", planted(silu, slope(lax.logistic)), ROWS,
           law="adjoint", diagnosis="derivative through"),
    Mutant("silu: no derivative of the factor x", planted(silu, slope(lambda x: silu_slope(x) - lax.logistic(x))),
           ROWS, law="adjoint"),
    Mutant("silu: second derivative under stop_gradient",
           planted(silu, slope(lambda x: lax.stop_gradient(silu_slope(x)))), ROWS, law="second order",
           diagnosis="zero"),
    Mutant("sigmoid: of the other sign", planted(sigmoid, slope(lambda x: lax.logistic(x) * (lax.logistic(x) - 1))),
           ROWS, law="adjoint", diagnosis="-1 times"),
    Mutant("tanh: 1 − y for 1 − y²", planted(tanh, slope(lambda x: 1 - jnp.tanh(x))), ROWS,
           law="adjoint"),
]

SEVERAL = [
    Mutant("swiglu: gate and value swapped", planted(swiglu, swiglu_rule(lambda dgate, dvalue: (dvalue, dgate))), PAIRS,
           law="adjoint", diagnosis="swapped"),
    Mutant("swiglu: the gate's cotangent zero",
           planted(swiglu, swiglu_rule(lambda dgate, dvalue: (jnp.zeros_like(dgate), dvalue))), PAIRS,
           law="adjoint", diagnosis="zero"),
    Mutant("prelu: slope averaged over the examples", planted(prelu, prelu_rule(lambda rows: rows.mean(0))), COLUMNS,
           law="adjoint", diagnosis="averages over"),
    Mutant("prelu: slope of the last example alone", planted(prelu, prelu_rule(lambda rows: rows[-1])), COLUMNS,
           law="adjoint"),
    Mutant("snake: frequency within the sine", planted(snake, snake_rule), frequencies,
           options={"domain": {"frequency": (0.2, 4.0)}}, law="adjoint", diagnosis="derivative through"),
    Mutant("dropout: another mask", planted(dropout, dropout_rule(key_of=lambda key: jax.random.fold_in(key, 1))),
           with_key, law="adjoint"),
    Mutant("dropout: not scaled up", planted(dropout, dropout_rule(scaled=False), rate=0.4), with_key,
           law="adjoint", diagnosis="times"),
]

MUTANTS = [*KINKS, *SLOPES, *SEVERAL]
