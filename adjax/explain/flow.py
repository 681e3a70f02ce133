"""Where gradients die, layer by layer.

A layer is a matrix among the parameters: a leaf W of two axes or more. Its output Y is what the first equation returns
that takes W together with something that is no parameter. dY, the cotangent of Y, is what the backward pass brings to
the layer: it is measured as the gradient in a zero that is added to Y. dW alone would not tell, for in dW = Xᵀ dY an X
that grows makes up for a dY that shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..adjoint import is_inexact
from ..adjoint.equations import Equation, Equations, equations_of
from .probe import Records, record_probes
from .saved import Differentiated
from .spectrum import singular_values


class LayerFlow(NamedTuple):
    """What is measured of a layer. Norms are Frobenius norms."""

    name: str                       # "[2].W", the path in the parameters
    shape: tuple[int, ...]
    norm: float                     # ‖W‖
    gradient: float                 # ‖dW‖
    ratio: float                    # ‖dW‖ / ‖W‖: the relative change of a step, for each unit of the learning rate
    largest: float                  # σ_max of W, all axes but the last one taken together
    smallest: float                 # σ_min
    condition: float                # σ_max / σ_min
    product: float                  # of σ_max of this layer and of all before it
    activation: float               # ‖Y‖
    cotangent: float                # ‖dY‖
    gain: float                     # ‖dY Wᵀ‖ / ‖dY‖, nan where W is not used as a matrix
    dead: float                     # the share of units, along the last axis of Y, to which no gradient comes
    finite: bool                    # whether W and dW are


@dataclass(frozen=True)
class Flow:
    """The layers in the order in which the loss uses them, and a verdict in words, empty where nothing is wrong."""

    loss: float
    layers: tuple[LayerFlow, ...]
    verdict: tuple[str, ...]
    probes: Records                 # what the probes in the loss reported, empty where there are none

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to say."""
        return not self.verdict

    def __str__(self) -> str:
        from .flow_text import text

        return text(self)

    def _repr_html_(self) -> str:
        from .flow_text import html

        return html(self)


def gradient_flow(loss: Callable[..., Any], params: Any, *batch: Any) -> Flow:
    """How gradients flow through the layers of a network: where and why they vanish, explode, die, or are no numbers.

    Args:
        loss: a function of the parameters and of the batch to a scalar.
        params: a pytree; its leaves of two axes or more are the layers.
        batch: further arguments.

    Returns:
        A `Flow`: `print` it. Singular values are exact up to 1024 rows or columns, beyond that those of 64 steps of
        bidiagonalization, of which the smallest is an upper bound. Layers inside a `scan` are one; each `probe` in the
        loss, inside a scan too, has its own lines.

    Raises:
        TypeError: the loss is no floating scalar, or no parameter is floating.
        ValueError: no parameter has two axes.

    >>> from adjax import AffineParams, affine
    >>> keys = jax.random.split(jax.random.key(0), 12)
    >>> params = [AffineParams(0.01 * jax.random.normal(k, (8, 8)), jnp.zeros(8)) for k in keys]
    >>> def loss(params, X):
    ...     for layer in params:
    ...         X = jnp.tanh(affine(layer, X))
    ...     return jnp.sum(X)
    >>> print(*gradient_flow(loss, params, jnp.ones((4, 8))).verdict)  # doctest: +ELLIPSIS
    gradients shrink ...-fold between [11].W and [0].W: σ_max(W) ≈ 0.05... there; ...
    """
    from .flow_verdict import not_finite, verdict

    f = Differentiated("gradient_flow", loss, (params, *batch))
    _check_scalar(jax.eval_shape(f, *f.types))
    program, arrays = equations_of(f, *f.arrays), f.arrays
    names = {v.name: name.removeprefix("args[0]") for v, name in zip(program.inputs, f.names, strict=True)}
    matrices = {
        v.name: x for v, x, name, active in zip(program.inputs, arrays, f.names, f.active, strict=True)
        if active and name.startswith("args[0]") and x.ndim >= 2
    }  # fmt: skip
    if not matrices:
        raise ValueError("gradient_flow: no parameter has two axes or more, so there is no layer to look at")
    params_only = {v.name for v, name in zip(program.inputs, f.names, strict=True) if name.startswith("args[0]")}
    uses = _uses(program, set(matrices), params_only)
    with record_probes() as probes:
        value, gradients, outputs, cotangents = _measured(program, arrays, uses)
    layers, product = [], 1.0
    for index, name in uses.items():
        W, at = matrices[name], [v.name for v in program.inputs].index(name)
        layer = _layer(names[name], W, gradients[at], outputs[index], cotangents[index], product)
        layers.append(layer)
        product = layer.product
    where = not_finite(program, arrays, names, layers, float(value))
    return Flow(float(value), tuple(layers), tuple(where or verdict(layers)), probes)


