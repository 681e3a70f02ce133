"""What a planted rule is: a wrong one that must be caught, or a right one that must pass."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True)
class Rule:
    """A function with a custom rule, and where to look at it.

    Attributes:
        name: unique, `family: what is odd about it`.
        function: makes the function, so that rules with state start afresh.
        arguments: makes the arguments; floating ones in float64, of numpy or JAX.
        dtypes: the floating dtypes in which the description holds.
        options: for `certify`: `reference`, `waive`, `domain`, ...
        devices: how many the rule needs.
    """

    name: str
    function: Callable[[], Callable[..., Any]]
    arguments: Callable[[np.random.Generator], tuple[Any, ...]]
    dtypes: tuple[str, ...] = DTYPES
    options: Mapping[str, Any] = field(default_factory=dict)
    devices: int = 1

    def __repr__(self) -> str:
        return self.name

    def at(self, dtype: str) -> tuple[Any, ...]:
        """The arguments in a floating dtype; the same values every time."""
        args = self.arguments(np.random.default_rng(zlib.crc32(self.name.encode())))
        return jax.tree.map(lambda x: _cast(x, dtype), args)


def _cast(x: Any, dtype: str) -> Any:
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, np.inexact):
        return x
    if jnp.issubdtype(x.dtype, np.complexfloating):
        return jnp.asarray(x, jnp.complex128 if dtype == "float64" else jnp.complex64)
    return jnp.asarray(np.asarray(x, np.float64).astype(dtype))


@dataclass(frozen=True, repr=False)
class Mutant(Rule):
    """A wrong rule.

    Attributes:
        law: the law that must be among those refuted.
        context: where a finding must be seen; "" for anywhere.
        diagnosis: a phrase of the diagnosis (case-insensitive), or None where the mistake has no name.
    """

    law: str = ""
    context: str = ""
    diagnosis: str | None = None


@dataclass(frozen=True, repr=False)
class Right(Rule):
    """A right but unusual rule. Under `options["waive"]` it must pass, and without it be refuted."""
