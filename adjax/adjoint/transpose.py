"""The transpose and the adjoint of a linear function.

    ⟨f(x), ȳ⟩ = ⟨x, fᵀ(ȳ)⟩       transpose: no conjugation, JAX's convention for cotangents
    f*(ȳ) = conj(fᵀ(conj ȳ))       adjoint: the conjugate transpose; the same where everything is real
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .offset import Kind, why_not_linear

PyTree = Any


def transpose(f: Callable[[PyTree], PyTree], x_like: PyTree) -> Callable[[PyTree], PyTree]:
    """fᵀ, the transpose of a linear function of one argument.

    Args:
        f: a linear function of one pytree; other arguments closed over.
        x_like: a pytree of arrays or `jax.ShapeDtypeStruct`s with the shapes and dtypes of the argument.

    Returns:
        `y ↦ fᵀ y`, from cotangents of `f`'s output to cotangents of its argument.

    Raises:
        TypeError: `f` is not linear; the message names the operation that shows it. An affine function, `x ↦ A x + c`
            with c ≠ 0, is not linear.

    >>> W = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> transpose(lambda x: W @ x, jnp.zeros(3))(jnp.array([1.0, 1.0])).tolist()
    [5.0, 7.0, 9.0]
    """
    leaves, tree = jax.tree.flatten(x_like)
    closed = jax.make_jaxpr(lambda *v: f(tree.unflatten(v)))(*leaves)
    name = getattr(f, "__name__", type(f).__name__)
    if reason := why_not_linear(closed, [Kind.LINEAR] * len(leaves)):
        raise TypeError(f"transpose: {name} is not linear in its argument: {reason}")
    transposed = jax.linear_transpose(f, x_like)
    try:
        jax.eval_shape(transposed, jax.eval_shape(f, x_like))
    except Exception as error:
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        message = f"transpose: {name} is not linear in its argument, or JAX cannot transpose it: {reason}"
        raise TypeError(message) from error

    def apply(y: PyTree) -> PyTree:
        """fᵀ y."""
        return transposed(y)[0]

    return apply


def adjoint(f: Callable[[PyTree], PyTree], x_like: PyTree) -> Callable[[PyTree], PyTree]:
    """f*, the conjugate transpose of a linear function of one argument: ⟨f x, ȳ⟩ and ⟨x, f* y⟩ agree under conj.

    Arguments, result and errors are those of `transpose`; for real functions the two are the same.

    >>> adjoint(lambda x: 1j * x, jnp.zeros(2, jnp.complex64))(jnp.ones(2, jnp.complex64)).tolist()
    [-1j, -1j]
    """
    apply_transpose = transpose(f, x_like)

    def apply(y: PyTree) -> PyTree:
        """f* y."""
        return jax.tree.map(jnp.conj, apply_transpose(jax.tree.map(jnp.conj, y)))

    return apply