def _check_scalar(y: Any) -> None:
    if not (hasattr(y, "shape") and y.shape == () and is_inexact(y) and not jnp.iscomplexobj(y)):
        raise TypeError(f"gradient_flow: the loss must return a real floating scalar, got {y}")


def _uses(program: Equations, matrices: set[str], params_only: set[str]) -> dict[int, str]:
    """For the number of an equation the matrix that it uses first. What is made of one matrix alone counts as it."""
    of = {name: {name} & matrices for name in params_only}             # the matrices behind what parameters alone make
    uses: dict[int, str] = {}
    for index, e in enumerate(program.body):
        names = [v.name for v in e.variables]
        if all(name in of for name in names):
            of.update((result.name, set().union(*(of[name] for name in names))) for result in e.results)
            continue
        found = [m for name in names for m in sorted(of.get(name, ())) if m not in uses.values()]
        if found and is_inexact(e.results[0].type):
            uses[index] = found[0]
    return uses


def _measured(program: Equations, arrays: list[Any], uses: dict[int, str]) -> tuple[Any, dict[int, Any], Any, Any]:
    """The loss, the gradient of every floating input by its place, and of every use Y and dY."""
    active = [i for i, x in enumerate(arrays) if is_inexact(x)]

    def run(some: list[Any], zeros: dict[int, Any]) -> tuple[Any, dict[int, Any]]:
        given = dict(enumerate(arrays)) | dict(zip(active, some, strict=True))
        values = {v.name: given[i] for i, v in enumerate(program.inputs)}
        outputs = {}
        for index, e in enumerate(program.body):
            results = evaluated(e, values)
            if index in uses:
                outputs[index] = results[0]
                results = [results[0] + zeros[index], *results[1:]]
            values.update((v.name, y) for v, y in zip(e.results, results, strict=True))
        (out,) = program.outputs
        return values[out.name] if out.is_variable else jnp.asarray(out.value), outputs

    types = [program.body[index].results[0].type for index in uses]
    zeros = {index: jnp.zeros(t.shape, t.dtype) for index, t in zip(uses, types, strict=True)}
    measure = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))
    (value, outputs), (gradients, cotangents) = measure([arrays[i] for i in active], zeros)
    return value, dict(zip(active, gradients, strict=True)), outputs, cotangents


def evaluated(e: Equation, values: dict[str, Any]) -> list[Any]:
    """The results of an equation."""
    return e.run(*(values[v.name] for v in e.variables))


def _layer(name: str, W: Any, dW: Any, Y: Any, dY: Any, product: float) -> LayerFlow:
    W, dW, Y, dY = (np.asarray(x, np.float64) for x in (W, dW, Y, dY))
    matrix = W.reshape(-1, W.shape[-1])
    largest, smallest = singular_values(matrix)
    size, slope, flow = (float(np.linalg.norm(x)) for x in (W, dW, dY))
    as_matrix = W.ndim == 2 and dY.ndim and dY.shape[-1] == W.shape[1]
    dead = np.all(dY == 0, tuple(range(dY.ndim - 1))) if dY.ndim else dY == 0
    with np.errstate(all="ignore"):
        return LayerFlow(
            name, W.shape, size, slope, slope / size if size else np.inf, largest, smallest,
            largest / smallest if smallest else np.inf, product * largest, float(np.linalg.norm(Y)), flow,
            float(np.linalg.norm(dY @ W.T)) / flow if as_matrix and flow else np.nan, float(np.mean(dead)),
            bool(np.isfinite(W).all() and np.isfinite(dW).all()),
        )  # fmt: skip
