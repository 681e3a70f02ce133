"""The two precisions in which everything is computed: the float64 twin, and the user's own dtypes.

Both see the same numbers: points are rounded to the user's dtypes first, and the twin widens them. How exactly the twin
can be judged is measured, not assumed: the noise floor of a cotangent is how far it moves when its operands move by a
few units in the last place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..adjoint.undecorated import narrowest
from . import plain
from .probes import Numbers, generator, widened
from .quick import quick_options
from .subject import Arrays, Leaf, Subject

ULPS = 4.0              # the mean size of a perturbation that measures the noise floor, in units of the resolution
DRAWS = 5               # perturbations tried; the second largest counts, so that one that crosses a kink does not
EPS = float(np.finfo(np.float64).eps)
WAYS = {"vjp": plain.reverse, "jvp": plain.forward_columns, "differences": plain.difference_columns}


class Result(NamedTuple):
    """Outputs and cotangents, widened to float64; `others` are the outputs that are not floating."""

    y: Numbers
    others: Arrays
    g: Numbers


class Pair(NamedTuple):
    """The rule's result beside the reference's."""

    rule: Result
    plain: Result


@dataclass(eq=False)
class Stage:
    """The subject in one precision.

    Attributes:
        twin: whether it is the float64 twin.
        rule, plain_rule, compared: programs of active and passive leaves and a cotangent: outputs and cotangents of the
            function, of the reference, of both.
        means: how the reference is differentiated: "vjp", "jvp" or "differences"; "" where it cannot be.
        resolution: the relative precision of the arithmetic, that of casts inside the function included.
    """

    subject: Subject
    twin: bool
    means: str = field(init=False)
    why: str = field(init=False, default="")
    plain_rule: plain.Vjp = field(init=False)
    like: Stage | None = None       # of the same function at other shapes: what was found out there need not be again

    def __post_init__(self) -> None:
        s = self.subject
        self.form, self.plain_form = (self._in_precision(s.leaf_form(f)) for f in (s.fun, s.reference))
        self.rule = jax.jit(plain.reverse(self.form))
        self.value = jax.jit(self.form)
        self.plain_value = jax.jit(self.plain_form)
        if self.like is not None:
            self.means, self.why, self._resolution = self.like.means, self.like.why, self.like.resolution
            self._of_values = self.like.resolution_of_values
            self.plain_rule = jax.jit(WAYS[self.means](self.plain_form))
        else:
            self.means, self.plain_rule, self.why = self._means()
        self._programs: dict[str, Callable[..., Any]] = {}
        self.compared = self._jit(lambda a, p, u: (self.rule(a, p, u), self.plain_rule(a, p, u)))

    def _jit(self, function: Callable[..., Any]) -> Any:
        """`jax.jit`; the twin's programs run a few times each, so XLA is told to spend less on making them fast."""
        quick = self.twin and jax.default_backend() == "cpu"
        return jax.jit(function, compiler_options=quick_options() if quick else None)

    def _in_precision(self, form: plain.Form) -> plain.Form:
        """Floating arguments that are not differentiated come in the stage's dtypes too."""
        if not self.twin:
            return form
        return lambda active, passive: form(active, [_widest(x) for x in passive])

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, JAX computes in this stage's precision."""
        return jax.enable_x64(True) if self.twin else contextlib.nullcontext()

    def cast(self, leaves: Sequence[Leaf], values: Sequence[Any]) -> Arrays:
        """Numbers as arrays of this stage's dtypes; those of the user's dtypes in between."""
        narrow = [np.asarray(x).astype(leaf.dtype) for leaf, x in zip(leaves, values, strict=True)]
        return tuple(widened(x) if self.twin else x for x in narrow)

    def operands(
        self, active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]
    ) -> tuple[Arrays, Arrays, Arrays]:
        """The arguments of a program of this stage; cotangents are rounded to the outputs' dtypes."""
        return self.cast(self.subject.active, active), tuple(passive), self.cast(self.subject.outputs, u)

    def compiled(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit(function)`, one for each label: a second run with other probes compiles nothing."""
        return self._programs.setdefault(label, self._jit(function))

    def run(self, program: Callable[..., Any], *operands: Any) -> Any:
        """Runs a program; floating results come back as float64 NumPy arrays, the others as they are."""
        with self.precision():
            return jax.tree.map(_widen, jax.block_until_ready(program(*operands)))

    def both(self, active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> Pair:
        """The rule beside the reference at a point."""
        return self._pair(*self.operands(active, passive, u))

    def unrounded(self, active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> Pair:
        """The same for operands that are no numbers of the user's dtypes: a mean, a perturbed point."""
        return self._pair(*self._wide(active, passive, u))

    def _pair(self, *operands: Arrays) -> Pair:
        (y, g), (y0, g0) = self.run(self.compared, *operands)
        return Pair(Result(y.floating, y.others, g), Result(y0.floating, y0.others, g0))

    def own(self, active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> Result:
        """The rule alone."""
        if self.means:                                              # the program that is compiled anyway
            return self.both(active, passive, u).rule
        y, g = self.run(self.rule, *self.operands(active, passive, u))
        return Result(y.floating, y.others, g)

    def works(self, program: Callable[..., Any], *operands: Any) -> str:
        """Why the program cannot be traced in this precision, or ''."""
        with self.precision():
            return plain.works(program, *operands)

    def given(self) -> tuple[Arrays, Arrays, Arrays]:
        """Operands at the given point, with zero cotangents."""
        s = self.subject
        return self.operands(*s.values, [np.zeros(y.shape, y.dtype) for y in s.outputs])

    def _means(self) -> tuple[str, plain.Vjp, str]:
        """The first way of differentiating the reference that can be traced."""
        size = sum(int(np.prod(leaf.shape)) for leaf in self.subject.active)
        why = ""
        for name, way in WAYS.items():
            program = way(self.plain_form)
            if name != "vjp" and size > plain.COLUMNS:
                return "", program, f"{why}; and {size} elements are too many to differentiate one by one"
            said = self.works(program, *self.given())
            if not said:
                return name, jax.jit(program), why
            why = why or said
        return "", plain.reverse(self.plain_form), why

    @property
    def resolution(self) -> float:
        """The epsilon of the arithmetic: casts written into the reference count; into the rule, down to the user's."""
        if not hasattr(self, "_resolution"):
            users = max(float(jnp.finfo(leaf.dtype).eps) for leaf in (*self.subject.active, *self.subject.outputs))
            with self.precision():
                reference = narrowest(self.plain_value, *self.given()[:2])
                rule = narrowest(self.rule, *self.given())
            own = EPS if self.twin else users
            self._of_values = max(own, reference)
            coarse = 1e-10 if self.means == "differences" else 0.0
            self._resolution = max(own, reference, min(rule, users), coarse)
        return self._resolution

    @property
    def resolution_of_values(self) -> float:
        """The same for the function's values alone: casts in the backward rule do not count."""
        if not hasattr(self, "_of_values"):
            _ = self.resolution
        return self._of_values

    def moves(
        self, operands: tuple[Sequence[Any], Sequence[Any], Sequence[Any]], at: Result, seed: int, kinked: bool
    ) -> Result:
        """How far each entry of the reference's results moves when operands move by a few ulps: the second largest.

        Args:
            operands: active, passive, u.
            at: the results there.
            seed: of the perturbations.
            kinked: whether the point lies on a kink; cotangents alone move then.
        """
        active, passive, u = operands
        eps = ULPS * self.resolution
        found: list[list[np.ndarray]] = []
        for draw in range(DRAWS):
            rng = generator(seed, "noise", draw)

            def moved(x: Any, rng: np.random.Generator = rng) -> np.ndarray:
                size = rng.choice([-1.0, 1.0], np.shape(x)) * rng.uniform(0.5, 1.5, np.shape(x))
                return np.asarray(x) * (1 + eps * size)

            near = self.unrounded([x if kinked else moved(x) for x in active], passive, [moved(x) for x in u]).plain
            found.append([distance(a, b) for a, b in zip((*near.y, *near.g), (*at.y, *at.g), strict=True)])
        second = [np.sort(np.stack(entry), axis=0)[-2] for entry in zip(*found, strict=True)]
        return Result(tuple(second[: len(at.y)]), (), tuple(second[len(at.y) :]))

    def floors(
        self, operands: tuple[Sequence[Any], Sequence[Any], Sequence[Any]], at: Result, moves: Result,
        typical: Sequence[float],
    ) -> Result:
        """The noise floor: one number per output and cotangent leaf, no less than the resolution of its largest entry.

        Args:
            operands, at, moves: as of `moves`, and its result.
            typical: the size of each argument's cotangent elsewhere. One that is small here, where probabilities are
                saturated, still holds the rounding of its terms: a tenth of that size counts, more at large arguments.
        """
        active, _, u = operands
        eps = self.resolution
        u_size, x_size = (max(map(largest, values), default=0.0) for values in (u, active))
        quiet = [eps * u_size * max(1e-3, 0.1 * size * max(1.0, x_size)) for size in typical]
        outputs = [max(largest(m), eps * largest(y)) for m, y in zip(moves.y, at.y, strict=True)]
        cotangents = [max(largest(m), eps * largest(g), q) for m, g, q in zip(moves.g, at.g, quiet, strict=True)]
        return Result(tuple(map(np.asarray, outputs)), (), tuple(map(np.asarray, cotangents)))

    def _wide(self, active: Sequence[Any], passive: Sequence[Any], u: Sequence[Any]) -> tuple[Arrays, Arrays, Arrays]:
        """Operands without the rounding to the user's dtypes, which would undo a small perturbation."""
        if self.twin:
            return tuple(map(widened, active)), tuple(passive), tuple(map(widened, u))
        return self.operands(active, passive, u)


def _widest(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, np.inexact):
        return x
    return jnp.asarray(x, np.complex128 if jnp.issubdtype(x.dtype, np.complexfloating) else np.float64)


def _widen(x: Any) -> Any:
    return widened(x) if jnp.issubdtype(x.dtype, np.inexact) else x


def largest(x: np.ndarray) -> float:
    """The largest magnitude among the finite entries."""
    return float(np.max(np.abs(x), where=np.isfinite(x), initial=0.0))


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, zero where it is not finite."""
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)
    return np.where(np.isfinite(off), off, 0.0)


def rounded(leaves: Sequence[Leaf], values: Sequence[Any]) -> Numbers:
    """Numbers rounded to the user's dtypes, as float64: what both stages then see."""
    return tuple(widened(np.asarray(x).astype(leaf.dtype)) for leaf, x in zip(leaves, values, strict=True))
