"""Complex functions, holomorphic or not. JAX's vjp transposes without conjugation; conj and |z|² are real-linear."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tests.certify.planting import planted
from tests.certify.rules import Right
from tests.certify.words import REAL, complexes, ruled

Grads = tuple[Any, ...]


def product(A: Array, B: Array) -> Array:
    """Y = A B, holomorphic in both."""
    return A @ B


def energy(z: Array) -> Array:
    """y = |z|², real, and holomorphic nowhere."""
    return z.real**2 + z.imag**2


def energy_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dz = 2 z̄ dy."""
    (z,) = residuals
    return (lax.complex(2 * z.real * dy, -2 * z.imag * dy),)


def cube_forward(z: Array) -> tuple[Array, Array]:
    return z**3, 3 * z * z


def modulus(z: Array) -> Array:
    """y = √(1 + |z|²)."""
    return jnp.sqrt(1 + energy(z))


def modulus_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dz = z̄/y dy."""
    (z,) = residuals
    g = dy / modulus(z)
    return (lax.complex(z.real * g, -z.imag * g),)


def sesquilinear(z: Array, w: Array) -> Array:
    """y = Σ z̄ w along the last axis: conjugate in z, linear in w."""
    return jnp.sum(jnp.conj(z) * w, axis=-1)


def sesquilinear_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dw = z̄ dy and dz = conj(w dy): conjugation is its own transpose."""
    z, w = residuals
    g = dy[..., None]
    return jnp.conj(w * g), jnp.conj(z) * g


def rotated(angle: Array, z: Array) -> Array:
    """y = exp(iθ) z, with a real angle."""
    return lax.complex(jnp.cos(angle), jnp.sin(angle)) * z


def rotated_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dθ = Re(i y dy), dz = exp(iθ) dy."""
    angle, z = residuals
    return -(rotated(angle, z) * dy).imag, rotated(angle, dy)


def parts(z: Array) -> tuple[Array, Array]:
    """Real and imaginary part, two real outputs."""
    return z.real, z.imag


def parts_adjoint(residuals: Grads, ct: tuple[Array, Array]) -> Grads:
    """dz = da − i db: with y = Re z, JAX's pairing Re(dz δz) wants the minus."""
    return (lax.complex(ct[0], -ct[1]),)


def angle_and_vector(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.standard_normal((4, 3)), *complexes((4, 3))(rng)


MATRIX, PAIR = complexes((4, 3)), complexes((4, 3), (4, 3))
RIGHT = [
    Right("complex: product, transposed without conjugation",
          planted(product, lambda r, dY: (dY @ r[1].T, r[0].T @ dY)), complexes((4, 3), (3, 2)), REAL),
    Right("complex: cube, holomorphic", ruled(lambda z: z**3, cube_forward, lambda d, dy: (d * dy,)), MATRIX, REAL),
    Right("complex: conjugate", planted(jnp.conj, lambda r, dy: (jnp.conj(dy),)), MATRIX, REAL),
    Right("complex: squared modulus", planted(energy, energy_adjoint), MATRIX, REAL),
    Right("complex: smoothed modulus", planted(modulus, modulus_adjoint), MATRIX, REAL),
    Right("complex: inner product", planted(sesquilinear, sesquilinear_adjoint), PAIR, REAL),
    Right("complex: rotation by a real angle", planted(rotated, rotated_adjoint), angle_and_vector, REAL),
    Right("complex: real and imaginary part", planted(parts, parts_adjoint), MATRIX, REAL),
]
