"""Where a rule is looked at: cotangents, directions, and points of the argument space.

Probes are made by NumPy, in float64, from a seed and the path of the leaf they belong to: a leaf has the same probes
whatever else the function takes, and making them compiles nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .subject import Arrays, Leaf

Numbers = tuple[np.ndarray, ...]


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A random generator of its own for a path."""
    return np.random.default_rng([seed % 2**32, zlib.crc32("/".join(map(str, path)).encode())])


def seed_of(key: Any) -> int:
    """The seed in an integer or in a `jax.random.key`."""
    if isinstance(key, (int, np.integer)):
        return int(key)
    data = key if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.key_data(key)
    return int(np.asarray(data).astype(np.uint64).ravel()[-1])


def widened(x: Any) -> np.ndarray:
    """The same numbers in float64 or complex128."""
    x = np.asarray(x)
    return x.astype(np.complex128 if np.issubdtype(x.dtype, np.complexfloating) else np.float64)


def normal(rng: np.random.Generator, leaf: Leaf) -> np.ndarray:
    """Signed standard normal entries in the shape of a leaf, complex where it is."""
    x = rng.standard_normal(leaf.shape)
    if np.issubdtype(leaf.dtype, np.complexfloating):
        return np.asarray((x + 1j * rng.standard_normal(leaf.shape)) / np.sqrt(2))
    return np.asarray(x)


def dense(leaves: Sequence[Leaf], seed: int, draw: str | int) -> Numbers:
    """A signed random probe in every leaf."""
    return tuple(normal(generator(seed, leaf.name, draw), leaf) for leaf in leaves)


def zeros(leaves: Sequence[Leaf]) -> Numbers:
    """The zero vector."""
    return tuple(np.zeros(leaf.shape, widened(np.zeros((), leaf.dtype)).dtype) for leaf in leaves)


def single(leaves: Sequence[Leaf], index: int, seed: int, draw: str | int) -> Numbers:
    """A signed random probe in one leaf, zero in the others."""
    full, nothing = dense(leaves, seed, draw), zeros(leaves)
    return tuple(full[i] if i == index else nothing[i] for i in range(len(leaves)))


def one_hot(leaves: Sequence[Leaf], index: int, seed: int, draw: str | int) -> Numbers:
    """One in a single random element of one leaf."""
    out = zeros(leaves)
    if out[index].size:
        out[index].ravel()[generator(seed, leaves[index].name, "one-hot", draw).integers(out[index].size)] = 1.0
    return out


def uneven(leaves: Sequence[Leaf], seed: int) -> Numbers:
    """A dense probe whose rows have sizes from 1/100 to 100: a rule that takes one row for all is far off."""

    def scaled(leaf: Leaf) -> np.ndarray:
        rng = generator(seed, leaf.name, "uneven")
        rows = leaf.shape[:1] + (1,) * (len(leaf.shape) - 1)
        return np.asarray(normal(rng, leaf) * 10 ** rng.uniform(-2, 2, rows))

    return tuple(map(scaled, leaves))


def cotangents(outputs: Sequence[Leaf], seed: int) -> dict[str, Numbers]:
    """The cotangents with which the adjoint identity is tested, by name."""
    found = {"random": dense(outputs, seed, 0), "random, again": dense(outputs, seed, 1)}
    found["uneven rows"] = uneven(outputs, seed)
    for j, leaf in enumerate(outputs):
        found[f"one element of {leaf.name}"] = one_hot(outputs, j, seed, 0)
        if len(outputs) > 1:
            found[f"{leaf.name} alone"] = single(outputs, j, seed, 2)
    return found


def directions(leaves: Sequence[Leaf], index: int, seed: int, draw: str | int) -> Numbers:
    """A tangent in one argument leaf."""
    return single(leaves, index, seed, f"tangent {draw}")


# Points

@dataclass(frozen=True)
class Domain:
    """Intervals to which arguments are held: one for all, or by name or position; "given": it must not move."""

    given: Any = None

    def hold(self, leaf: Leaf, x: np.ndarray) -> np.ndarray:
        """The values, moved into the open interval of their leaf."""
        bounds = self._interval(leaf)
        if bounds is None or bounds == "given" or np.iscomplexobj(x):
            return x
        low, high = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
        span = high - low if np.isfinite(high - low) else 1.0
        return np.clip(x, low + 1e-3 * span, high - 1e-3 * span)

    def keeps(self, leaf: Leaf) -> bool:
        """Whether the values must stay what they are."""
        return bool(self._interval(leaf) == "given")

    def _interval(self, leaf: Leaf) -> Any:
        if not isinstance(self.given, dict):
            return self.given
        top = leaf.name.split("[")[0].split(".")[0]
        return self.given.get(leaf.name, self.given.get(top, self.given.get(leaf.position)))


