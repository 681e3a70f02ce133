"""Right at first sight: wrong in the second derivative, under vmap, in forward mode, for some of the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from adjax import any_mode
from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant
from tests.certify.words import ruled

MATRIX = normal((7, 5))
PRODUCT = normal((7, 5), (5, 3))


def matmul(X: Array, W: Array) -> Array:
    return X @ W


def cube(X: Array) -> Array:
    return X**3


def cube_with(slope: Callable[[Array], Array]) -> Callable[[], Any]:
    """Makes X³; `slope` has the value 3 X², and a derivative of its own."""
    return planted(cube, lambda args, dY: (slope(args[0]) * dY,))


def with_derivative(f: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`f` with another derivative."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: (f(*primals), derivative(*primals) * tangents[0]))
    return g


def cube_of_bits() -> Any:
    """X³, whose residual is kept as the bits of an unsigned integer."""

    def fwd(X: Array) -> Any:
        return cube(X), lax.bitcast_convert_type(X, f"uint{8 * X.dtype.itemsize}")

    return ruled(cube, fwd, lambda bits, dY: (3 * lax.bitcast_convert_type(bits, dY.dtype) ** 2 * dY,))()


halved = with_derivative(lambda g: g, lambda g: jnp.full_like(g, 0.5))

SECOND = [
    Mutant("cube: residual under stop_gradient", cube_with(lambda X: 3 * lax.stop_gradient(X) ** 2), MATRIX,
           law="second order", diagnosis="zero"),
    Mutant("cube: one of two residuals under stop_gradient", cube_with(lambda X: 3 * X * lax.stop_gradient(X)), MATRIX,
           law="second order", diagnosis="0.5 times"),
    Mutant("cube: residual kept as bits", cube_of_bits, MATRIX, law="second order", diagnosis="zero"),
    Mutant("cube: the slope's own rule has the other sign",
           cube_with(with_derivative(lambda X: 3 * X**2, lambda X: -6 * X)), MATRIX,
           law="second order", diagnosis="-1 times"),
    Mutant("cube: the slope's own rule is doubled",
           cube_with(with_derivative(lambda X: 3 * X**2, lambda X: 12 * X)), MATRIX,
           law="second order", diagnosis="2 times"),
    Mutant("cube: derivative with respect to the cotangent halved",
           planted(cube, lambda args, dY: (3 * args[0] ** 2 * halved(dY),)), MATRIX,
           law="second order", diagnosis="0.5 times"),
    Mutant("matmul: dX keeps W under stop_gradient",
           planted(matmul, lambda args, dY: (dY @ lax.stop_gradient(args[1]).T, args[0].T @ dY)), PRODUCT,
           law="second order", diagnosis="zero"),
]


def per_example(f: Callable[..., Array], batched_rule: Callable[..., Array]) -> Callable[..., Array]:
    """`f` of two arrays, with a rule for vmap: `batched_rule(a, b, a_is_batched, b_is_batched)`."""
    g = custom_vmap(f)

    def batch(_: int, in_batched: list[bool], a: Array, b: Array) -> tuple[Array, bool]:
        return batched_rule(a, b, *in_batched), True

    g.def_vmap(batch)
    return g


def vmapped(f: Callable[..., Array], a: Array, b: Array, *in_batched: bool) -> Array:
    return jax.vmap(f, in_axes=tuple(0 if batched else None for batched in in_batched))(a, b)


def first_only(f: Callable[..., Array], operand: int) -> Callable[..., Array]:
    """`f` whose rule for vmap takes the first example of one operand for all."""

    def batched_rule(*args: Any) -> Array:
        operands, in_batched = args[:2], args[2:]
        taken = [jnp.broadcast_to(x[:1], x.shape) if batched and i == operand else x
                 for i, (x, batched) in enumerate(zip(operands, in_batched, strict=True))]
        return vmapped(f, *taken, *in_batched)

    return per_example(f, batched_rule)


def summed(f: Callable[..., Array]) -> Callable[..., Array]:
    """`f` whose rule for vmap sums the results over the batch and gives each example the sum."""

    def batched_rule(*args: Any) -> Array:
        out = vmapped(f, *args)
        return jnp.broadcast_to(out.sum(0), out.shape)

    return per_example(f, batched_rule)


def dX_of(dY: Array, W: Array) -> Array:
    return dY @ W.T


def dW_of(X: Array, dY: Array) -> Array:
    return X.T @ dY


def matmul_by(dX: Callable[..., Array] = dX_of, dW: Callable[..., Array] = dW_of) -> Callable[[], Any]:
    return planted(matmul, lambda args, dY: (dX(dY, args[1]), dW(args[0], dY)))


def flipped_on_the_host(dY: Array) -> Array:
    """Reverses all axes it sees, also one that vmap has put in front."""
    return jax.pure_callback(lambda g: np.flip(np.asarray(g)), dY, dY, vmap_method="expand_dims")


VMAP = [
    Mutant("matmul under vmap: dX takes the first W for all", matmul_by(dX=first_only(dX_of, 1)), PRODUCT,
           law="adjoint", context="vmap W"),
    Mutant("matmul under vmap: dW takes the first X for all", matmul_by(dW=first_only(dW_of, 0)), PRODUCT,
           law="adjoint", context="vmap X"),
    Mutant("matmul under vmap: dX takes the first dY for all", matmul_by(dX=first_only(dX_of, 0)), PRODUCT,
           law="adjoint", context="vmap cotangents"),
    Mutant("matmul under vmap: dW summed over the batch", matmul_by(dW=summed(dW_of)), PRODUCT,
           law="adjoint", context="vmap X"),
    Mutant("matmul under vmap: the forward rule takes the first X for all",
           ruled(matmul, lambda X, W: (first_only(matmul, 0)(X, W), (X, W)),
                 lambda args, dY: (dX_of(dY, args[1]), dW_of(args[0], dY))), PRODUCT,
           law="forward", context="vmap X"),
    Mutant("reversal under vmap: the host reverses the batch too",
           planted(lambda x: x[::-1], lambda _, dy: (flipped_on_the_host(dy),)), normal((6,)),
           law="adjoint", context="vmap cotangents"),
]


def lifted(tangent: Callable[[Any, Any], Array]) -> Callable[[], Any]:
    """Makes X W by `any_mode`, with a forward mode of its own."""

    def make() -> Any:
        f = any_mode(matmul_by()())
        f.deftangent(tangent)
        return f

    return make


FORWARD = [
    Mutant("any_mode: tangent doubled", lifted(lambda r, t: 2 * (t[0] @ r[1] + r[0] @ t[1])), PRODUCT,
           law="forward mode", diagnosis="2 times"),
    Mutant("any_mode: tangent of the other sign", lifted(lambda r, t: -(t[0] @ r[1] + r[0] @ t[1])), PRODUCT,
           law="forward mode", diagnosis="-1 times"),
    Mutant("any_mode: the tangent leaves W out", lifted(lambda r, t: t[0] @ r[1]), PRODUCT,
           law="forward mode", diagnosis="zero"),
    Mutant("any_mode: the tangent has the product's parts subtracted",
           lifted(lambda r, t: t[0] @ r[1] - r[0] @ t[1]), PRODUCT, law="forward mode", diagnosis="-1 times"),
]


def with_zeros(primal: Callable[..., Any], bwd: Callable[..., Any]) -> Callable[[], Any]:
    """Makes `primal` with `bwd(args, active, cotangents)`, where `active` says which arguments are differentiated."""

    def fwd(*args: Any) -> Any:
        values = tuple(a.value for a in args)
        return primal(*values), (values, tuple(() if a.perturbed else None for a in args))

    return ruled(primal, fwd, lambda r, dY: bwd(r[0], tuple(a is not None for a in r[1]), dY), symbolic_zeros=True)


def affine(X: Array, W: Array, b: Array) -> Array:
    return X @ W + b


def affine_where(wrong: tuple[bool, bool, bool], change: Callable[..., Any]) -> Callable[[], Any]:
    """Makes X W + b whose cotangents pass through `change` for one subset of differentiated arguments."""

    def bwd(args: Any, active: tuple[bool, ...], dY: Array) -> Any:
        X, W, _ = args
        cotangents = dY @ W.T, X.T @ dY, dY.sum(0)
        if active == wrong:
            cotangents = change(*cotangents)
        return tuple(ct if on else None for ct, on in zip(cotangents, active, strict=True))

    return with_zeros(affine, bwd)


def doubled_alone() -> Any:
    """X W, whose forward rule skips a factor's part of the work where that factor is not differentiated."""

    def fwd(X: Any, W: Any) -> Any:
        value = matmul(X.value, W.value)
        return (value if X.perturbed else 2 * value), (X.value, W.value)

    return ruled(matmul, fwd, lambda r, dY: (dX_of(dY, r[1]), dW_of(r[0], dY)), symbolic_zeros=True)()


