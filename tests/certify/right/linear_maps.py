"""Linear and bilinear maps whose rules compute the transpose in another way than autodiff."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import REAL, complexes, integers, ruled, then, wide

Grads = tuple[Any, ...]
AFFINE = normal((5, 3), (3,), (4, 5))       # W[d, p], b[p], X[n, d]
LOOKUP = then(normal((7, 3)), integers(7, 2, 5))    # table[v, d], ids[...]


def affine(W: Array, b: Array, X: Array) -> Array:
    """Y = X W + b."""
    return (wide(X) @ wide(W) + wide(b)).astype(X.dtype)


def affine_by_rows(residuals: Grads, dY: Array) -> Grads:
    """dW = Σ_n x_n dy_nᵀ, one example at a time, the last one first."""
    W, _, X = residuals

    def add(dW: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = pair
        return dW + jnp.outer(wide(x), wide(dy)), None

    dW, _ = lax.scan(add, jnp.zeros_like(wide(W)), (X, dY), reverse=True)
    return dW.astype(W.dtype), dY.sum(0), dY @ W.T


def affine_by_halves(residuals: Grads, dY: Array) -> Grads:
    """dW = X₀ᵀ dY₀ + X₁ᵀ dY₁ over the even and the odd rows."""
    W, _, X = map(wide, residuals)
    G = wide(dY)
    dW, db = X[::2].T @ G[::2] + X[1::2].T @ G[1::2], G[::2].sum(0) + G[1::2].sum(0)
    return tuple(g.astype(dY.dtype) for g in (dW, db, G @ W.T))


def affine_by_transposition(residuals: Grads, dY: Array) -> Grads:
    """Each cotangent by JAX's own transpose of the map in that argument."""
    W, b, X = residuals
    (dW,) = jax.linear_transpose(lambda W: affine(W, jnp.zeros_like(b), X), W)(dY)
    (db,) = jax.linear_transpose(lambda b: affine(jnp.zeros_like(W), b, X), b)(dY)
    (dX,) = jax.linear_transpose(lambda X: affine(W, jnp.zeros_like(b), X), X)(dY)
    return dW, db, dX


def affine_by_flips(residuals: Grads, dY: Array) -> Grads:
    """The same products with the examples in reverse, and the sum over features too."""
    W, _, X = residuals
    return X[::-1].T @ dY[::-1], dY[::-1].sum(0), dY[:, ::-1] @ W[:, ::-1].T


def trilinear(A: Array, B: Array, C: Array) -> Array:
    """y_n = Σ_ij A_ni B_ij C_jn."""
    return jnp.einsum("ni,ij,jn->n", *map(wide, (A, B, C))).astype(A.dtype)


def trilinear_adjoint(residuals: Grads, dy: Array) -> Grads:
    A, B, C = map(wide, residuals)
    g = wide(dy)
    dA, dB, dC = (C * g).T @ B.T, A.T @ (C * g).T, B.T @ (A * g[:, None]).T
    return tuple(d.astype(dy.dtype) for d in (dA, dB, dC))


def cumsum(x: Array) -> Array:
    """y_i = Σ_{j≤i} x_j along the last axis."""
    return jnp.cumsum(wide(x), axis=-1).astype(x.dtype)


def cumsum_reversed(residuals: Grads, dy: Array) -> Grads:
    """dx_j = Σ_{i≥j} dy_i, as a cumulative sum from the end."""
    return (jnp.flip(jnp.cumsum(jnp.flip(wide(dy), -1), axis=-1), -1).astype(dy.dtype),)


def cumsum_of_the_rest(residuals: Grads, dy: Array) -> Grads:
    """dx_j = Σ_i dy_i − Σ_{i<j} dy_i."""
    return (dy.sum(-1, keepdims=True) - jnp.cumsum(dy, axis=-1) + dy,)


def convolution(w: Array, x: Array) -> Array:
    """y_bi = Σ_k w_k x_b,i+k, without padding."""
    if not len(w):
        raise ValueError("convolution: the kernel is empty")
    k, m = w.shape[0], x.shape[1] - w.shape[0] + 1
    return sum((w[j] * x[:, j : j + m] for j in range(k)), jnp.zeros((x.shape[0], m), x.dtype))


