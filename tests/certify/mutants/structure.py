"""Results of the wrong kind: None, one array for many, wrong types; outputs dropped or mixed up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant
from tests.certify.words import REAL, complexes, ruled

MATRIX = normal((7, 5))


def sine(x: Array) -> Array:
    return jnp.sin(x)


def mixture(params: dict[str, Array], X: Array) -> Array:
    """Y = tanh(X A) B, for square A and B."""
    return jnp.tanh(X @ params["A"]) @ params["B"]


def mixture_with(change: Callable[[Array, Array, Array], Any]) -> Callable[[], Any]:
    """Makes the mixture with its adjoint, save that `change(dA, dB, dX)` is what the rule returns."""

    def bwd(args: Any, dY: Array) -> Any:
        params, X = args
        H = jnp.tanh(X @ params["A"])
        dZ = (dY @ params["B"].T) * (1 - H**2)
        return change(X.T @ dZ, H.T @ dY, dZ @ params["A"].T)

    return planted(mixture, bwd)


def weights(*names: str) -> Callable[..., Any]:
    """Makes `({name: square matrix}, X)`."""
    return lambda rng: ({name: rng.standard_normal((5, 5)) for name in names}, rng.standard_normal((7, 5)))


TREES = [
    Mutant("mixture: None for X", mixture_with(lambda dA, dB, dX: ({"A": dA, "B": dB}, None)), weights("A", "B"),
           law="structure", diagnosis="zero"),
    Mutant("mixture: None for all parameters", mixture_with(lambda dA, dB, dX: (None, dX)), weights("A", "B"),
           law="structure", diagnosis="zero"),
    Mutant("mixture: None for one parameter", mixture_with(lambda dA, dB, dX: ({"A": dA, "B": None}, dX)),
           weights("A", "B"), law="structure", diagnosis="zero"),
    Mutant("mixture: one array for all parameters", mixture_with(lambda dA, dB, dX: (dA, dX)), weights("A", "B"),
           law="structure", diagnosis="broadcast"),
    Mutant("sum of products: one array for all parameters, right by luck",
           planted(lambda params, X: X @ (params["A"] + params["B"]),
                   lambda args, dY: (args[1].T @ dY, dY @ (args[0]["A"] + args[0]["B"]).T)), weights("A", "B"),
           law="structure", diagnosis="broadcast"),
    Mutant("mixture: the parameters' cotangents under each other's names",
           mixture_with(lambda dA, dB, dX: ({"A": dB, "B": dA}, dX)), weights("A", "B"),
           law="adjoint", diagnosis="swapped"),
]


def cast(dtype: Any) -> Callable[[], Any]:
    """Makes a sine whose rule returns its cotangent in `dtype`, whatever the argument's."""
    return planted(sine, lambda args, dy: ((jnp.cos(args[0]) * dy).astype(dtype),))


def complexified(args: Any, dy: Array) -> Any:
    dx = jnp.cos(args[0]) * dy
    return (lax.complex(dx, dx),)


TYPES = [
    Mutant("sine: float32 cotangent of a bfloat16 argument", cast("float32"), MATRIX, dtypes=("bfloat16",),
           law="structure"),
    Mutant("sine: float32 cotangent of a float64 argument", cast("float32"), MATRIX, dtypes=("float64",),
           law="structure"),
    Mutant("sine: bfloat16 cotangent of a wider argument", cast("bfloat16"), MATRIX, dtypes=REAL, law="structure"),
    Mutant("sine: integer cotangent", cast("int32"), MATRIX, law="structure"),
    Mutant("sine: complex cotangent of a real argument", planted(sine, complexified), MATRIX, dtypes=REAL,
           law="structure"),
    Mutant("complex sine: real cotangent", planted(sine, lambda args, dy: ((jnp.cos(args[0]) * dy).real,)),
           complexes((6,)), dtypes=REAL, law="structure"),
    Mutant("sine: the forward rule returns float32",
           ruled(sine, lambda x: (jnp.sin(x).astype(jnp.float32), x),
                 lambda x, dy: (jnp.cos(x) * dy.astype(x.dtype),)), MATRIX, dtypes=("float64", "bfloat16"),
           law="structure"),
    Mutant("mean: the forward rule keeps the summed axis",
           ruled(lambda X: X.mean(0), lambda X: (X.mean(0, keepdims=True), X),
                 lambda X, dy: (jnp.broadcast_to(dy, X.shape) / X.shape[0],)), MATRIX, law="structure"),
]


def polar(x: Array, y: Array) -> tuple[Array, Array]:
    """Radius and angle."""
    return jnp.hypot(x, y), jnp.arctan2(y, x)


def polar_with(change: Callable[[Array, Array], tuple[Array, Array]]) -> Callable[[], Any]:
    """Makes `polar` with the adjoint applied to changed cotangents of its outputs."""

    def bwd(args: Any, cotangents: Any) -> Any:
        x, y = args
        r = jnp.hypot(x, y)
        dr, da = change(*cotangents)
        return x / r * dr - y / r**2 * da, y / r * dr + x / r**2 * da

    return planted(polar, bwd)


def polar_forward(change: Callable[[Array, Array], Any]) -> Callable[[], Any]:
    """Makes `polar` with the right backward rule, and a forward rule that returns something else."""
    bwd = polar_with(lambda dr, da: (dr, da))().bwd
    return ruled(polar, lambda x, y: (change(*polar(x, y)), (x, y)), lambda args, dy: bwd(args, dy[:2]))


def plane(rng: Any) -> Any:
    """Points of both signs, away from the origin and from the angle's cut."""
    return rng.uniform(0.5, 2, 6), rng.standard_normal(6)


OUTPUTS = [
    Mutant("polar: the angle's cotangent dropped", polar_with(lambda dr, da: (dr, jnp.zeros_like(da))), plane,
           law="adjoint", diagnosis="output[1] is dropped"),
    Mutant("polar: the radius' cotangent dropped", polar_with(lambda dr, da: (jnp.zeros_like(dr), da)), plane,
           law="adjoint", diagnosis="output[0] is dropped"),
    Mutant("polar: the radius' cotangent used for both", polar_with(lambda dr, da: (dr, dr)), plane,
           law="adjoint", diagnosis="output"),
    Mutant("polar: the outputs' cotangents in the other order", polar_with(lambda dr, da: (da, dr)), plane,
           law="adjoint", diagnosis="output"),
    Mutant("polar: the forward rule returns degrees", polar_forward(lambda r, a: (r, jnp.rad2deg(a))), plane,
           law="forward"),
    Mutant("polar: the forward rule returns the other order", polar_forward(lambda r, a: (a, r)), plane, law="forward"),
    Mutant("polar: the forward rule returns a third output", polar_forward(lambda r, a: (r, a, r)), plane,
           law="structure"),
]


def moments_fwd(X: Array) -> Any:
    return (X.mean(0), X.var(0, ddof=1)), X


def moments_bwd(X: Array, cotangents: Any) -> Any:
    dm, dv = cotangents
    return ((dm + 2 * (X - X.mean(0)) * dv) / X.shape[0],)


MOMENTS = [
    Mutant("moments: the forward rule's variance is the unbiased one",
           ruled(lambda X: (X.mean(0), X.var(0)), moments_fwd, moments_bwd), MATRIX,
           law="forward", diagnosis="n and n-1"),
]

MUTANTS = [*TREES, *TYPES, *OUTPUTS, *MOMENTS]
