"""The worked example: one affine map, its three gradients, and the proof that each is the adjoint it claims to be.

Y = X W + b and L = Σ Y, so dY = 1. Each gradient is computed three ways: by the backward rule that `adjax.affine`
spells, by `jax.vjp` of the plain `X @ W + b`, and by `jax.linear_transpose` of the one linear map it is the adjoint of.
Then ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ is evaluated, J being the derivative of the plain function and Jᵀ the spelled rule.

The inputs are small multiples of ½ and the probes v, u random signed integers: float32 carries every product and sum
exactly, so agreement means equality to the last bit and no tolerance is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adjax import AffineParams, affine
from adjax.examples.terminal import Terminal, beside

X = ((1, 0), (0, 1), (1, 1))
W = ((2, 1), (-1, 3))
b = (0.5, -2)

Layer = Callable[[AffineParams, Array], Array]


class Rule(NamedTuple):
    """One line of the backward pass: the axes of its factors and of its result, and the map it is the adjoint of."""

    formula: str
    factors: tuple[str, ...]
    result: str
    map: Callable[["Inputs"], Callable[[Array], Array]]


class Inputs(NamedTuple):
    """The point at which the derivative is taken."""

    W: Array
    b: Array
    X: Array


RULES = {
    "W": Rule("Xᵀ dY", ("dn", "np"), "dp", lambda at: lambda W: at.X @ W),
    "X": Rule("dY Wᵀ", ("np", "pd"), "nd", lambda at: lambda X: X @ at.W),
    "b": Rule("Σ_n dY", ("np",), "p", lambda at: lambda b: jnp.broadcast_to(b, (len(at.X), len(b)))),
}


class Gradient(NamedTuple):
    """The gradient with respect to one argument, computed three ways, and the two inner products."""

    argument: str
    spelled: np.ndarray
    vjp: np.ndarray
    transposed: np.ndarray
    Jv_u: float
    v_JTu: float

    @property
    def agrees(self) -> bool:
        """Whether the three values are equal, shape included, and the two inner products are."""
        same = all(np.array_equal(self.spelled, other) for other in (self.vjp, self.transposed))
        return same and self.Jv_u == self.v_JTu


class Example(NamedTuple):
    """All that the worked example shows."""

    inputs: Inputs
    Y: np.ndarray
    dY: np.ndarray
    gradients: tuple[Gradient, ...]

    @property
    def agrees(self) -> bool:
        """Whether every gradient agrees."""
        return all(gradient.agrees for gradient in self.gradients)


def plain(W: Array, b: Array, X: Array) -> Array:
    """Y = X W + b, left to autodiff."""
    return X @ W + b


def probe(key: Array, like: Array) -> Array:
    """A random array of signed integers ±1 … ±9: no entry is zero, so no entry of a gradient goes unseen."""
    sign, size = jax.random.split(key)
    return jax.random.rademacher(sign, like.shape, like.dtype) * jax.random.randint(size, like.shape, 1, 10).astype(
        like.dtype
    )


def compute(layer: Layer = affine, seed: int = 0) -> Example:
    """Evaluate the example with the backward rule of `layer`, which is affine's unless a test plants another."""
    inputs = Inputs(*(jnp.asarray(value, jnp.float32) for value in (W, b, X)))
    Y, pull = jax.vjp(layer, AffineParams(inputs.W, inputs.b), inputs.X)
    dY = jax.grad(jnp.sum)(Y)
    key_u, *keys = jax.random.split(jax.random.key(seed), 1 + len(RULES))
    u = probe(key_u, Y)

    def by_name(cotangents: Any) -> dict[str, Array]:
        (dW, db), dX = cotangents
        return {"W": dW, "b": db, "X": dX}

    spelled, spelled_of_u = by_name(pull(dY)), by_name(pull(u))
    by_vjp = Inputs(*jax.vjp(plain, *inputs)[1](dY))._asdict()
    gradients = []
    for (name, rule), key in zip(RULES.items(), keys, strict=True):
        at = getattr(inputs, name)
        v = probe(key, at)
        Jv = jax.jvp(lambda x, name=name: plain(**{**inputs._asdict(), name: x}), (at,), (v,))[1]
        (transposed,) = jax.linear_transpose(rule.map(inputs), at)(dY)
        values = (np.asarray(value) for value in (spelled[name], by_vjp[name], transposed))
        gradients.append(Gradient(name, *values, inner(Jv, u), inner(v, spelled_of_u[name])))
    return Example(inputs, np.asarray(Y), np.asarray(dY), tuple(gradients))


