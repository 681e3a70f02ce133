"""Statistics of a value and of its cotangent, from inside jit, scan and vmap.

A probe is the identity, its own transpose: neither values nor gradients change. Forward it reports what passes, and
where its adjoint runs, what comes back.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..adjoint import linear_call, wide
from .tables import Row, aligned


class Sums(NamedTuple):
    """Of the entries that passed so far; those of several reports add up."""

    entries: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    largest: float = 0.0                # |x|
    zeros: float = 0.0
    finite: float = 0.0

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        added = [a + b for a, b in zip(self, other, strict=True)]
        return Sums(*added)._replace(largest=max(self.largest, other.largest))

    @property
    def mean(self) -> float:
        """Of all entries; nan where there are none."""
        return self.total / self.entries if self.entries else math.nan

    @property
    def rms(self) -> float:
        """The root of the mean square."""
        return math.sqrt(self.squares / self.entries) if self.entries else math.nan


@dataclass
class Record:
    """What passed a probe forward, and what came back."""

    value: Sums = field(default_factory=Sums)
    cotangent: Sums = field(default_factory=Sums)


class Records(Mapping[str, Record]):
    """By name, in the order of the first report; prints as a table."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Record:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __str__(self) -> str:
        return "\n".join(aligned(self.rows(), 2))

    def rows(self) -> list[Row]:
        """The table, with its headings."""
        rows: list[Row] = [("probe", "", "entries", "mean", "rms", "largest", "zero", "finite")]
        for name, record in self.items():
            for what, s in (("value", record.value), ("cotangent", record.cotangent)):
                shares = (f"{share / s.entries:.0%}" if s.entries else "–" for share in (s.zeros, s.finite))
                sizes = (f"{x:.3g}" for x in (s.mean, s.rms, s.largest))
                rows.append((name, what, f"{s.entries:.0f}", *sizes, *shares))
        return rows

    def add(self, name: str, part: str, sums: Sums) -> None:
        """A report."""
        with self._lock:
            record = self._records.setdefault(name, Record())
            setattr(record, part, getattr(record, part).plus(sums))


_listening: list[Records] = []


@contextmanager
def record_probes() -> Iterator[Records]:
    """Collects what all probes report while it is open; complete when it is closed.

    >>> with record_probes() as seen:
    ...     dx = jax.jit(jax.grad(lambda x: jnp.sum(3 * probe("x", x))))(jnp.array([1.0, 0.0, -2.0, 0.0]))
    >>> seen["x"].value.largest, seen["x"].value.zeros, seen["x"].cotangent.mean
    (2.0, 2.0, 3.0)
    """
    records = Records()
    _listening.append(records)
    try:
        yield records
        jax.effects_barrier()
    finally:
        _listening[:] = [other for other in _listening if other is not records]    # equal ones may be open


def probe(name: str, x: Array) -> Array:
    """x itself; its statistics, and in the backward pass those of its cotangent, go to `record_probes`.

    Args:
        name: reports of the same name add up: of all steps of a scan, of all examples of a vmap.
        x: real floating.

    Returns:
        x. Values, gradients of every order and forward mode are what they are without the probe. Each pass costs one
        callback to the host, also where nobody records: take probes out of what must be quick.

    Raises:
        TypeError: name is no string, or x is no real floating array.

    >>> jax.grad(lambda x: probe("x", x) ** 2)(3.0).tolist()
    6.0
    """
    if not isinstance(name, str):
        raise TypeError(f"probe: name must be a string, got {type(name).__name__}")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"probe: {name!r} must be real floating, got dtype {x.dtype} (shape {x.shape})")
    _report(name, "value", jax.lax.stop_gradient(x))

    def back(_: None, dx: Array) -> Array:
        _report(name, "cotangent", dx)
        return dx

    result: Array = linear_call(lambda _, x: x, back, None, x)
    return result


def _report(name: str, part: str, x: Array) -> None:
    t = x.astype(wide(x.dtype))
    count = partial(jnp.sum, dtype=t.dtype)
    sums = (                                                        # the fields of `Sums`, in order
        jnp.full((), x.size, t.dtype), jnp.sum(t), jnp.sum(t * t), jnp.max(abs(t), initial=0), count(t == 0),
        count(jnp.isfinite(t)),
    )  # fmt: skip
    jax.debug.callback(partial(_receive, name, part), *sums)


def _receive(name: str, part: str, *sums: Any) -> None:
    for records in list(_listening):
        records.add(name, part, Sums(*map(float, sums)))
