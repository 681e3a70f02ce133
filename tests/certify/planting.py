"""To plant a rule in one line: a primal, a backward rule, options, random arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def planted(
    primal: Callable[..., Any], backward: Callable[..., Any], **options: Any
) -> Callable[[], Callable[..., Any]]:
    """What makes `primal` with a custom rule; what `Rule.function` wants.

    Parameters of `primal` with a default are its static options. The residuals are the other arguments, as a tuple:
    `backward(*static options, residuals, dY)`. `options` are bound by `functools.partial`.
    """
    parameters = inspect.signature(primal).parameters.values()
    static = tuple(i for i, p in enumerate(parameters) if p.default is not p.empty)

    def forward(*args: Any) -> tuple[Any, tuple[Any, ...]]:
        return primal(*args), tuple(a for i, a in enumerate(args) if i not in static)

    def make() -> Callable[..., Any]:
        rule = jax.custom_vjp(primal, nondiff_argnums=static)
        rule.defvjp(forward, backward)
        return functools.partial(rule, **options) if options else rule

    return make


def normal(*shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """What makes one array of standard normal numbers, times `scale`, a shape; what `Rule.arguments` wants."""
    return lambda rng: tuple(scale * rng.standard_normal(shape) for shape in shapes)
