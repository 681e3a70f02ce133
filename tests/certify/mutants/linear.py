"""Rules that are not linear in the cotangent, or do not look at all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant

MATRIX = normal((7, 5))


def sine(x: Array) -> Array:
    return jnp.sin(x)


def sine_of(change: Callable[[Array], Array]) -> Callable[[], Any]:
    """Makes a sine whose rule sees a changed cotangent."""
    return planted(sine, lambda args, dy: (jnp.cos(args[0]) * change(dy),))


def size(g: Array) -> Array:
    return jnp.sqrt(jnp.sum(g * g))


NONLINEAR = [
    Mutant("cotangent: clipped by value", sine_of(lambda g: jnp.clip(g, -1, 1)), MATRIX,
           law="linear", diagnosis="clipped"),
    Mutant("cotangent: clipped by norm", sine_of(lambda g: g / jnp.maximum(size(g), 1)), MATRIX,
           law="linear", diagnosis="clipped"),
    Mutant("cotangent: squared", sine_of(jnp.square), MATRIX, law="linear", diagnosis="squared"),
    Mutant("cotangent: absolute value", sine_of(jnp.abs), MATRIX, law="linear", diagnosis="absolute value"),
    Mutant("cotangent: its sign", sine_of(jnp.sign), MATRIX, law="linear", diagnosis="direction"),
    Mutant("cotangent: normalised", sine_of(lambda g: g / (size(g) + 1e-12)), MATRIX,
           law="linear", diagnosis="direction"),
    Mutant("cotangent: positive part, as in guided backpropagation", sine_of(lambda g: jnp.maximum(g, 0)), MATRIX,
           law="linear"),
    Mutant("cotangent: large entries dropped", sine_of(lambda g: jnp.where(jnp.abs(g) > 1e3, 0, g)), MATRIX,
           law="linear", diagnosis="zero"),
    Mutant("cotangent: small entries flushed to zero", sine_of(lambda g: jnp.where(jnp.abs(g) < 1e-4, 0, g)), MATRIX,
           law="linear", diagnosis="zero"),
    Mutant("cotangent: only the largest entry kept",
           sine_of(lambda g: jnp.where(jnp.abs(g) == jnp.abs(g).max(), g, 0)), MATRIX, law="linear"),
    Mutant("cotangent: quantised to quarters", sine_of(lambda g: jnp.round(4 * g) / 4), MATRIX, law="linear"),
    Mutant("cotangent: zero gives NaN", sine_of(lambda g: g * (g / g)), MATRIX, law="linear", diagnosis="not finite"),
    Mutant("cotangent: ignored, as if ones", sine_of(jnp.ones_like), MATRIX,
           law="linear", diagnosis="cotangent is ignored"),
]

AFFINE = [
    Mutant("sine: weight decay added", planted(sine, lambda args, dy: (jnp.cos(args[0]) * dy + 0.1 * args[0],)), MATRIX,
           law="linear", diagnosis="constant"),
    Mutant("sine: a constant added", planted(sine, lambda args, dy: (jnp.cos(args[0]) * dy + 0.5,)), MATRIX,
           law="linear", diagnosis="constant"),
]


def loss(X: Array, w: Array) -> Array:
    """Σ (X w)² / 2 + Σ cos X, a scalar."""
    return jnp.sum((X @ w) ** 2) / 2 + jnp.sum(jnp.cos(X))


def loss_with(dX: Callable[[Array, Array, Array], Array], dw: Callable[[Array, Array], Array]) -> Callable[[], Any]:
    """Makes the loss; `dX(fit, penalty, g)` and `dw(fit, g)` put its parts and the loss' cotangent together."""

    def bwd(args: Any, g: Array) -> Any:
        X, w = args
        residual = X @ w
        return dX(residual[:, None] * w, -jnp.sin(X), g), dw(X.T @ residual, g)

    return planted(loss, bwd)


LOSSES = [
    Mutant("loss: one path times its cotangent, the other not",
           loss_with(lambda fit, penalty, g: fit * g + penalty, lambda fit, g: fit * g), normal((7, 5), (5,)),
           law="linear", diagnosis="constant"),
    Mutant("loss: dw without its cotangent",
           loss_with(lambda fit, penalty, g: (fit + penalty) * g, lambda fit, g: fit), normal((7, 5), (5,)),
           law="linear", diagnosis="cotangent is ignored"),
    Mutant("loss: its cotangent twice",
           loss_with(lambda fit, penalty, g: (fit + penalty) * g, lambda fit, g: fit * g * g), normal((7, 5), (5,)),
           law="linear", diagnosis="squared"),
]

COLLAPSED = [
    Mutant("cotangent: taken as its first element", sine_of(lambda g: jnp.full_like(g, g.ravel()[0])), MATRIX,
           law="adjoint", diagnosis="first element"),
    Mutant("cotangent: taken as its mean", sine_of(lambda g: jnp.full_like(g, g.mean())), MATRIX,
           law="adjoint", diagnosis="mean of the cotangent"),
    Mutant("cotangent: each row as its first element", sine_of(lambda g: jnp.broadcast_to(g[:, :1], g.shape)), MATRIX,
           law="adjoint"),
    Mutant("cotangent: smoothed along the rows",
           sine_of(lambda g: (g + jnp.roll(g, 1, axis=1) + jnp.roll(g, -1, axis=1)) / 3), MATRIX, law="adjoint"),
    Mutant("cotangent: centred", sine_of(lambda g: g - g.mean()), MATRIX, law="adjoint"),
]

MUTANTS = [*NONLINEAR, *AFFINE, *LOSSES, *COLLAPSED]
