"""What the forward pass keeps for the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..adjoint import is_inexact


class Saved(NamedTuple):
    """An array that lives from the forward to the backward pass."""

    origin: str                     # "args[0].W" of an argument, "output", "exp" of the operation that made it
    shape: tuple[int, ...]
    dtype: np.dtype
    bytes: int


def saved_residuals(f: Callable[..., Any], *args: Any) -> tuple[Saved, ...]:
    """What `jax.vjp` of a function keeps: the leaves of its backward function.

    Args:
        f: a function of pytrees of arrays. It is differentiated in all floating and complex leaves.
        args: arrays, or `jax.ShapeDtypeStruct`s: nothing is computed.

    Returns:
        A `Saved` for each array. An argument that is kept is named by its path, `args[0].W`; an output, `output`; what
        is neither, by the operation that made it. An array that is kept twice counts once: it is in memory once.

    Raises:
        TypeError: no leaf is floating or complex.

    >>> import jax.numpy as jnp
    >>> X, W = jax.ShapeDtypeStruct((8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 5), jnp.float32)
    >>> for kept in saved_residuals(lambda X, W: jnp.exp(X @ W), X, W): print(kept.origin, kept.shape, kept.bytes)
    args[0] (8, 3) 96
    args[1] (3, 5) 60
    output (8, 5) 160
    """
    return Differentiated("saved_residuals", f, args).residuals()


class Differentiated:
    """A function of the leaves of its arguments, differentiated in those that are floating or complex.

    Attributes:
        names: the path of every leaf that is an array or a floating number, `args[0].W`.
        arrays: these leaves.
        types: their types.
        active: whether each is differentiated.
    """

    def __init__(self, who: str, f: Callable[..., Any], args: Sequence[Any]) -> None:
        flat, self._tree = jax.tree_util.tree_flatten_with_path(tuple(args))
        self._f, self._leaves = f, [jnp.asarray(x) if isinstance(x, (float, complex)) else x for _, x in flat]
        self._is_array = [hasattr(x, "shape") and hasattr(x, "dtype") for x in self._leaves]
        given = zip(flat, self._leaves, self._is_array, strict=True)
        self.names, self.arrays = [], []
        for (path, _), x, is_array in given:
            if is_array:
                self.names.append(f"args{jax.tree_util.keystr(path)}")
                self.arrays.append(x)
        self.types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self.arrays]
        self.active = [is_inexact(x) for x in self.arrays]
        if not any(self.active):
            raise TypeError(f"{who}: no argument has a floating or complex leaf: there is nothing to differentiate")

    def __call__(self, *arrays: Any) -> Any:
        """The function itself."""
        given = iter(arrays)
        leaves = [next(given) if a else x for x, a in zip(self._leaves, self._is_array, strict=True)]
        return self._f(*self._tree.unflatten(leaves))

    def vjp(self, *arrays: Any) -> Any:
        """The result and the backward function."""

        def of_active(*some: Any) -> Any:
            given = iter(some)
            return self(*(next(given) if a else x for x, a in zip(arrays, self.active, strict=True)))

        return jax.vjp(of_active, *(x for x, a in zip(arrays, self.active, strict=True) if a))

    def residuals(self) -> tuple[Saved, ...]:
        """What the backward function has, each array once."""
        outputs: list[Any] = []

        def forward(*arrays: Any) -> Any:
            y, back = self.vjp(*arrays)
            outputs[:] = jax.tree.leaves(y)
            return outputs, jax.tree.leaves(back)

        program = jax.make_jaxpr(forward)(*self.types).jaxpr
        first, kept = program.outvars[: len(outputs)], program.outvars[len(outputs) :]
        names = _made(program)
        names.update(dict.fromkeys(filter(_is_variable, first), "output"))
        names.update(zip(program.invars, self.names, strict=True))
        once = {v if _is_variable(v) else id(v): v for v in kept}
        return tuple(_saved(names.get(key, "constant"), v.aval) for key, v in once.items())


def _made(program: Any) -> dict[Any, str]:
    """For every variable the operation that makes it; of a compiled or lifted function its name."""
    named = lambda e: str(e.params.get("name") or e.primitive.name)
    return {v: named(e) for e in program.eqns for v in e.outvars}


def _is_variable(v: Any) -> bool:
    return not hasattr(v, "val")                                    # a literal has a value


def _saved(origin: str, type_: Any) -> Saved:
    return Saved(origin, tuple(type_.shape), type_.dtype, math.prod(type_.shape) * type_.dtype.itemsize)
