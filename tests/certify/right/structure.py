"""Odd but right forms: pytrees, integers, masks, keys, options, symbolic zeros, several outputs, scalars."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import integers, ruled, then

Grads = tuple[Any, ...]


def masked(x: Array, mask: Array, count: Array) -> Array:
    """y = x where the mask is True, times an integer."""
    return jnp.where(mask, x, 0) * count.astype(x.dtype)


def masked_adjoint(residuals: Grads, dy: Array) -> Grads:
    """float0 for what is not floating, as JAX's own rules have it."""
    _, mask, count = residuals
    return masked(dy, mask, count), np.zeros(mask.shape, jax.dtypes.float0), np.zeros(count.shape, jax.dtypes.float0)


class Params(NamedTuple):
    """Nested parameters, some of them absent."""

    W: Array
    b: Array | None
    more: dict[str, Any]


def nested(params: Params, x: Array) -> dict[str, Array]:
    """Two outputs by name, from parameters with None among them."""
    y = x @ params.W
    return {"y": y, "z": y * params.more["scale"]}


def nested_adjoint(residuals: Grads, ct: dict[str, Array]) -> Grads:
    params, x = residuals
    scale = params.more["scale"]
    dy = ct["y"] + scale * ct["z"]
    more = {"scale": jnp.sum(ct["z"] * (x @ params.W), axis=0), "unused": None}
    return Params(x.T @ dy, None, more), dy @ params.W.T


def listed(xs: list[Array]) -> Array:
    """Σ of squares of a list of arrays of several ranks."""
    return sum((jnp.sum(jnp.square(x)) for x in xs[1:]), jnp.sum(jnp.square(xs[0])))


def argmax(x: Array) -> tuple[Array, Array, Array]:
    """The largest entry, where it is, and how many are positive."""
    i = jnp.argmax(x, axis=-1)
    return jnp.take_along_axis(x, i[:, None], axis=-1)[:, 0], i, jnp.sum(x > 0, axis=-1)


