"""Pooling with wrong rules.

Axes: b examples, t positions, m windows, k positions in a window, c channels. With the windows
X[b, m, k, c] = x[b, m·stride + k, c], the maximum is X at its argmax, and the adjoint puts dY there; an average is a
fixed linear map; and dx adds dX up where it came from.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant


def positions(t, window, stride):
    """Of every element of every window, (m, k)."""
    return stride * np.arange(max((t - window) // stride + 1, 0))[:, None] + np.arange(window)


def scattered(x, dX, window, stride):
    """dx[b, t, c]: the elements of the windows added up where they came from."""
    return jnp.zeros_like(x).at[:, positions(x.shape[1], window, stride)].add(dX)


def max_pool(x, window=2, stride=2):
    """Y[b, m, c] = max_k X[b, m, k, c]."""
    return x[:, positions(x.shape[1], window, stride)].max(2)


def max_pool_2d(x):
    """Y[b, h, w, c]: the maximum over blocks of 2 × 3."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 3, 3, c).max((2, 4))


def max_pool_padded(x):
    """Windows of 3 around every position; what is outside never wins."""
    return max_pool(jnp.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=-jnp.inf), 3, 1)


def max_pool_ceil(x):
    """Pairs; the last position of an odd number stands alone."""
    return max_pool(jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0)), constant_values=-jnp.inf))


def sum_pool(x, window=2, stride=2):
    """Y[b, m, c] = Σ_k X[b, m, k, c]."""
    return x[:, positions(x.shape[1], window, stride)].sum(2)


def avg_pool_padded(x):
    """Averages of what is inside, over windows of 3 around every position."""
    return sum_pool(jnp.pad(x, ((0, 0), (1, 1), (0, 0))), 3, 1) / inside(x)


def inside(x):
    """How many of the positions around each are inside, (t, 1)."""
    t = np.arange(x.shape[1])
    return jnp.asarray(1 + (t > 0) + (t < len(t) - 1), x.dtype)[:, None]


def avg_pool_2d(x):
    """Y[b, h, w, c]: the average over blocks of 2 × 2."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def global_avg_pool(x):
    """Y[b, c] = Σ_t x[b, t, c] / t."""
    return x.mean(1)


def soft_pool(x, temperature=1.0):
    """Y[b, c] = T log Σ_t exp(x[b, t, c] / T)."""
    return temperature * jax.nn.logsumexp(x / temperature, axis=1)


def weighted_pool(x, w):
    """Y[t, c] = Σ_b x[b, t, c] w[t]."""
    return x.sum(0) * w[:, None]


def to_the_maxima(hits):
    """The rule of max_pool where `hits(X, Y)` says which elements of the windows get dY."""
    def backward(window, stride, residuals, dY):
        [x] = residuals
        X = x[:, positions(x.shape[1], window, stride)]
        dX = hits(X, X.max(2, keepdims=True)) * dY[:, :, None]
        return (scattered(x, dX, window, stride),)
    return backward


def first(hit):
    """Of the True along the windows' axis, the first."""
    return hit & (hit.cumsum(2) == 1)


def every_tie(X, Y):
    return (X == Y).astype(X.dtype)


def last_tie_twice(X, Y):
    hit = X == Y
    last = jnp.flip(first(jnp.flip(hit, 2)), 2)
    return jnp.where(hit.sum(2, keepdims=True) > 1, 2 * last.astype(X.dtype), hit.astype(X.dtype))


def smallest(X, Y):
    return first(X.min(2, keepdims=True) == X).astype(X.dtype)


def overwritten(window, stride, residuals, dY):
    [x] = residuals
    dx = jnp.zeros_like(x)
    for m, at in enumerate(positions(x.shape[1], window, stride)):
        X = x[:, at]
        hit = first((X.max(1, keepdims=True) == X)[:, None])[:, 0]
        dx = dx.at[:, at].set(jnp.where(hit, dY[:, m, None], dx[:, at]))
    return (dx,)


