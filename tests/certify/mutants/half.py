"""Half precision where the rule should not use it, and sums that half precision cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant
from tests.certify.words import REAL, ruled, wide

HALF = ("bfloat16",)
MATRIX = normal((7, 5))
PRODUCT = normal((7, 5), (5, 3))


def sine(x: Array) -> Array:
    return jnp.sin(x)


def rounded(x: Array) -> Array:
    return x.astype(jnp.bfloat16).astype(x.dtype)


def matmul(X: Array, W: Array) -> Array:
    return X @ W


def matmul_with(dW: Callable[[Array, Array], Array]) -> Callable[[], Any]:
    return planted(matmul, lambda args, dY: (dY @ args[1].T, dW(args[0], dY)))


def running_sum(terms: Callable[..., Array], *rows: Array) -> Array:
    """Σ_n terms(rows[n]), added one by one in the rows' dtype."""
    start = jnp.zeros_like(jax.eval_shape(terms, *(x[0] for x in rows)))
    return lax.scan(lambda total, row: (total + terms(*row), None), start, rows)[0]


def centred(X: Array) -> Array:
    """Σ (X − mean X)² / 2 over each column, in float32 or wider."""
    D = wide(X) - wide(X).mean(0)
    return (jnp.sum(D**2, axis=0) / 2).astype(X.dtype)


REDUCED = [
    Mutant("matmul: dW reduced in bfloat16", matmul_with(lambda X, dY: running_sum(jnp.outer, X, dY)), PRODUCT,
           dtypes=HALF, law="half precision"),
    Mutant("bias: db reduced in bfloat16",
           planted(lambda X, b: X + b, lambda args, dY: (dY, running_sum(lambda row: row, dY))), normal((7, 5), (5,)),
           dtypes=HALF, law="half precision"),
    Mutant("scale: a scalar's cotangent reduced in bfloat16",
           planted(lambda s, X: s * X,
                   lambda args, dY: (running_sum(lambda g: g, (dY * args[1]).ravel()), dY * args[0])),
           normal((), (7, 5)), dtypes=HALF, law="half precision"),
    Mutant("centred squares: X and its mean, far from 0, scaled before they are subtracted",
           planted(centred, lambda args, dY: (args[0] * dY - args[0].mean(0) * dY,)),
           lambda rng: (2000 + 8 * rng.standard_normal((7, 5)),), dtypes=HALF, law="adjoint"),
]

ROUNDED = [
    Mutant("product: residuals kept in bfloat16",
           ruled(lambda A, B: A * B, lambda A, B: (A * B, (rounded(A), rounded(B))),
                 lambda r, dY: (dY * r[1], dY * r[0])), normal((7, 5), (7, 5)), dtypes=REAL,
           law="adjoint", diagnosis="bfloat16"),
    Mutant("matmul: the residual X kept in bfloat16", matmul_with(lambda X, dY: rounded(X).T @ dY), PRODUCT,
           dtypes=REAL, law="adjoint", diagnosis="bfloat16"),
    Mutant("matmul: dW rounded to bfloat16", matmul_with(lambda X, dY: rounded(X.T @ dY)), PRODUCT, dtypes=REAL,
           law="adjoint", diagnosis="rounded to bfloat16"),
    Mutant("bias: the cotangent rounded to bfloat16",
           planted(lambda X, b: X + b, lambda args, dY: (dY, rounded(dY).sum(0))), normal((7, 5), (5,)), dtypes=REAL,
           law="adjoint", diagnosis="bfloat16"),
    Mutant("sine: cotangent through float32",
           planted(sine, lambda args, dy: ((jnp.cos(args[0]) * dy).astype(jnp.float32).astype(dy.dtype),)), MATRIX,
           dtypes=("float64",), law="adjoint", diagnosis="rounded to float32"),
]

MUTANTS = [*REDUCED, *ROUNDED]
