"""What every layer says of a wrong argument: the layer, the argument, what was expected, what was given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def kind(value: Any) -> str:
    """What a value is, in the user's words: JAX wraps Python scalars in types named TypedFloat and the like."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of shape {value.shape}"
    return next((t.__name__ for t in (bool, int, float, complex) if isinstance(value, t)), type(value).__name__)


def check_array(layer: str, name: str, axes: str, value: Any) -> None:
    """Raises TypeError unless the value is an array; `axes` says which it should have."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{layer}: {name} must be an array with the axes {axes}, got {kind(value)}")


def check_floating(layer: str, name: str, axes: str, value: Any) -> None:
    """Raises TypeError unless the value is a real or complex floating array."""
    check_array(layer, name, axes, value)
    if not jnp.issubdtype(value.dtype, np.inexact):
        raise TypeError(f"{layer}: {name} must be floating, got dtype {value.dtype} (shape {value.shape})")


def check_pair(
    layer: str, params: Any, names: tuple[str, ...], type_name: str, argument: str = "params"
) -> tuple[Any, ...]:
    """The parameters (or another argument) as a tuple. Raises TypeError unless there are as many as names."""
    if not isinstance(params, (tuple, list)) or len(params) != len(names):
        got = kind(params) + (f" of {len(params)}" if isinstance(params, (tuple, list)) else "")
        listed = ", ".join(names)
        raise TypeError(f"{layer}: {argument} must be {type_name}({listed}) or a tuple ({listed}), got {got}")
    return tuple(params)
