"""Deliberate departures: refuted without a waiver, proven with it.

Where the reference has derivative zero everywhere, as rounding has, the function does something else besides, so that
there is something left to prove.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import REAL, ruled

Grads = tuple[Any, ...]
OTHER_SLOPE = {"waive": ("adjoint",)}                 # another derivative than the function's
NOT_LINEAR = {"waive": ("adjoint", "linear")}


def rounded_product(W: Array, x: Array) -> Array:
    """Y = round(x) W."""
    return jnp.round(x) @ W


def straight_through(residuals: Grads, dY: Array) -> Grads:
    """dx as if nothing had been rounded."""
    W, x = residuals
    return jnp.round(x).T @ dY, dY @ W.T


def binarized_product(W: Array, x: Array) -> Array:
    """Y = sign(x) W."""
    return jnp.sign(x) @ W


def clipped_straight_through(residuals: Grads, dY: Array) -> Grads:
    """dx as of a clipped identity: nothing where |x| > 1."""
    W, x = residuals
    return jnp.sign(x).T @ dY, jnp.where(jnp.abs(x) <= 1, dY @ W.T, 0)


def fake_quantized(scale: Array, x: Array) -> Array:
    """y = scale · round(x/scale), with a positive scale."""
    return scale * jnp.round(x / scale)


def fake_quantized_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx straight through; dscale is the true one, Σ round(x/scale) dy."""
    scale, x = residuals
    return jnp.sum(jnp.round(x / scale) * dy), dy


def codebook(codes: Array, x: Array) -> Array:
    """The nearest code of each row of x."""
    return codes[_nearest(codes, x)]


def _nearest(codes: Array, x: Array) -> Array:
    return jnp.argmin(jnp.sum(jnp.square(x[:, None] - codes[None]), axis=-1), axis=1)


def codebook_forward(codes: Array, x: Array) -> tuple[Array, Grads]:
    at = _nearest(codes, x)
    return codes[at], (codes, at)


def codebook_straight_through(residuals: Grads, dY: Array) -> Grads:
    """x receives what its code receives."""
    codes, at = residuals
    return jnp.zeros_like(codes).at[at].add(dY), dY


def rounded(x: Array) -> Array:
    """y = round(x)."""
    return jnp.round(x)


def identity(x: Array) -> Array:
    """y = x."""
    return x


def squared_error(prediction: Array, target: Array) -> Array:
    """l = (p − t)²."""
    return jnp.square(prediction - target)


def for_prediction_only(residuals: Grads, dl: Array) -> Grads:
    """The target is taken as given."""
    prediction, target = residuals
    return 2 * (prediction - target) * dl, jnp.zeros_like(target)


def standardized(x: Array) -> Array:
    """y = (x − μ)/s over the examples."""
    return (x - x.mean(0)) / jnp.sqrt(1 + x.var(0))


def with_frozen_statistics(residuals: Grads, dy: Array) -> Grads:
    """μ and s taken as constants."""
    return (dy / jnp.sqrt(1 + residuals[0].var(0)),)


def product(W: Array, X: Array) -> Array:
    """Y = X W."""
    return X @ W


def mean_over_examples(residuals: Grads, dY: Array) -> Grads:
    """dW averaged, so that it does not grow with the batch."""
    W, X = residuals
    return X.T @ dY / max(len(X), 1), dY @ W.T


def clip_norm(residuals: Grads, dy: Array) -> Grads:
    """dy shortened to length 1 where it is longer."""
    length = jnp.sqrt(jnp.sum(jnp.square(dy)))
    return (dy / jnp.maximum(length, 1),)


def sign_alone(residuals: Grads, dy: Array) -> Grads:
    """The sign of the gradient alone."""
    return (jnp.sign(dy),)


GRID = normal((4, 5))
RIGHT = [
    Right("waived: straight-through rounding", planted(rounded_product, straight_through), normal((5, 3), (4, 5)),
          options=OTHER_SLOPE),
    Right("waived: straight-through sign", planted(binarized_product, clipped_straight_through), normal((5, 3), (4, 5)),
          options=OTHER_SLOPE),
    Right("waived: fake quantisation", planted(fake_quantized, fake_quantized_adjoint),
          lambda rng: (np.array(0.25), *GRID(rng)), REAL,
          options={**OTHER_SLOPE, "domain": {"scale": (0.1, 4.0)}}),
    Right("waived: nearest code", ruled(codebook, codebook_forward, codebook_straight_through), normal((6, 2), (4, 2)),
          options=OTHER_SLOPE),
    Right("waived: gradient scaled", planted(identity, lambda r, dy: (0.1 * dy,)), GRID, options=OTHER_SLOPE),
    Right("waived: gradient reversed", planted(identity, lambda r, dy: (-dy,)), GRID, options=OTHER_SLOPE),
    Right("waived: gradient clipped entry by entry", planted(identity, lambda r, dy: (jnp.clip(dy, -0.1, 0.1),)), GRID,
          options=NOT_LINEAR),
    Right("waived: gradient clipped by its norm", planted(identity, clip_norm), GRID, options=NOT_LINEAR),
    Right("waived: sign of the gradient", planted(identity, sign_alone), GRID, options=NOT_LINEAR),
    Right("waived: target held", planted(squared_error, for_prediction_only), normal((4, 5), (4, 5)),
          options=OTHER_SLOPE),
    Right("waived: target held, by None", planted(squared_error, lambda r, dl: (2 * (r[0] - r[1]) * dl, None)),
          normal((4, 5), (4, 5)), options={"waive": ("adjoint", "structure")}),
    Right("waived: statistics held", planted(standardized, with_frozen_statistics), normal((6, 3)), REAL,
          options=OTHER_SLOPE),
    Right("waived: mean over the examples", planted(product, mean_over_examples), normal((5, 3), (4, 5)),
          options=OTHER_SLOPE),
    Right("waived: rounding, judged as the identity", planted(rounded, lambda r, dy: (dy,)), GRID,
          options={"waive": ("forward",), "reference": identity}),
]
