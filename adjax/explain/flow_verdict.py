"""What the measures of the layers mean, in words: the layer and the cause."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..adjoint import is_inexact
from ..adjoint.equations import Equations
from .flow import LayerFlow, evaluated

FOLD = 1e3                              # by how much the cotangents of two layers may differ
DEAD = 0.7                              # the share of dead units of a layer that is worth a word


def verdict(layers: Sequence[LayerFlow]) -> list[str]:
    """What is wrong where all numbers are finite."""
    return [*_dead(layers), *_cut_off(layers), *_changed(layers)]


def _dead(layers: Sequence[LayerFlow]) -> list[str]:
    """Layers where gradients come to some units and not to many others."""
    advice = "their bias is too low or their inputs too large; lower the learning rate, or take another activation"
    found = [layer for layer in layers if DEAD <= layer.dead < 1]
    return [f"{x.dead:.0%} of the units of {x.name} are dead, no gradient comes to them: {advice}" for x in found]


def _cut_off(layers: Sequence[LayerFlow]) -> list[str]:
    """Layers to which nothing comes at all."""
    silent = [i for i, layer in enumerate(layers) if layer.cotangent == 0]
    if not silent:
        return []
    names, last = [layers[i].name for i in silent], silent[-1]
    whom = ", ".join(names) if len(names) < 4 else f"{names[0]}, ..., {names[-1]} ({len(names)} layers)"
    after = layers[last + 1].name if last + 1 < len(layers) else "the loss"
    where = f"it is cut off between {after} and {names[-1]}"
    return [f"no gradient comes to {whom}: {where}, where every unit is dead or saturated, or a stop_gradient stands"]


def _changed(layers: Sequence[LayerFlow]) -> list[str]:
    """Where cotangents shrink or grow most on their way back."""
    seen = [layer for layer in layers if layer.cotangent > 0]
    words = []
    for sign, what in ((1, "shrink"), (-1, "grow")):
        late, early, fold = _steepest(seen, sign)
        if fold > FOLD:
            said = f"gradients {what} {fold:.2g}-fold between {seen[late].name} and {seen[early].name}"
            words.append(f"{said}: {_cause(seen[early : late + 1], sign, fold)}")
    return words


def _steepest(layers: Sequence[LayerFlow], sign: int) -> tuple[int, int, float]:
    """The later and the earlier layer between which ‖dY‖ changes most."""
    best = (0, 0, 1.0)
    for late in range(len(layers)):
        for early in range(late):
            fold = (layers[late].cotangent / layers[early].cotangent) ** sign
            best = max(best, (late, early, fold), key=lambda found: found[2])
    return best


def _cause(between: Sequence[LayerFlow], sign: int, fold: float) -> str:
    """Matrices, one of them or all, or what stands between them."""
    crossed = between[1:]                                           # dY of the first comes through all after it
    gains = [math.log(layer.gain) if layer.gain > 0 else 0.0 for layer in crossed]
    whole = -sign * math.log(fold)
    size = "small" if sign > 0 else "large"
    if sum(gains) / whole < 0.5:
        what = "flat or saturated activations, a scale" if sign > 0 else "steep activations, a scale, a division"
        return f"not by the matrices, so by what stands between them: {what}; normalize, or take another activation"
    worst = min(range(len(gains)), key=lambda i: sign * gains[i])
    if len(gains) > 1 and gains[worst] / whole > 0.7:
        layer = crossed[worst]
        said = f"σ_max(W) ≈ {layer.largest:.2g}"
        return f"mostly at {layer.name}, which is too {size}, {said}; initialise it with variance 1/d"
    typical = float(np.median([layer.largest for layer in crossed]))
    return f"σ_max(W) ≈ {typical:.2g} there; initialise with variance 1/d, or normalize"


# Numbers that are none

def not_finite(
    program: Equations, arrays: Sequence[Any], names: dict[str, str], layers: Sequence[LayerFlow], loss: float
) -> list[str]:
    """Where the first infinity or NaN comes from: a parameter, an operation, or the backward pass."""
    for variable, x in zip(program.inputs, arrays, strict=True):
        if is_inexact(x) and not np.isfinite(np.asarray(x)).all():
            return [f"{names[variable.name] or 'the parameter'} is not finite: {_kind(x)} stands in it"]
    if not math.isfinite(loss):
        return [_first_operation(program, arrays, names, loss)]
    broken = [layer for layer in layers if not layer.finite or not math.isfinite(layer.cotangent)]
    if broken:
        behind = [layer.name for layer in layers[layers.index(broken[-1]) + 1 :]]
        after = behind[0] if behind else "the loss"
        return [
            f"the loss is finite and gradients are not: they break between {after} and {broken[-1].name}, where a "
            "function has no finite slope (a root or a norm at 0, a masked log or division)"
        ]
    return []


def _first_operation(program: Equations, arrays: Sequence[Any], names: dict[str, str], loss: float) -> str:
    values = {v.name: x for v, x in zip(program.inputs, arrays, strict=True)}
    last = {v.name: names[v.name] for v in program.inputs if not names[v.name].startswith("args")}
    finite = lambda x: not is_inexact(x) or bool(np.isfinite(np.asarray(x)).all())
    for e in program.body:
        results = evaluated(e, values)
        behind = [last[v.name] for v in e.variables if v.name in last]
        if not all(map(finite, results)) and all(finite(values[v.name]) for v in e.variables):
            after = f" after {behind[-1]}" if behind else ""
            return f"the loss is {loss}: the first value that is not finite comes from {e.operation}{after}"
        values.update((v.name, y) for v, y in zip(e.results, results, strict=True))
        last.update((v.name, behind[-1]) for v in e.results if behind)
    return f"the loss is {loss}"


def _kind(x: Any) -> str:
    return "NaN" if np.isnan(np.asarray(x)).any() else "an infinity"
