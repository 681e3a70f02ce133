"""Rules with loops and branches inside, rules within rules, and other decorators than custom_vjp."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from adjax import any_mode
from tests.certify.planting import normal, planted
from tests.certify.rules import Right
from tests.certify.words import REAL, positive, ruled, wide

Grads = tuple[Any, ...]


def recurrence(a: Array, x: Array) -> Array:
    """h_t = a h_{t−1} + x_t, elementwise over the last axis, time first."""

    def step(h: Array, x_t: Array) -> tuple[Array, Array]:
        h = wide(a) * h + x_t
        return h, h

    return lax.scan(step, jnp.zeros_like(wide(a)), wide(x))[1].astype(x.dtype)


def recurrence_adjoint(residuals: Grads, dh: Array) -> Grads:
    """g_t = dh_t + a g_{t+1}, dx_t = g_t, da = Σ_t g_t h_{t−1}: a scan against time, h recomputed."""
    a, x = residuals
    h = recurrence(wide(a), wide(x))
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])

    def step(carry: Grads, pair: tuple[Array, Array]) -> tuple[Grads, Array]:
        g, da = carry
        g = pair[0] + wide(a) * g
        return (g, da + g * pair[1]), g

    zero = jnp.zeros_like(wide(a))
    (_, da), dx = lax.scan(step, (zero, zero), (wide(dh), before), reverse=True)
    return da.astype(a.dtype), dx.astype(x.dtype)


def cubic_root(x: Array) -> Array:
    """The y with y³ + y = x, by Newton's iteration until it stands still: reverse mode cannot go through it."""
    x32 = wide(x)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        y, _, i = carry
        y_next = y - (y**3 + y - x32) / (3 * y * y + 1)
        return y_next, y, i + 1

    def moving(carry: tuple[Array, Array, Array]) -> Array:
        y, before, i = carry
        return jnp.any(y != before) & (i < 60)

    return lax.while_loop(moving, step, (x32, x32 + 1, jnp.zeros((), jnp.int32)))[0].astype(x.dtype)


def cubic_root_in_closed_form(x: Array) -> Array:
    """2/√3 sinh(asinh(3√3 x/2)/3)."""
    root3 = np.sqrt(3.0).item()
    return (2 / root3 * jnp.sinh(jnp.arcsinh(1.5 * root3 * wide(x)) / 3)).astype(x.dtype)


def cubic_root_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = dy/(3 y² + 1), by the implicit function theorem."""
    y = cubic_root(wide(residuals[0]))
    return ((wide(dy) / (3 * y * y + 1)).astype(dy.dtype),)


def square_root(x: Array) -> Array:
    """√x by Heron's iteration, of positive numbers."""
    x32 = wide(x)
    start = (x32 + 1) / 2
    step = lambda carry: ((carry[0] + x32 / carry[0]) / 2, carry[1] + 1)
    return lax.while_loop(lambda carry: carry[1] < 40, step, (start, 0))[0].astype(x.dtype)


def switched(training: Array, x: Array) -> Array:
    """Centred while training, halved otherwise."""
    return lax.cond(training, lambda x: x - x.mean(0), lambda x: x / 2, x)


def running_sum(x: Array) -> Array:
    """y_i = Σ_{j≤i} x_j over the first axis."""
    return jnp.cumsum(x, axis=0)


def running_sum_adjoint(residuals: Grads, dy: Array) -> Grads:
    """From the end, in a while_loop: JAX cannot transpose that, so forward mode needs a rule of its own."""
    n = dy.shape[0]
    if n == 0:
        return (dy,)

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, dx = carry
        at = n - 2 - i
        return i + 1, dx.at[at].add(dx[at + 1])

    return (lax.while_loop(lambda carry: carry[0] < n - 1, step, (jnp.zeros((), jnp.int32), dy))[1],)


def running_sum_in_any_mode() -> Any:
    f = any_mode(planted(running_sum, running_sum_adjoint)())
    f.deftangent(lambda residuals, dx: running_sum(dx[0]))
    return f


def squared_norm(x: Array) -> Array:
    """Σ x² over the last axis."""
    return jnp.sum(jnp.square(wide(x)), axis=-1).astype(x.dtype)


def squared_norm_adjoint(residuals: Grads, dy: Array) -> Grads:
    return (2 * residuals[0] * dy[..., None],)


