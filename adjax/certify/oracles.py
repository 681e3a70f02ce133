"""Four independent ways to know the adjoint, and the kinks where there is more than one.

    vjp           the reference's vjp, elementwise (`Prover.errors`)
    jvp           ⟨J v, u⟩ = ⟨v, Jᵀ u⟩, J v by forward mode of the reference
    transpose     linear_transpose of the linearized reference, elementwise
    differences   ⟨J v, u⟩ by central differences of the function's own values, extrapolated to step zero (Ridders)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .compare import Error
from .judge import SHARP, Prover
from .plain import pull, reason
from .probes import Numbers, dense, directions, generator
from .stage import Stage, largest
from .subject import Arrays

ORACLES = ("vjp", "jvp", "transpose", "differences")
STEPS = 8
FIRST_STEP, SMALL_STEP = 0.25, 2.0**-13
NEAR = 1e-6             # the relative step of one-sided differences
AROUND = 1e-6           # how far from a kink slopes are looked at, relative to the arguments
SAMPLES = 64            # and at how many points


def pushforward(form: Callable[..., Any]) -> Callable[..., Any]:
    """(active, passive, v) -> J v, all floating outputs."""
    return lambda a, p, v: jax.jvp(lambda *x: form(x, p).floating, tuple(a), tuple(v))[1]


def transposed_linearization(form: Callable[..., Any]) -> Callable[..., Any]:
    """(active, passive, u) -> the transpose of the linearized function, applied to u."""

    def transposed(a: Arrays, p: Arrays, u: Arrays) -> Arrays:
        y, push = jax.linearize(lambda *x: form(x, p).floating, *a)
        return pull(jax.linear_transpose(push, *a), y, u)

    return transposed


@dataclass(frozen=True)
class Opinion:
    """What an oracle says of one argument leaf.

    Attributes:
        agrees: True, False, or None where it cannot say, for the reason in `note`.
        measured, tolerance: relative to the size of the inner product.
    """

    oracle: str
    leaf: int
    agrees: bool | None
    measured: float = 0.0
    tolerance: float = 0.0
    note: str = ""


def jvp_opinions(prover: Prover, probes: dict[str, tuple[Numbers, Numbers]]) -> list[Opinion]:
    """⟨J v, u⟩ against ⟨v, g⟩, two directions a leaf. `probes`: cotangents u and the rule's g, by name."""
    stage, leaves = prover.sharp, prover.subject.active
    program = stage.compiled("plain jvp", pushforward(stage.plain_form))
    base = stage.cast(leaves, prover.base)
    if why := stage.works(program, base, prover.passive, base):
        return [Opinion("jvp", i, None, note=why) for i in range(len(leaves))]
    found = []
    for i in range(len(leaves)):
        for draw in range(2):
            v = stage.cast(leaves, directions(leaves, i, prover.seed, draw))
            dy = stage.run(program, base, prover.passive, v)
            for u, g in probes.values():
                found.append(_inner_product("jvp", i, dy, u, np.asarray(v[i]), g[i], prover))
    return worst_of(found)


def _inner_product(
    oracle: str, i: int, dy: Sequence[np.ndarray], u: Numbers, v: np.ndarray, g: np.ndarray, prover: Prover
) -> Opinion:
    terms = [np.real(a * b) for a, b in zip(dy, u, strict=True)]
    left, right = sum(float(t.sum()) for t in terms), float(np.real(v * g).sum())
    size = np.sqrt(sum(float((t**2).sum()) for t in terms)) + np.sqrt(float((np.abs(v * g) ** 2).sum()))
    floor = prover.floors[prover.subject.active[i]] * float(np.sqrt((np.abs(v) ** 2).sum()))
    tolerance = SHARP * max(4 * prover.sharp.resolution * size, floor)
    off, size = abs(left - right), size or 1.0
    return Opinion(oracle, i, off <= tolerance, off / size, tolerance / size)


def transpose_opinions(prover: Prover, probes: dict[str, tuple[Numbers, Numbers]]) -> list[Opinion]:
    """The transpose of the linearized reference, elementwise."""
    stage, leaves = prover.sharp, prover.subject.active
    program = stage.compiled("plain transpose", transposed_linearization(stage.plain_form))
    u, g = next(iter(probes.values()))
    operands = stage.operands(prover.base, prover.passive, u)
    try:
        want = stage.run(program, *operands)
    except Exception as error:
        return [Opinion("transpose", i, None, note=reason(error)) for i in range(len(leaves))]
    errors = prover.close(leaves, g, want)
    return [
        Opinion("transpose", i, not e.wrong, e.error / (e.scale or 1.0), e.tolerance / (e.scale or 1.0))
        for i, e in enumerate(errors)
    ]