def argmax_adjoint(residuals: Grads, ct: tuple[Array, Any, Any]) -> Grads:
    """Integer outputs have cotangents of dtype float0, which say nothing."""
    (x,) = residuals
    hit = jnp.argmax(x, axis=-1)[:, None] == jnp.arange(x.shape[-1])
    return (jnp.where(hit, ct[0][:, None], 0),)


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and mean square, either of which may go unused."""
    return x.mean(-1), jnp.square(x).mean(-1)


def statistics_forward(x: Any) -> tuple[tuple[Array, Array], Array]:
    return statistics(x.value), x.value


def statistics_adjoint(x: Array, ct: tuple[Any, Any]) -> Grads:
    """An unused output has a symbolic zero for its cotangent."""
    dmean, dsquare = (None if isinstance(c, SymbolicZero) else c[..., None] / x.shape[-1] for c in ct)
    dx = jnp.zeros_like(x)
    dx = dx if dmean is None else dx + dmean
    return (dx if dsquare is None else dx + 2 * x * dsquare,)


def bilinear(A: Array, B: Array) -> Array:
    """Y = A B."""
    return A @ B


def bilinear_forward(A: Any, B: Any) -> tuple[Array, Grads]:
    """Keeps an operand only where the other one is differentiated."""
    return bilinear(A.value, B.value), (A.value if B.perturbed else None, B.value if A.perturbed else None)


def bilinear_adjoint(residuals: Grads, dY: Any) -> Grads:
    A, B = residuals
    return None if B is None else dY @ B.T, None if A is None else A.T @ dY


def power(n: int, x: Array) -> Array:
    """y = xⁿ for a static n > 0."""
    return x**n


def power_forward(n: int, x: Array) -> tuple[Array, Array]:
    return x**n, x


def power_adjoint(n: int, x: Array, dy: Array) -> Grads:
    return (n * x ** (n - 1) * dy,)


def scaled(x: Array, axis: int = -1, mode: str = "sum", negate: bool = False) -> Array:
    """A reduction with three options."""
    y = x.sum(axis) if mode == "sum" else x.sum(axis) / max(x.shape[axis], 1)
    return -y if negate else y


def scaled_adjoint(axis: int, mode: str, negate: bool, residuals: Grads, dy: Array) -> Grads:
    (x,) = residuals
    dx = jnp.broadcast_to(jnp.expand_dims(dy, axis), x.shape)
    dx = dx if mode == "sum" else dx / max(x.shape[axis], 1)
    return (-dx if negate else dx,)


@dataclass(frozen=True)
class Model:
    """An object whose method has a rule inside, and another that is called itself."""

    slope: float = 0.5

    def apply(self, x: Array) -> Array:
        return self.slope * planted(jnp.square, lambda residuals, dy: (2 * residuals[0] * dy,))()(x)

    def __call__(self, x: Array) -> Array:
        return self.apply(x) + x


def ignoring(x: Array, unused: Array) -> Array:
    """The second argument has no influence, so its cotangent is zero: right, if odd."""
    return x * x


def affine_of_scalars(a: Array, X: Array, column: Array) -> Array:
    """Y = a X + a² + column: a scalar and a size-1 axis, both broadcast."""
    return a * X + a * a + column


def affine_of_scalars_adjoint(residuals: Grads, dY: Array) -> Grads:
    a, X, _ = residuals
    return jnp.sum(dY * X) + 2 * a * jnp.sum(dY), a * dY, jnp.sum(dY, axis=1, keepdims=True)


def dropout(key: Array, x: Array) -> Array:
    """y = x/(1 − p) where a coin of the key falls so, else 0; p = 1/4."""
    return jnp.where(jax.random.bernoulli(key, 0.75, x.shape), x / 0.75, 0)


def dropout_adjoint(residuals: Grads, dy: Array) -> Grads:
    """The same coins are thrown again: no mask is kept."""
    return None, dropout(residuals[0], dy)


def jitted() -> Any:
    """A rule under jit: what is called is no custom_vjp."""
    return jax.jit(planted(jnp.square, lambda residuals, dy: (2 * residuals[0] * dy,))())


NESTED = Params(np.zeros(0), None, {"scale": np.zeros(0), "unused": None})


def nested_arguments(rng: np.random.Generator) -> tuple[Params, np.ndarray]:
    W, scale, x = normal((5, 3), (3,), (4, 5))(rng)
    return NESTED._replace(W=W, more={"scale": scale, "unused": None}), x


COUNT, MASK = np.int32(3), integers(3, 4, 5) > 0
RIGHT = [
    Right("integers: float0 for masks and counts", planted(masked, masked_adjoint), then(normal((4, 5)), MASK, COUNT)),
    Right("integers: None for masks and counts",
          planted(masked, lambda r, dy: (masked(dy, *r[1:]), None, None)), then(normal((4, 5)), MASK, COUNT)),
    Right("pytrees: None among nested parameters", planted(nested, nested_adjoint), nested_arguments),
    Right("pytrees: a list of arrays", planted(listed, lambda r, dy: ([2 * x * dy for x in r[0]],)),
          lambda rng: (list(normal((3,), (2, 4), ())(rng)),)),
    Right("outputs: integers beside floats", planted(argmax, argmax_adjoint), normal((4, 5))),
    Right("symbolic zeros: an unused output",
          ruled(statistics, statistics_forward, statistics_adjoint, symbolic_zeros=True), normal((4, 5))),
    Right("symbolic zeros: a residual only where needed",
          ruled(bilinear, bilinear_forward, bilinear_adjoint, symbolic_zeros=True), normal((4, 3), (3, 2))),
    Right("options: a leading static argument",
          ruled(power, power_forward, power_adjoint, nondiff=(0,)), lambda rng: (3, *normal((4, 5))(rng))),
    Right("options: by position", planted(scaled, scaled_adjoint), then(normal((4, 5)), 0, "mean", True)),
    Right("options: by functools.partial",
          planted(scaled, scaled_adjoint, axis=0, mode="mean", negate=True), normal((4, 5))),
    Right("options: left at their defaults", planted(scaled, scaled_adjoint), normal((4, 5))),
    Right("method: bound", lambda: Model().apply, normal((4, 5))),
    Right("method: an object that is called", Model, normal((4, 5))),
    Right("options: a positional one by functools.partial",
          lambda: functools.partial(ruled(power, power_forward, power_adjoint, nondiff=(0,))(), 3), normal((4, 5))),
    Right("jit: around the rule", jitted, normal((4, 5))),
    Right("ignored argument: zeros",
          planted(ignoring, lambda r, dy: (2 * r[0] * dy, jnp.zeros_like(r[1]))), normal((4, 5), (3,))),
    Right("scalars: shape () and a size-1 axis",
          planted(affine_of_scalars, affine_of_scalars_adjoint), normal((), (4, 5), (4, 1))),
    Right("dropout: the coins thrown again", planted(dropout, dropout_adjoint),
          lambda rng: (jax.random.key(3), *normal((4, 5))(rng))),
    Right("dropout: with a raw key", planted(dropout, dropout_adjoint),
          lambda rng: (np.array([0, 3], np.uint32), *normal((4, 5))(rng))),
]