def block_transposed(residuals, dY):
    """The place in the block, counted row by row, is taken as if counted column by column."""
    [x] = residuals
    b, h, w, c = x.shape
    X = x.reshape(b, h // 2, 2, w // 3, 3, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 3, c, 6)
    dX = jax.nn.one_hot(X.argmax(-1), 6, dtype=x.dtype) * dY[..., None]
    return (dX.reshape(b, h // 2, w // 3, c, 3, 2).transpose(0, 1, 5, 2, 4, 3).reshape(x.shape),)


def zero_padded(residuals, dY):
    [x] = residuals
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    return (jax.vjp(lambda padded: max_pool(padded, 3, 1), padded)[1](dY)[0][:, 1:-1],)


def last_lost(residuals, dY):
    [x] = residuals
    return jax.vjp(max_pool, x)[1](dY[:, :x.shape[1] // 2])


def as_average(window, stride, residuals, dY):
    [x] = residuals
    return (scattered(x, jnp.repeat(dY[:, :, None] / window, window, axis=2), window, stride),)


def padding_counted(residuals, dY):
    [x] = residuals
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    return (scattered(padded, jnp.repeat(dY[:, :, None] / 3, 3, axis=2), 3, 1)[:, 1:-1],)


def image_transposed(residuals, dY):
    return ((dY / 4).repeat(2, axis=1).repeat(2, axis=2).swapaxes(1, 2),)


def not_divided(residuals, dY):
    return (jnp.broadcast_to(dY[:, None], residuals[0].shape),)


def temperature_ignored(temperature, residuals, dY):
    return (jax.nn.softmax(residuals[0], axis=1) * dY[:, None],)


def mean_times_count(residuals, dY):
    """dw by way of a mean over the examples, which without examples is 0/0."""
    x, w = residuals
    dx = jnp.broadcast_to(dY * w[:, None], x.shape)
    return dx, x.shape[0] * (x.mean(0) * dY).sum(1)


SIGNALS = normal((2, 8, 5))
ODD = normal((2, 7, 5))
IMAGES = normal((2, 6, 6, 5))


def distinct(rng):
    """Without ties, nor near ones, in any dtype."""
    return (rng.permutation(80).reshape(2, 8, 5) / 16 - 2.4,)


def negative(rng):
    return (-np.abs(rng.standard_normal((2, 7, 5))) - 0.1,)


MUTANTS = [
    Mutant("max_pool: every tie gets the gradient", planted(max_pool, to_the_maxima(every_tie)), distinct,
           law="points"),
    Mutant("max_pool: the last tie gets it twice", planted(max_pool, to_the_maxima(last_tie_twice)), distinct,
           law="points"),
    Mutant("max_pool: the smallest gets the gradient", planted(max_pool, to_the_maxima(smallest)), SIGNALS,
           law="adjoint"),
    Mutant("max_pool: overlapping windows overwrite", planted(max_pool, overwritten, window=3, stride=1), ODD,
           law="adjoint"),
    Mutant("max_pool: the place in the block transposed", planted(max_pool_2d, block_transposed), IMAGES,
           law="adjoint"),
    Mutant("max_pool: padded with zeros in the rule", planted(max_pool_padded, zero_padded), negative, law="adjoint"),
    Mutant("max_pool: last element of odd sizes lost", planted(max_pool_ceil, last_lost), distinct, law="sizes",
           diagnosis="last element"),
    Mutant("sum_pool: averaged", planted(sum_pool, as_average, window=4), SIGNALS, law="adjoint", diagnosis="times"),
    Mutant("avg_pool: padding counted", planted(avg_pool_padded, padding_counted), normal((2, 16, 3)), law="adjoint",
           diagnosis="of 96 elements"),
    Mutant("avg_pool: image transposed", planted(avg_pool_2d, image_transposed), IMAGES,
           law="adjoint", diagnosis="transposed"),
    Mutant("avg_pool: not divided", planted(global_avg_pool, not_divided), ODD,
           law="adjoint", diagnosis="times too large"),
    Mutant("soft_pool: temperature ignored", planted(soft_pool, temperature_ignored, temperature=2.5), ODD,
           law="adjoint", diagnosis="option temperature"),
    Mutant("weighted_pool: 0/0 without examples", planted(weighted_pool, mean_times_count), normal((2, 7, 5), (7,)),
           law="sizes", diagnosis="not finite"),
]