def difference_opinions(prover: Prover, probes: dict[str, tuple[Numbers, Numbers]]) -> list[Opinion]:
    """Extrapolated central differences of the function's own values, two directions a leaf."""
    leaves = prover.subject.active
    found = []
    for i in range(len(leaves)):
        for draw in range(2):
            v = _sized(prover, directions(leaves, i, prover.seed, draw))
            try:
                opinions = _along_one(prover, i, v, probes, FIRST_STEP)
                if any(o.agrees is False for o in opinions) and prover.sharp.resolution_of_values < 1e-12:
                    opinions = _along_one(prover, i, v, probes, SMALL_STEP)         # between this point and a kink
                found += opinions
            except FloatingPointError as edge:
                found.append(Opinion("differences", i, None, note=str(edge)))
    return worst_of(found)


def _along_one(
    prover: Prover, i: int, v: Numbers, probes: dict[str, tuple[Numbers, Numbers]], step: float
) -> list[Opinion]:
    """The slopes in one direction against ⟨v, g⟩, for every cotangent."""
    slopes = central(prover, prover.base, prover.passive, v, [u for u, _ in probes.values()], step)
    rounding = 10 * prover.sharp.resolution * max(map(largest, prover.base_values)) / (step / 2**STEPS)
    found = []
    for (u, g), (slope, doubt) in zip(probes.values(), slopes, strict=True):
        got = float(np.real(v[i] * g[i]).sum())
        size = float(np.sqrt((np.abs(v[i] * g[i]) ** 2).sum())) + abs(slope)
        tolerance = 20 * doubt + max(1e-7, 1e3 * prover.sharp.resolution) * size + rounding * sum(map(_size, u))
        agrees: bool | None = abs(got - slope) <= tolerance
        note = ""
        if not agrees and is_kink(prover, prover.base, prover.passive, v, u, slope):
            agrees, note = None, "a kink lies here: slopes to the left and to the right differ"
        found.append(
            Opinion("differences", i, agrees, abs(got - slope) / (size or 1.0), tolerance / (size or 1.0), note)
        )
    return found


def worst_of(opinions: list[Opinion]) -> list[Opinion]:
    """One opinion a leaf: dissent, else agreement, else silence."""
    best: dict[int, Opinion] = {}
    for o in opinions:
        rank = {False: 2, True: 1, None: 0}
        seen = best.get(o.leaf)
        if seen is None or (rank[o.agrees], o.measured) > (rank[seen.agrees], seen.measured):
            best[o.leaf] = o
    return list(best.values())


def _size(u: np.ndarray) -> float:
    return float(np.sqrt((np.abs(u) ** 2).sum()))


def _sized(prover: Prover, v: Numbers) -> Numbers:
    """A direction as large as the point it starts from, leaf by leaf."""
    sizes = [float(np.sqrt(np.mean(np.abs(x) ** 2))) if x.size else 1.0 for x in prover.base]
    return tuple(d * (s or 1.0) for d, s in zip(v, sizes, strict=True))


def outputs_at(prover: Prover, active: Sequence[Any], passive: Arrays) -> Numbers:
    """The function's own values, in the sharper precision; points are not rounded to the user's dtypes."""
    stage: Stage = prover.sharp
    given = active if stage.twin else stage.cast(prover.subject.active, active)
    return tuple(stage.run(stage.value, tuple(given), tuple(passive)).floating)


def _along(prover: Prover, x: Numbers, passive: Arrays, v: Numbers, t: float) -> Numbers:
    return outputs_at(prover, tuple(a + t * d for a, d in zip(x, v, strict=True)), passive)


def _dot(y: Numbers, u: Numbers) -> float:
    return sum(float(np.real(a * b).sum()) for a, b in zip(y, u, strict=True))


def central(
    prover: Prover, x: Numbers, passive: Arrays, v: Numbers, us: Sequence[Numbers], step: float
) -> list[tuple[float, float]]:
    """d/dt ⟨u, f(x + t v)⟩ at 0 for several u, each with its doubt: central differences, extrapolated (Ridders).

    Raises:
        FloatingPointError: the function is not finite on either side of the point: its domain ends here.
    """
    table: list[list[np.ndarray]] = []
    best, doubt = np.zeros(len(us)), np.full(len(us), np.inf)
    for _ in range(STEPS):
        ahead, behind = _along(prover, x, passive, v, step), _along(prover, x, passive, v, -step)
        slope = np.array([(_dot(ahead, u) - _dot(behind, u)) / (2 * step) for u in us])
        step /= 2.0
        if not np.isfinite(slope).all():
            continue
        row = [slope]
        for k, previous in enumerate(table[-1] if table else [], start=1):
            row.append((4.0**k * row[-1] - previous) / (4.0**k - 1.0))
            change = np.maximum(abs(row[-1] - row[-2]), abs(row[-1] - previous))
            better = change < doubt
            best, doubt = np.where(better, row[-1], best), np.where(better, change, doubt)
        table.append(row)
    if len(table) < 2:
        raise FloatingPointError("the domain ends here: values around the point are not finite")
    return list(zip(best.tolist(), doubt.tolist(), strict=True))