def jittered(leaf: Leaf, x: np.ndarray, seed: int, draw: str | int) -> np.ndarray:
    """Near-by values of the same signs: each multiplied by a factor around one."""
    rng = generator(seed, leaf.name, "jitter", draw)
    return x * np.exp(0.3 * rng.standard_normal(x.shape))


def nearby(leaves: Sequence[Leaf], base: Numbers, seed: int, draw: str | int, domain: Domain) -> Numbers:
    """A point near by, inside the domain."""
    moved = [x if domain.keeps(leaf) else jittered(leaf, x, seed, draw) for leaf, x in zip(leaves, base, strict=True)]
    return tuple(domain.hold(leaf, x) for leaf, x in zip(leaves, moved, strict=True))


def _ties(x: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.mean(np.abs(x) ** 2)) if x.size else 1.0
    return np.round(x / (size or 1.0))


POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "three times as large": lambda x: 3.0 * x,
    "saturated (8 times as large)": lambda x: 8.0 * x,
    "saturated (30 times as large)": lambda x: 30.0 * x,
    "tiny (a thousandth)": lambda x: 1e-3 * x,
    "tied": _ties,
    "all equal": np.ones_like,
    "zero": np.zeros_like,
    "offset by 10": lambda x: x + 10.0,
}


def points(
    leaves: Sequence[Leaf], passive: Sequence[Leaf], values: tuple[Arrays, Arrays], seed: int, domain: Domain
) -> Iterator[tuple[str, Numbers, Arrays]]:
    """Other points of the same shapes: `(name, active values in float64, passive values)`.

    Each map of `POINTS` acts on all floating arguments at once, then, where there are several, the extreme ones on one
    at a time; masks are made all True and all False; integers are made all equal.
    """
    base = tuple(map(widened, values[0]))

    def moved(change: Callable[[np.ndarray], np.ndarray], only: int | None = None) -> Numbers:
        moves = [only in (None, i) and not domain.keeps(leaf) for i, leaf in enumerate(leaves)]
        changed = (change(x) if move else x for move, x in zip(moves, base, strict=True))
        return tuple(domain.hold(leaf, np.asarray(x)) for leaf, x in zip(leaves, changed, strict=True))

    yield "near by", nearby(leaves, base, seed, 0, domain), values[1]
    for name, change in POINTS.items():
        yield name, moved(change), values[1]
    if len(base) > 1:
        for i, leaf in enumerate(leaves):
            for name in ("saturated (30 times as large)", "tiny (a thousandth)", "tied", "zero"):
                yield f"{leaf.name} {name}", moved(POINTS[name], i), values[1]
    for j, leaf in enumerate(passive):
        if not domain.keeps(leaf):
            for name, value in _discrete(leaf, values[1][j], seed):
                yield f"{leaf.name} {name}", base, (*values[1][:j], value, *values[1][j + 1 :])


def _discrete(leaf: Leaf, x: Any, seed: int) -> Iterator[tuple[str, Any]]:
    if leaf.dtype == np.dtype(bool):
        yield "all True", np.ones(leaf.shape, bool)
        yield "all False", np.zeros(leaf.shape, bool)
    elif jnp.issubdtype(leaf.dtype, np.integer) and x.size > 1:
        given = np.asarray(x)
        yield "all equal", np.full(leaf.shape, given.ravel()[0], leaf.dtype)
        low, high = min(0, int(given.min())), int(given.max())
        drawn = generator(seed, leaf.name, "integers").integers(low, high + 1, leaf.shape)
        yield "drawn anew", drawn.astype(leaf.dtype)
        yield "zero", np.zeros(leaf.shape, leaf.dtype)


# Shapes

def resized(leaves: Sequence[Leaf], values: Sequence[Any], old: int, new: int) -> tuple[Any, ...]:
    """Every axis of size `old` cut or repeated to size `new`; keys and other opaque arrays as they are."""
    return tuple(_resize(leaf, x, old, new) for leaf, x in zip(leaves, values, strict=True))


def _resize(leaf: Leaf, x: Any, old: int, new: int) -> Any:
    if old not in leaf.shape or not isinstance(leaf.dtype, np.dtype):
        return x
    x = np.asarray(x)
    for axis, size in enumerate(leaf.shape):
        if size == old:
            x = np.take(x, np.arange(new) % max(old, 1), axis=axis)
    return x


def axis_sizes(leaves: Sequence[Leaf]) -> list[int]:
    """The distinct sizes above one among the axes, in order of appearance."""
    return [n for n in dict.fromkeys(n for leaf in leaves for n in leaf.shape) if n > 1]
