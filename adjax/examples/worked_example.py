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


class Inputs(NamedTuple):
    """The point at which the derivative is taken."""

    W: Array
    b: Array
    X: Array


class Rule(NamedTuple):
    """One line of the backward pass: the axes of its factors and of its result, and the map it is the adjoint of."""

    formula: str
    factors: tuple[str, ...]
    result: str
    map: Callable[[Inputs], Callable[[Array], Array]]


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
    def difference(self) -> float:
        """⟨J v, u⟩ − ⟨v, Jᵀ u⟩, zero where the rule is the adjoint."""
        return self.Jv_u - self.v_JTu

    @property
    def disagreements(self) -> tuple[str, ...]:
        """What does not hold of the spelled rule: its value, shape included, or the identity of the inner products."""
        holds = {
            "jax.vjp": np.array_equal(self.spelled, self.vjp),
            "jax.linear_transpose": np.array_equal(self.spelled, self.transposed),
            "the adjoint of J": self.difference == 0,
        }
        return tuple(name for name, held in holds.items() if not held)


class Example(NamedTuple):
    """All that the worked example shows."""

    inputs: Inputs
    Y: np.ndarray
    dY: np.ndarray
    gradients: tuple[Gradient, ...]

    @property
    def agrees(self) -> bool:
        """Whether every gradient passes every comparison."""
        return not any(gradient.disagreements for gradient in self.gradients)


def plain(W: Array, b: Array, X: Array) -> Array:
    """Y = X W + b, left to autodiff."""
    return X @ W + b


def probe(random: np.random.Generator, like: Array) -> Array:
    """A random array of signed integers ±1 … ±9: no entry is zero, so no entry of a gradient goes unseen."""
    return jnp.asarray(random.choice([-1, 1], like.shape) * random.integers(1, 10, like.shape), like.dtype)


def compute(layer: Layer = affine, seed: int = 0) -> Example:
    """Evaluate the example with the backward rule of `layer`, which is affine's unless a test plants another."""
    inputs = Inputs(*(jnp.asarray(value, jnp.float32) for value in (W, b, X)))
    Y, pull = jax.vjp(layer, AffineParams(inputs.W, inputs.b), inputs.X)
    dY = jax.grad(jnp.sum)(Y)
    random = np.random.default_rng(seed)
    u = probe(random, Y)

    def by_name(cotangents: Any) -> dict[str, Array]:
        (dW, db), dX = cotangents
        return {"W": dW, "b": db, "X": dX}

    spelled, spelled_of_u = by_name(pull(dY)), by_name(pull(u))
    by_vjp = Inputs(*jax.vjp(plain, *inputs)[1](dY))._asdict()
    gradients = []
    for name, rule in RULES.items():
        at = getattr(inputs, name)
        v = probe(random, at)
        Jv = jax.jvp(lambda x, name=name: plain(**{**inputs._asdict(), name: x}), (at,), (v,))[1]
        gradients.append(
            Gradient(
                argument=name,
                spelled=np.asarray(spelled[name]),
                vjp=np.asarray(by_vjp[name]),
                transposed=np.asarray(jax.linear_transpose(rule.map(inputs), at)(dY)[0]),
                Jv_u=inner(Jv, u),
                v_JTu=inner(v, spelled_of_u[name]),
            )
        )
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
    shown = {"X (n,d)": inputs.X, "W (d,p)": inputs.W, "b (p)": inputs.b, "Y (n,p)": Y, "dY = dL/dY": dY}
    lines = [
        terminal.paint("Y = X W + b    L = Σ Y", "bold")
        + terminal.paint(f"    n = {n} examples, d = {d} features in, p = {p} out", "dim"),
        "",
        *beside([[terminal.paint(name, "dim"), *matrix(value)] for name, value in shown.items()]),
    ]
    for gradient in gradients:
        lines += ["", *_render_gradient(gradient, sizes, terminal)]
    right = sum(not gradient.disagreements for gradient in gradients)
    note = (
        "Jᵀ is the backward rule that adjax.affine spells, J the derivative of the plain\n"
        "X @ W + b; v and u are random signed integers, which float32 carries exactly."
    )
    lines += [
        "",
        *(terminal.paint(line, "dim") for line in note.splitlines()),
        "",
        _verdict(example.agrees, f"{right} of {len(gradients)} gradients agree", terminal),
    ]
    return "\n".join(lines)


def _render_gradient(gradient: Gradient, sizes: dict[str, int], terminal: Terminal) -> list[str]:
    rule = RULES[gradient.argument]
    letters, numbers = (f"{shapes(rule.factors, of)} → {shapes((rule.result,), of)}" for of in (None, sizes))
    values = {"spelled": gradient.spelled, "jax.vjp": gradient.vjp, "jax.linear_transpose": gradient.transposed}
    products = {"⟨J v, u⟩": gradient.Jv_u, "⟨v, Jᵀ u⟩": gradient.v_JTu, "difference": gradient.difference}
    blocks = [[terminal.paint(name, "dim"), *matrix(value)] for name, value in values.items()]
    names = [terminal.paint(name, "dim") for name in products]
    agreement = "spelled = jax.vjp = jax.linear_transpose, and ⟨J v, u⟩ = ⟨v, Jᵀ u⟩"
    wrong = " nor ".join(gradient.disagreements)
    return [
        terminal.paint(f"d{gradient.argument} = {rule.formula}", "bold", "cyan")
        + f"    {letters}    {terminal.paint(numbers, 'dim')}",
        *beside([*blocks, names, [f"{value:>6g}" for value in products.values()]], gap=3),
        _verdict(not wrong, f"spelled is not {wrong}" if wrong else agreement, terminal),
    ]


def _verdict(holds: bool, text: str, terminal: Terminal) -> str:
    return terminal.paint(f"{'✓' if holds else '✗'} {text}", "green" if holds else "red")


def main() -> int:
    """Print the worked example. Returns 0, or 1 if any two of the values that must agree do not."""
    terminal = Terminal()
    example = compute()
    terminal.print(render(example, terminal))
    return 0 if example.agrees else 1