def one_sided(prover: Prover, x: Numbers, passive: Arrays, v: Numbers) -> tuple[Numbers, Numbers]:
    """The slopes of every output to the left and to the right of a point."""

    def slope(t: float) -> Numbers:
        here, near, far = (_along(prover, x, passive, v, k * t) for k in (0.0, 0.5, 1.0))
        return tuple((4 * b - c - 3 * a) / t for a, b, c in zip(here, near, far, strict=True))

    size = 2.0 * NEAR if prover.sharp.resolution_of_values < 1e-12 else 1e-2
    return slope(-size), slope(size)


def slopes_around(
    prover: Prover, x: Numbers, passive: Arrays, vs: Sequence[Numbers], seed: int
) -> list[list[Numbers]]:
    """For each direction, the slopes of every output at points close by, where ties are broken one way or another."""
    far, near = (AROUND, AROUND * 1e-2) if prover.sharp.resolution_of_values < 1e-12 else (1e-1, 1e-2)
    found: list[list[Numbers]] = [[] for _ in vs]
    for k in range(SAMPLES):
        rng = generator(seed, "around", k)
        close = tuple(a + far * (largest(a) or 1.0) * rng.standard_normal(a.shape) for a in x)
        for slopes, v in zip(found, vs, strict=True):
            ahead, behind = (_along(prover, close, passive, v, t) for t in (near, -near))
            slopes.append(tuple((a - b) / (2 * near) for a, b in zip(ahead, behind, strict=True)))
    return found


def is_kink(prover: Prover, x: Numbers, passive: Arrays, v: Numbers, u: Numbers, slope: float) -> bool:
    """Whether the slopes to both sides differ."""
    left, right = (_dot(side, u) for side in one_sided(prover, x, passive, v))
    return not np.isfinite([left, right]).all() or abs(left - right) > 1e-4 * max(abs(left), abs(right), abs(slope))


def subgradient(prover: Prover, x: Numbers, passive: Arrays, e: Error, seed: int) -> bool:
    """Whether a cotangent that differs from the reference's is one of those that a kink allows.

    Around a kink an output j has slopes between L_j and R_j in a direction v. A cotangent g is allowed if ⟨v, g⟩ lies
    between the sums of the smaller and of the larger of u_j L_j and u_j R_j. Directions: the worst element alone, all
    elements equal to it together, the whole leaf together, and random ones. Where the formula has a kink and the
    function has none, autodiff of the formula may be wrong, and a rule that agrees with the slopes is right.
    """
    i = next(k for k, leaf in enumerate(prover.subject.active) if leaf.name == e.leaf.name)
    if e.got.shape != e.want.shape or not np.isfinite(e.got).all() or np.iscomplexobj(e.got) or np.iscomplexobj(x[i]):
        return False
    directions = _directions_at(x, i, e, seed)
    tangents = [tuple(d if k == i else np.zeros(a.shape) for k, a in enumerate(x)) for d in directions]
    fine = prover.sharp.resolution_of_values < 1e-12
    eps = (prover.sharp if e.dtype == prover.sharp_dtype else prover.user).resolution       # that of `e.got`
    kinked = suspect = False        # whether there is a kink; whether autodiff itself is wrong in these directions
    for d, slopes in zip(directions, slopes_around(prover, x, passive, tangents, seed), strict=True):
        terms = [np.stack([np.real(slope[j] * w) for slope in slopes]) for j, w in enumerate(e.u)]
        if not all(np.isfinite(t).all() for t in terms):
            return False
        low, high = (sum(float(pick(t, axis=0).sum()) for t in terms) for pick in (np.min, np.max))
        size = sum(float(np.abs(t).max(axis=0).sum()) for t in terms)
        slack = (1e-4 if fine else 5e-2) * size + e.tolerance * float(np.abs(d).sum())
        slack += 4 * eps * float(np.abs(d * e.got).sum())
        kinked |= high - low > (1e-2 if fine else 0.3) * size               # more than curvature explains
        if not low - slack <= float((d * e.got).sum()) <= high + slack:
            return False
        suspect |= not low - slack <= float((d * e.want).sum()) <= high + slack
    return kinked or suspect


def _directions_at(x: Numbers, i: int, e: Error, seed: int) -> list[np.ndarray]:
    alone = np.zeros(x[i].shape)
    alone[e.index] = 1.0
    tied = (x[i] == x[i][e.index]).astype(float)
    random = [dense([e.leaf], seed, f"kink {k}")[0] for k in range(3)]
    return [alone, tied, np.ones(x[i].shape), *random]