def convolution_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dw_k = ⟨x shifted by k, dy⟩; dx = dy padded, correlated with the flipped kernel."""
    w, x = residuals
    k, m = w.shape[0], dy.shape[1]
    dw = jnp.array([jnp.sum(x[:, j : j + m] * dy) for j in range(k)], w.dtype)
    return dw, convolution(w[::-1], jnp.pad(dy, ((0, 0), (k - 1, k - 1))))


def fourier(z: Array) -> Array:
    """The discrete Fourier transform: y_j = Σ_k ω^jk z_k."""
    return jnp.fft.fft(z)


def fourier_adjoint(residuals: Grads, dy: Array) -> Grads:
    """The matrix ω^jk is symmetric, and JAX's convention transposes without conjugation."""
    return (jnp.fft.fft(dy),)


def spectrum(x: Array) -> Array:
    """Of real numbers."""
    return jnp.fft.fft(x.astype(np.result_type(x.dtype, np.complex64)))


def spectrum_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = Re Fᵀ dy: the imaginary part has nowhere to go."""
    return (jnp.fft.fft(dy).real,)


def circular(c: Array, x: Array) -> Array:
    """y_i = Σ_j c_{i−j mod n} x_j, through Fourier space."""
    return jnp.fft.ifft(spectrum(c) * spectrum(x)).real


def circular_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dc_k = Σ_i dy_i x_{i−k}, dx_j = Σ_i dy_i c_{i−j}, as matrices."""
    c, x = residuals
    n = jnp.arange(x.shape[0])
    behind = (n[:, None] - n[None, :]) % max(x.shape[0], 1)
    return dy @ x[behind], dy @ c[behind]


def solve(B: Array, b: Array) -> Array:
    """x = (1 + B Bᵀ)⁻¹ b."""
    return jnp.linalg.solve(jnp.eye(len(B), dtype=B.dtype) + B @ B.T, b)


def solve_forward(B: Array, b: Array) -> tuple[Array, Grads]:
    x = solve(B, b)
    return x, (B, x)


def solve_adjoint(residuals: Grads, dx: Array) -> Grads:
    """db = A⁻¹ dx, dA = −db xᵀ, and dB = (dA + dAᵀ) B."""
    B, x = residuals
    db = solve(B, dx)
    return -(db @ (x.T @ B) + x @ (db.T @ B)), db


def inverse(A: Array) -> Array:
    """Y = A⁻¹."""
    return jnp.linalg.inv(A)


def inverse_forward(A: Array) -> tuple[Array, Array]:
    Y = inverse(A)
    return Y, Y


def inverse_adjoint(Y: Array, dY: Array) -> Grads:
    """dA = −Yᵀ dY Yᵀ."""
    return (-Y.T @ dY @ Y.T,)


def sorted_by(key: Array, x: Array) -> Array:
    """The rows of x in the order of their keys."""
    return x[jnp.argsort(key)]


def sorted_by_forward(key: Array, x: Array) -> tuple[Array, Grads]:
    order = jnp.argsort(key)
    return x[order], (key, order)


def sorted_by_adjoint(residuals: Grads, dY: Array) -> Grads:
    """A permutation's transpose is its inverse; the keys only choose it."""
    key, order = residuals
    return jnp.zeros_like(key), dY[jnp.argsort(order)]


def embedding(table: Array, ids: Array) -> Array:
    """Rows of the table."""
    return table[ids]


def embedding_by_scatter(residuals: Grads, dY: Array) -> Grads:
    table, ids = residuals
    return jnp.zeros_like(wide(table)).at[ids].add(wide(dY)).astype(table.dtype), None


def embedding_by_one_hot(residuals: Grads, dY: Array) -> Grads:
    """One product with the matrix of ones where the ids are."""
    table, ids = residuals
    H = jax.nn.one_hot(ids, len(table), dtype=table.dtype)
    return jnp.einsum("...v,...d->vd", H, dY, preferred_element_type=wide(table).dtype).astype(table.dtype), None