def sine_and_cosine(x: Array) -> tuple[Array, Array]:
    return jnp.sin(x), jnp.cos(x)


def sine_and_cosine_bwd(args: Any, _: Any, cotangents: Any) -> Any:
    x, (ds, dc) = *args, cotangents
    if isinstance(dc, SymbolicZero):
        return (-jnp.cos(x) * ds,)
    if isinstance(ds, SymbolicZero):
        return (-jnp.sin(x) * dc,)
    return (jnp.cos(x) * ds - jnp.sin(x) * dc,)


THREE = normal((7, 5), (5, 3), (3,))

SUBSETS = [
    Mutant("affine: dX doubled where X alone is differentiated",
           affine_where((True, False, False), lambda dX, dW, db: (2 * dX, dW, db)), THREE,
           law="subsets", diagnosis="2 times"),
    Mutant("affine: dW zero where W alone is differentiated",
           affine_where((False, True, False), lambda dX, dW, db: (dX, jnp.zeros_like(dW), db)), THREE,
           law="subsets", diagnosis="zero"),
    Mutant("affine: dW None where W and b are differentiated",
           affine_where((False, True, True), lambda dX, dW, db: (dX, None, db)), THREE,
           law="subsets", diagnosis="zero"),
    Mutant("affine: db averaged where W is not differentiated",
           affine_where((True, False, True), lambda dX, dW, db: (dX, dW, db / dX.shape[0])), THREE,
           law="subsets", diagnosis="averages over"),
    Mutant("affine: sign of dX where b is not differentiated",
           affine_where((True, True, False), lambda dX, dW, db: (-dX, dW, db)), THREE,
           law="subsets", diagnosis="-1 times"),
    Mutant("matmul: the value doubled where W alone is differentiated", doubled_alone, PRODUCT, law="subsets"),
    Mutant("sine and cosine: wrong where the loss uses the sine alone",
           with_zeros(sine_and_cosine, sine_and_cosine_bwd), MATRIX, law="subsets", diagnosis="-1 times"),
]

MUTANTS = [*SECOND, *VMAP, *FORWARD, *SUBSETS]