def gaussian(x: Array) -> Array:
    """exp(−|x|²/2), through a function that has a rule of its own."""
    return jnp.exp(-planted(squared_norm, squared_norm_adjoint)()(x) / 2)


def gaussian_adjoint(residuals: Grads, dy: Array) -> Grads:
    """dx = −x y dy; the rule too calls the inner function."""
    (x,) = residuals
    return (-x * (gaussian(x) * dy)[..., None],)


def checkpointed(W: Array, x: Array) -> Array:
    """tanh of tanh, of products."""
    return jnp.tanh(jnp.tanh(x @ W) @ W.T)


def checkpointed_adjoint(residuals: Grads, dy: Array) -> Grads:
    """By autodiff of a rematerialized copy."""
    return jax.vjp(jax.checkpoint(checkpointed), *residuals)[1](dy)


@jax.custom_gradient
def softplus(x: Array) -> tuple[Array, Any]:
    """log(1 + exp x), by custom_gradient."""
    return jnp.logaddexp(x, jnp.zeros_like(x)), lambda dy: dy * lax.logistic(x)


def cosine(x: Array) -> Array:
    """cos x, with a rule for tangents."""
    f = jax.custom_jvp(jnp.cos)
    f.defjvp(lambda primals, tangents: (f(primals[0]), -jnp.sin(primals[0]) * tangents[0]))
    return f(x)


def exponential() -> Any:
    """A bare custom_jvp, whose tangent is made of the result."""
    f = jax.custom_jvp(jnp.exp)

    def tangent(primals: Grads, tangents: Grads) -> tuple[Array, Array]:
        y = f(*primals)
        return y, y * tangents[0]

    f.defjvp(tangent)
    return f


def of_constants() -> Any:
    """A rule over constants of its surroundings: y = C x, dx = Cᵀ dy."""
    C = np.random.default_rng(0).standard_normal((3, 5))
    primal = lambda x: jnp.asarray(C, x.dtype) @ x
    return planted(primal, lambda residuals, dy: (jnp.asarray(C.T, dy.dtype) @ dy,))()


def plain(W: Array, x: Array) -> Array:
    """No rule at all."""
    return jnp.sin(x @ W)


def product(A: Array, B: Array) -> Array:
    """Y = A B."""
    return A @ B


def product_in_any_mode() -> Any:
    return any_mode(planted(product, lambda residuals, dY: (dY @ residuals[1].T, residuals[0].T @ dY))())


CLOSED = {"reference": cubic_root_in_closed_form}
RIGHT = [
    Right("recurrence: a scan against time", planted(recurrence, recurrence_adjoint), normal((3,), (6, 3))),
    Right("while_loop: the implicit function theorem",
          planted(cubic_root, cubic_root_adjoint), normal((4, 3)), options=CLOSED),
    Right("while_loop: without a reference", planted(cubic_root, cubic_root_adjoint), normal((4, 3)), REAL),
    Right("while_loop: with a domain",
          ruled(square_root, lambda x: (square_root(x),) * 2, lambda y, dy: (dy / (2 * y),)),
          positive((4, 3)), REAL, options={"reference": jnp.sqrt, "domain": (0.0, 2000.0)}),
    Right("cond: on a flag", planted(switched, lambda r, dy: (None, switched(r[0], dy))),
          lambda rng: (np.array(True), *normal((4, 3))(rng))),
    Right("any_mode: a tangent beside a while_loop", running_sum_in_any_mode, normal((5, 2)), REAL),
    Right("any_mode: of a product", product_in_any_mode, normal((4, 3), (3, 2))),
    Right("rule within a rule", planted(gaussian, gaussian_adjoint), normal((4, 3)), REAL),
    Right("checkpoint: autodiff inside the rule",
          planted(checkpointed, checkpointed_adjoint), normal((3, 2), (4, 3)), REAL),
    Right("custom_gradient", lambda: softplus, normal((4, 3))),
    Right("custom_jvp: inside", lambda: cosine, normal((4, 3))),
    Right("custom_jvp: bare", exponential, normal((4, 3)), REAL),
    Right("constants of the surroundings", of_constants, normal((5,))),
    Right("plain function", lambda: plain, normal((3, 2), (4, 3))),
    Right("plain function: of a library", lambda: functools.partial(jax.nn.log_softmax, axis=-1), normal((4, 3))),
]