def embedding_by_segments(residuals: Grads, dY: Array) -> Grads:
    """Rows sorted by id, then summed segment by segment."""
    table, ids = residuals
    flat, rows = ids.reshape(ids.size), wide(dY).reshape(ids.size, dY.shape[-1])
    order = jnp.argsort(flat)
    dT = jax.ops.segment_sum(rows[order], flat[order], len(table), indices_are_sorted=True)
    return dT.astype(table.dtype), None


def symmetric(A: Array) -> Array:
    """Y = (A + Aᵀ)/2, its own transpose."""
    return (A + A.T) / 2


def every_other(x: Array) -> Array:
    """Every other entry of the last axis."""
    return x[..., ::2]


def every_other_adjoint(residuals: Grads, dy: Array) -> Grads:
    """Zeros are woven in between, and one dropped where the length is odd."""
    (x,), (*rows, m) = residuals, dy.shape
    woven = jnp.stack([dy, jnp.zeros_like(dy)], -1).reshape(*rows, 2 * m)
    return (woven[..., : x.shape[-1]],)


def replicated(x: Array) -> Array:
    """A column, repeated and centred."""
    Y = jnp.broadcast_to(x, (x.shape[0], 4))
    return Y - Y[:1] / 2


def replicated_adjoint(residuals: Grads, dY: Array) -> Grads:
    dX = dY.at[:1].add(-jnp.sum(dY, axis=0, keepdims=True) / 2)
    return (dX.sum(1, keepdims=True),)


RIGHT = [
    Right("affine: dW one example at a time, in reverse", planted(affine, affine_by_rows), AFFINE),
    Right("affine: even rows and odd rows apart", planted(affine, affine_by_halves), AFFINE),
    Right("affine: by linear_transpose", planted(affine, affine_by_transposition), AFFINE),
    Right("affine: everything backwards", planted(affine, affine_by_flips), AFFINE),
    Right("trilinear: products in another order",
          planted(trilinear, trilinear_adjoint), normal((4, 3), (3, 2), (2, 4))),
    Right("cumsum: from the end", planted(cumsum, cumsum_reversed), normal((3, 7))),
    Right("cumsum: the total less what came before", planted(cumsum, cumsum_of_the_rest), normal((3, 7)), REAL),
    Right("convolution: shifts and the flipped kernel",
          planted(convolution, convolution_adjoint), normal((3,), (2, 9)), REAL),
    Right("fft: its own transpose", planted(fourier, fourier_adjoint), complexes((3, 8)), REAL),
    Right("fft: of real numbers", planted(spectrum, spectrum_adjoint), normal((7,)), REAL),
    Right("circular convolution: through Fourier space and back by matrices",
          planted(circular, circular_adjoint), normal((6,), (6,)), REAL),
    Right("solve: positive definite", ruled(solve, solve_forward, solve_adjoint), normal((4, 4), (4, 2)), REAL),
    Right("inverse: from the result", ruled(inverse, inverse_forward, inverse_adjoint),
          lambda rng: (3 * jnp.eye(4) + rng.standard_normal((4, 4)),), REAL),
    Right("sort by key: the inverse permutation",
          ruled(sorted_by, sorted_by_forward, sorted_by_adjoint), normal((6,), (6, 2))),
    Right("embedding: scatter-add", planted(embedding, embedding_by_scatter), LOOKUP),
    Right("embedding: product with a one-hot matrix", planted(embedding, embedding_by_one_hot), LOOKUP),
    Right("embedding: sorted segments", planted(embedding, embedding_by_segments), LOOKUP),
    Right("symmetric part: self-adjoint", planted(symmetric, lambda _, dY: (symmetric(dY),)), normal((4, 4))),
    Right("strided slice: zeros woven in", planted(every_other, every_other_adjoint), normal((3, 7))),
    Right("broadcast: summed back over a size-1 axis", planted(replicated, replicated_adjoint), normal((3, 1)), REAL),
]

