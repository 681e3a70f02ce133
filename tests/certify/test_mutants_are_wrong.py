"""Each planted wrong rule is really wrong, and JAX raises no objection to it.

The two Pythons that CI runs share the rules between them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.adjoint.undecorated import undecorated
from tests.certify.mutants import MUTANTS
from tests.certify.rules import Mutant
from tests.sharing import shared

AT_ONCE = [m for m in MUTANTS if m.law in ("adjoint", "linear") and not m.context and "float64" in m.dtypes]


def of_floating(f: Callable[..., Any], args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """`f` as a function of its floating leaves, and these."""
    leaves, tree = jax.tree.flatten(args)
    floating = [i for i, x in enumerate(leaves) if jnp.issubdtype(getattr(x, "dtype", bool), np.inexact)]

    def form(*values: Any) -> Any:
        new = dict(zip(floating, values, strict=True))
        return f(*tree.unflatten([new.get(i, x) for i, x in enumerate(leaves)]))

    return form, [leaves[i] for i in floating]


def random(y: Any, scale: float, rng: np.random.Generator) -> Any:
    """A cotangent of `y`."""
    real, imaginary = scale * rng.standard_normal((2, *y.shape))
    return jnp.asarray(real + 1j * imaginary if jnp.iscomplexobj(y) else real, y.dtype)


def cotangents(y: Any, rng: np.random.Generator) -> Iterator[Any]:
    """Random ones of usual size, huge and tiny, and zero."""
    for scale in (1, 1e6, 1e-6, 0):
        yield jax.tree.map(lambda v, scale=scale: random(v, scale, rng), y)


def differ(got: Any, expected: Any) -> bool:
    """Whether a leaf is off by more than a millionth of a percent of its largest entry."""
    return any(
        not np.allclose(a, b, rtol=0, atol=1e-8 * max(map(abs, np.asarray(b).ravel()), default=0))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    )


@pytest.mark.parametrize("mutant", shared(AT_ONCE), ids=repr)
def test_is_wrong_at_the_given_point(mutant: Mutant, rng: np.random.Generator) -> None:
    f, values = of_floating(mutant.function(), mutant.at("float64"))
    reference = mutant.options.get("reference")
    plain = of_floating(reference, mutant.at("float64"))[0] if reference else undecorated(f)
    y, rule = jax.vjp(f, *values)
    adjoint = jax.vjp(plain, *values)[1]
    assert any(differ(rule(dy), adjoint(dy)) for dy in cotangents(y, rng))


@pytest.mark.parametrize("mutant", shared(MUTANTS), ids=repr)
def test_jax_raises_no_objection(mutant: Mutant) -> None:
    for dtype in mutant.dtypes:
        f, values = of_floating(mutant.function(), mutant.at(dtype))

        def pull(f: Callable[..., Any] = f, values: list[Any] = values) -> Any:
            y, rule = jax.vjp(f, *values)
            return rule(jax.tree.map(jnp.ones_like, y))

        jax.eval_shape(pull)


def test_names_are_unique() -> None:
    counts = collections.Counter(m.name for m in MUTANTS)
    assert [name for name, count in counts.items() if count > 1] == []