def inner(a: Array, b: Array) -> float:
    """⟨a, b⟩ = Σ a b."""
    return float(np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64)))


def matrix(A: Any) -> list[str]:
    """The lines of a matrix (a vector is one line), its columns aligned.

    >>> matrix([[1, -0.5], [10, 3]])
    ['[  1  -0.5 ]', '[ 10     3 ]']
    """
    rows = [[f"{entry:g}" for entry in row] for row in np.atleast_2d(A)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"[ {'  '.join(map(str.rjust, row, widths))} ]" for row in rows]


def shapes(axes: str | tuple[str, ...], sizes: dict[str, int] | None = None) -> str:
    """`(d,n)(n,p)` from ("dn", "np"); with sizes, `(2,3)(3,2)`."""
    return "".join(f"({','.join(str(sizes[a]) if sizes else a for a in factor)})" for factor in axes)


def render(example: Example, terminal: Terminal) -> str:
    """The example as text of at most 80 columns."""
    inputs, Y, dY, gradients = example
    (n, d), p = inputs.X.shape, len(inputs.b)
    sizes = {"n": n, "d": d, "p": p}
    head, quiet = (lambda text: terminal.paint(text, "bold", "cyan")), (lambda text: terminal.paint(text, "dim"))
    shown = {"X (n,d)": inputs.X, "W (d,p)": inputs.W, "b (p)": inputs.b, "Y (n,p)": Y, "dY (n,p)": dY}
    lines = [
        f"{terminal.paint('Y = X W + b', 'bold')}    {terminal.paint('L = Σ Y', 'bold')}    "
        + quiet(f"n = {n} examples, d = {d} features in, p = {p} features out"),
        "",
        *beside([[quiet(name), *matrix(value)] for name, value in shown.items()]),
    ]
    for gradient in gradients:
        lines += ["", *_render_gradient(gradient, sizes, terminal, head, quiet)]
    correct = sum(gradient.agrees for gradient in gradients)
    lines += [
        "",
        quiet("v, u: random signed integers, exact in float32. J: derivative of the plain X @ W + b."),
        quiet("Jᵀ: the backward rule that adjax.affine spells."),
        "",
        _verdict(example.agrees, f"{correct} of {len(gradients)} gradients agree", terminal),
    ]
    return "\n".join(lines)


def _render_gradient(
    gradient: Gradient,
    sizes: dict[str, int],
    terminal: Terminal,
    head: Callable[[str], str],
    quiet: Callable[[str], str],
) -> list[str]:
    rule = RULES[gradient.argument]
    arrow = terminal.spell(" → ")
    argument = shapes(rule.factors) + arrow + shapes((rule.result,))
    numbers = shapes(rule.factors, sizes) + arrow + shapes((rule.result,), sizes)
    values = {"spelled": gradient.spelled, "jax.vjp": gradient.vjp, "jax.linear_transpose": gradient.transposed}
    products = [
        f"⟨J v, u⟩   = {gradient.Jv_u:g}",
        f"⟨v, Jᵀ u⟩  = {gradient.v_JTu:g}",
        f"difference = {gradient.Jv_u - gradient.v_JTu:g}",
    ]
    blocks = [[quiet(name), *matrix(value)] for name, value in values.items()]
    blocks.append([terminal.spell(line) for line in products])
    return [
        f"{head(f'd{gradient.argument} = {rule.formula}')}    {argument}    {quiet(numbers)}",
        *beside(blocks),
        _verdict(gradient.agrees, "equal" if gradient.agrees else "they differ", terminal),
    ]


def _verdict(agrees: bool, text: str, terminal: Terminal) -> str:
    return terminal.paint(f"{'✓' if agrees else '✗'} {text}", "green" if agrees else "red")


def main() -> int:
    """Print the worked example. Returns 0, or 1 if any two of the values that must agree do not."""
    terminal = Terminal()
    example = compute()
    terminal.print(render(example, terminal))
    return 0 if example.agrees else 1
