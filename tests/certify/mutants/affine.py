"""Products and sums: wrong factors, transposes, axes, single elements, conjugates, options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant
from tests.certify.words import REAL, complexes, ruled

TALL = normal((7, 5), (5, 3), (3,))                         # X[n, d], W[d, p], b[p]
SQUARE = normal((5, 5), (5, 5), (5,))
MATRIX = normal((7, 5))                                     # X[n, d]
BATCH = normal((4, 7, 5), (5, 3), (3,))                     # X[batch, n, d], W[d, p], b[p]

ADJOINT: dict[str, Callable[[Array, Array, Array], Array]] = {
    "dX": lambda X, W, dY: dY @ W.T,
    "dW": lambda X, W, dY: jnp.einsum("...d,...p->dp", X, dY),
    "db": lambda X, W, dY: dY.sum(range(dY.ndim - 1)),
}


def affine(X: Array, W: Array, b: Array) -> Array:
    return X @ W + b


def affine_with(**wrong: Callable[[Array, Array, Array], Array]) -> Callable[[], Any]:
    """Makes Y = X W + b with its adjoint, save for other formulas of `(X, W, dY)`."""
    formulas = (ADJOINT | wrong).values()
    return planted(affine, lambda args, dY: tuple(formula(*args[:2], dY) for formula in formulas))


def sine(x: Array) -> Array:
    return jnp.sin(x)


SCALES = [
    Mutant("affine: dW times n", affine_with(dW=lambda X, W, dY: X.shape[0] * (X.T @ dY)), TALL,
           law="adjoint", diagnosis="n=7 times too large"),
    Mutant("affine: dW / n", affine_with(dW=lambda X, W, dY: X.T @ dY / X.shape[0]), TALL,
           law="adjoint", diagnosis="averages over"),
    Mutant("affine: db the mean over the batch", affine_with(db=lambda X, W, dY: dY.mean(0)), TALL,
           law="adjoint", diagnosis="averages over"),
    Mutant("affine: dX of the other sign", affine_with(dX=lambda X, W, dY: -dY @ W.T), TALL,
           law="adjoint", diagnosis="-1 times"),
    Mutant("affine: dW doubled", affine_with(dW=lambda X, W, dY: 2 * (X.T @ dY)), TALL,
           law="adjoint", diagnosis="2 times"),
    Mutant("affine: db halved", affine_with(db=lambda X, W, dY: dY.sum(0) / 2), TALL,
           law="adjoint", diagnosis="0.5 times"),
    Mutant("affine: dW averaged over one of two batch axes",
           affine_with(dW=lambda X, W, dY: jnp.einsum("bnd,bnp->dp", X, dY) / X.shape[0]), BATCH,
           law="adjoint", diagnosis="averages over"),
]

AXES = [
    Mutant("affine: dW transposed, square", affine_with(dW=lambda X, W, dY: dY.T @ X), SQUARE,
           law="adjoint", diagnosis="transposed"),
    Mutant("affine: dW transposed in memory, then reshaped",
           affine_with(dW=lambda X, W, dY: (dY.T @ X).reshape(W.shape)), TALL, law="adjoint", diagnosis="transposed"),
    Mutant("affine: dX = dY W where dY Wᵀ is due, square", affine_with(dX=lambda X, W, dY: dY @ W), SQUARE,
           law="adjoint"),
    Mutant("affine: db sums each row, square", affine_with(db=lambda X, W, dY: dY.sum(1)), SQUARE,
           law="adjoint", diagnosis="sums over axis"),
    Mutant("affine: db takes the first row", affine_with(db=lambda X, W, dY: dY[0]), TALL,
           law="adjoint", diagnosis="first element"),
    Mutant("affine: dW and db sum the first of the batch only",
           affine_with(dW=lambda X, W, dY: X[0].T @ dY[0], db=lambda X, W, dY: dY[0].sum(0)), BATCH,
           law="adjoint", diagnosis="first element"),
    Mutant("sum of two: dB summed over the batch once too often",
           planted(lambda X, B: jnp.tanh(X) + B,
                   lambda args, dY: ((1 - jnp.tanh(args[0]) ** 2) * dY, jnp.broadcast_to(dY.sum(0), dY.shape))),
           normal((7, 5), (7, 5)), law="adjoint", diagnosis="sums over axis 0"),
]

ELEMENTS = [
    Mutant("affine: dX shifted by one feature", affine_with(dX=lambda X, W, dY: jnp.roll(dY @ W.T, 1, axis=1)), TALL,
           law="adjoint", diagnosis="shifted by"),
    Mutant("affine: dW pairs each example with the next one",
           affine_with(dW=lambda X, W, dY: jnp.roll(X, 1, axis=0).T @ dY), TALL, law="adjoint", diagnosis="shifted by"),
    Mutant("affine: dX reversed along the features", affine_with(dX=lambda X, W, dY: (dY @ W.T)[:, ::-1]), TALL,
           law="adjoint", diagnosis="reversed along axis"),
    Mutant("affine: dW permuted along the features",
           affine_with(dW=lambda X, W, dY: (X.T @ dY)[np.argsort(np.cos(9 * np.arange(W.shape[0])))]), TALL,
           law="adjoint", diagnosis="permuted"),
    Mutant("affine: dW leaves out the last example", affine_with(dW=lambda X, W, dY: X[:-1].T @ dY[:-1]), TALL,
           law="adjoint", diagnosis="last element"),
    Mutant("affine: dX without the last feature",
           affine_with(dX=lambda X, W, dY: (dY @ W.T).at[:, -1].set(0)), TALL,
           law="adjoint", diagnosis="of 35 elements"),
    Mutant("sine: one wrong element of a thousand",
           planted(sine, lambda args, dy: ((jnp.cos(args[0]) * dy).at[617].multiply(3),)), normal((1000,)),
           law="adjoint", diagnosis="1 of 1000 elements"),
    Mutant("sine: one of a thousand off by a millionth",
           planted(sine, lambda args, dy: ((jnp.cos(args[0]) * dy).at[42].multiply(1 + 1e-6),)), normal((1000,)),
           dtypes=("float64",), law="adjoint", diagnosis="1 of 1000 elements"),
]


def scaled_with(reduce: Callable[[Array], Array]) -> Callable[[], Any]:
    """Makes s * X, where s broadcasts: the adjoint of broadcasting is `reduce`."""
    return planted(lambda s, X: s * X, lambda r, dY: (reduce(dY * r[1]).reshape(r[0].shape), dY * r[0]))


ARGUMENTS = [
    Mutant("product: the cotangents of the factors swapped",
           planted(lambda A, B: A * B, lambda args, dY: (args[0] * dY, args[1] * dY)), normal((7, 5), (7, 5)),
           law="adjoint", diagnosis="swapped"),
    Mutant("small value beside a large one",
           planted(lambda x, small: x * jnp.cos(x) + small * x,
                   lambda args, dy: ((jnp.cos(args[0]) - args[0] * jnp.sin(args[0]) + args[1]) * dy, 2 * args[0] * dy)),
           lambda rng: (rng.standard_normal(6), 1e-6 * rng.standard_normal(6)), law="adjoint", diagnosis="2 times"),
    Mutant("small cotangent beside a large one",
           planted(lambda x, y: 1e3 * jnp.sin(x) + 1e-6 * y,
                   lambda args, dy: (1e3 * jnp.cos(args[0]) * dy, -1e-6 * dy)), normal((6,), (6,)),
           law="adjoint", diagnosis="-1 times"),
    Mutant("scale: a row's cotangent averaged over the batch", scaled_with(lambda G: G.mean(0)),
           normal((1, 5), (7, 5)), law="adjoint", diagnosis="averages over"),
    Mutant("scale: a column keeps its first cotangent", scaled_with(lambda G: G[:, 0]),
           normal((7, 1), (7, 5)), law="adjoint", diagnosis="first element"),
    Mutant("scale: a scalar's cotangent averaged", scaled_with(jnp.mean), normal((), (7, 5)),
           law="adjoint", diagnosis="averages over"),
    Mutant("scale: a scalar's cotangent is one element", scaled_with(lambda G: G[0, 0]),
           normal((), (7, 5)), law="adjoint"),
    Mutant("scale: wrong for a batch of one",
           scaled_with(lambda G: G.sum(0) / 2 if G.shape[0] == 1 else G), normal((7, 5), (7, 5)),
           law="sizes", diagnosis="0.5 times"),
]


COMPLEX = [
    Mutant("complex product: dW conjugated, as in textbooks", affine_with(dW=lambda X, W, dY: X.conj().T @ dY),
           complexes((7, 5), (5, 3), (3,)), dtypes=REAL, law="adjoint", diagnosis="conjugate"),
    Mutant("complex sum: db conjugated", affine_with(db=lambda X, W, dY: dY.sum(0).conj()),
           complexes((7, 5), (5, 3), (3,)), dtypes=REAL, law="adjoint", diagnosis="conjugate"),
    Mutant("squared modulus: not conjugated",
           planted(lambda z: jnp.abs(z) ** 2, lambda args, dy: (2 * args[0] * dy.astype(args[0].dtype),)),
           complexes((6,)), dtypes=REAL, law="adjoint", diagnosis="conjugate"),
    Mutant("conjugation: the cotangent as it came", planted(lambda z: z.conj(), lambda _, dz: (dz,)),
           complexes((6,)), dtypes=REAL, law="adjoint", diagnosis="conjugate"),
    Mutant("complex product: real part of dX only",
           affine_with(dX=lambda X, W, dY: lax.complex((dY @ W.T).real, jnp.zeros_like(X.real))),
           complexes((7, 5), (5, 3), (3,)), dtypes=REAL, law="adjoint", diagnosis="imaginary part"),
]


def product(X: Array, W: Array, transpose: bool = False) -> Array:
    return X @ (W.T if transpose else W)


def cumulative(x: Array, reverse: bool = False) -> Array:
    return lax.cumsum(x, reverse=reverse)


@jax.custom_jvp
def softplus(x: Array) -> Array:
    return jnp.logaddexp(x, 0)


softplus.defjvp(lambda primals, tangents: (softplus(*primals), -jax.nn.sigmoid(*primals) * tangents[0]))


@jax.custom_jvp
def hypotenuse(x: Array, y: Array) -> Array:
    return jnp.hypot(x, y)


hypotenuse.defjvp(lambda primals, tangents: (hypotenuse(*primals), primals[0] / hypotenuse(*primals) * tangents[0]))


@jax.custom_gradient
def cube(x: Array) -> Any:
    return x**3, lambda dy: 6 * x**2 * dy


def swish_stopped(x: Array) -> Array:
    return x * lax.stop_gradient(jax.nn.sigmoid(x))


def hidden() -> Callable[..., Any]:
    """A plain function that uses a wrong rule: its own derivative cannot be asked."""
    inner = affine_with(dW=lambda X, W, dY: 2 * (X.T @ dY))()
    return lambda X, W, b: jnp.tanh(inner(X, W, b))


WRAPPED = [
    Mutant("product: the option transpose=True ignored",
           planted(product, lambda transpose, args, dY: (dY @ args[1].T, args[0].T @ dY), transpose=True),
           normal((5, 5), (5, 5)), law="adjoint", diagnosis="option"),
    Mutant("cumulative sum: the option reverse=True ignored",
           planted(cumulative, lambda reverse, _, dy: (lax.cumsum(dy, reverse=True),), reverse=True), MATRIX,
           law="adjoint", diagnosis="option"),
    Mutant("swish: the gate's derivative forgotten",
           planted(lambda x: x * jax.nn.sigmoid(x), lambda args, dy: (jax.nn.sigmoid(args[0]) * dy,)), MATRIX,
           law="adjoint", diagnosis="derivative through"),
    Mutant("swish: stop_gradient where none belongs", lambda: swish_stopped, MATRIX,
           options={"reference": lambda x: x * jax.nn.sigmoid(x)}, law="adjoint", diagnosis="derivative through"),
    Mutant("hidden in a plain function: dW doubled", hidden, TALL, dtypes=REAL, law="adjoint", diagnosis="2 times"),
    Mutant("custom_jvp: sign", lambda: softplus, MATRIX, law="adjoint", diagnosis="-1 times"),
    Mutant("custom_jvp: a tangent forgotten", lambda: hypotenuse, normal((6,), (6,)), law="adjoint", diagnosis="zero"),
    Mutant("custom_gradient: doubled", lambda: cube, MATRIX, law="adjoint", diagnosis="2 times"),
    Mutant("forward rule: clipped where the function is not",
           ruled(jnp.sinh, lambda x: (jnp.clip(jnp.sinh(x), -0.5, 0.5), x), lambda x, dy: (jnp.cosh(x) * dy,)), MATRIX,
           law="forward"),
]

MUTANTS = [*SCALES, *AXES, *ELEMENTS, *ARGUMENTS, *COMPLEX, *WRAPPED]
