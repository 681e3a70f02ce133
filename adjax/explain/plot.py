"""Pictures with matplotlib (`pip install 'adjax[plot]'`): each takes axes, or makes some, and returns them.

    flow        the norms of every layer
    spectrum    the singular values of matrices
    shapes      an einsum and its adjoints, their axes as lines that meet
    memory      residuals and temporaries, as written and under plain autodiff
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from .derive import Derivation, Product
from .derive_picture import PALETTE, Curve, Picture, colours, picture
from .explain import Explanation
from .flow import Flow
from .flow_verdict import DEAD

FIELDS = ("residual_bytes", "temporary_bytes")


def flow(of: Flow, axes: Any = None) -> Any:
    """‖Y‖, ‖dY‖ and ‖dW‖/‖W‖ of every layer, on a logarithmic scale; layers with dead units are marked.

    Args:
        of: what `gradient_flow` returns.
        axes: of matplotlib; made if left out.

    Returns:
        The axes.

    >>> from matplotlib.figure import Figure
    >>> from adjax import gradient_flow
    >>> of = gradient_flow(lambda params, X: (X @ params["W"]).sum(), {"W": np.eye(3)}, np.ones((4, 3)))
    >>> axes = flow(of, Figure().subplots())
    >>> axes.get_yscale(), [label.get_text() for label in axes.get_xticklabels()]
    ('log', ["['W']"])
    """
    axes = _axes(axes, (6.4, 3.6))
    at = np.arange(len(of.layers))
    drawn = (("‖Y‖", "activation", "o"), ("‖dY‖", "cotangent", "s"), ("‖dW‖/‖W‖", "ratio", "^"))
    for i, (name, field, marker) in enumerate(drawn):
        values = np.array([getattr(layer, field) for layer in of.layers])
        axes.plot(at, np.where(values > 0, values, np.nan), marker=marker, color=PALETTE[i], label=name)
    for i, layer in enumerate(of.layers):
        if layer.dead >= DEAD:
            axes.axvspan(i - 0.4, i + 0.4, color="0.85", zorder=0, label="dead units" if i == _first_dead(of) else None)
    axes.set_yscale("log")
    axes.set_xticks(at, [layer.name for layer in of.layers], rotation=60, ha="right")
    axes.set_ylabel("norm")
    axes.set_title(of.verdict[0].split(":")[0] if of.verdict else "gradients flow", fontsize="medium", wrap=True)
    axes.legend()
    return axes


def spectrum(matrices: Any, axes: Any = None) -> Any:
    """The singular values of each matrix, from the largest to the smallest, on a logarithmic scale.

    Args:
        matrices: a pytree, of which leaves of two axes or more are drawn, all their axes but the last taken together.
        axes: of matplotlib; made if left out.

    Returns:
        The axes.

    Raises:
        ValueError: no leaf has two axes.

    >>> from matplotlib.figure import Figure
    >>> axes = spectrum({"W": np.diag([3.0, 2.0, 1.0])}, Figure().subplots())
    >>> axes.lines[0].get_ydata().tolist()
    [3.0, 2.0, 1.0]
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(matrices)
    found = {jax.tree_util.keystr(path) or "W": np.asarray(x, np.float64) for path, x in leaves if np.ndim(x) >= 2}
    if not found:
        raise ValueError("spectrum: there is no array of two axes or more")
    axes = _axes(axes, (6.4, 3.6))
    for i, (name, W) in enumerate(found.items()):
        sigma = np.linalg.svd(W.reshape(-1, W.shape[-1]), compute_uv=False)
        style = ("-", "--", ":", "-.")[i // len(PALETTE) % 4]
        axes.plot(np.arange(1, len(sigma) + 1), np.where(sigma > 0, sigma, np.nan), style, marker=".",
                  color=PALETTE[i % len(PALETTE)], label=name)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("number")
    axes.set_ylabel("singular value")
    axes.legend()
    return axes


def shapes(of: Derivation, axes: Any = None) -> Any:
    """The einsum and the adjoint of each operand, side by side: arrays as boxes, axes as coloured lines that meet.

    Args:
        of: what `derive_adjoint` returns.
        axes: as many as there are products, the einsum's first; made if left out.

    Returns:
        The axes, an array.

    Raises:
        ValueError: there are more or fewer axes than products.

    >>> from matplotlib.figure import Figure
    >>> from adjax import derive_adjoint
    >>> axes = shapes(derive_adjoint("nd,dp->np"), Figure().subplots(1, 3))
    >>> [one.get_title() for one in axes]
    ['Y = X W', 'dX = dY Wᵀ', 'dW = Xᵀ dY']
    """
    products = (of.forward, *of.adjoints)
    pictures = [picture(product, colours(of)) for product in products]
    if axes is None:
        from matplotlib import pyplot

        height = max(p.size[1] for p in pictures) / 80
        _, axes = pyplot.subplots(1, len(products), figsize=(4 * len(products), height + 0.5), squeeze=False)
    axes = np.atleast_1d(np.asarray(axes, object)).ravel()
    if len(axes) != len(products):
        raise ValueError(f"shapes: {len(products)} axes are needed, one for each product, got {len(axes)}")
    for one, product, drawn in zip(axes, products, pictures, strict=True):
        _draw(one, product, drawn)
    return axes


def memory(of: Explanation | Mapping[str, Explanation], axes: Any = None) -> Any:
    """Residual and temporary bytes of functions, as written and under plain autodiff.

    Args:
        of: what `explain` returns, or several of them by name.
        axes: of matplotlib; made if left out.

    Returns:
        The axes.

    >>> from matplotlib.figure import Figure
    >>> from adjax import explain, relu
    >>> axes = memory(explain(relu, np.ones((4, 5), np.float32)), Figure().subplots())
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['relu, as written', 'relu, plain autodiff']
    """
    named = {of.name: of} if isinstance(of, Explanation) else dict(of)
    axes = _axes(axes, (6.4, 0.9 + 0.8 * len(named)))
    rows = [(name, cost, said) for name, one in named.items()
            for cost, said in ((one.cost, "as written"), (one.plain_cost, "plain autodiff"))]  # fmt: skip
    at = [1.25 * (i - i % 2) + i % 2 for i in range(len(rows))]           # in pairs
    kept, temporary = (np.array([getattr(cost, field) for _, cost, _ in rows]) for field in FIELDS)
    axes.barh(at, kept, color=PALETTE[0], edgecolor="white", label="residuals")
    axes.barh(at, temporary, left=kept, color=PALETTE[1], hatch="//", edgecolor="white", label="temporaries")
    axes.set_yticks(at, [f"{name}, {said}" for name, _, said in rows])
    axes.invert_yaxis()
    axes.set_xlabel("bytes")
    axes.legend()
    return axes


def _axes(axes: Any, size: tuple[float, float]) -> Any:
    if axes is not None:
        return axes
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def _first_dead(of: Flow) -> int:
    return next(i for i, layer in enumerate(of.layers) if layer.dead >= DEAD)


def _draw(axes: Any, product: Product, drawn: Picture) -> None:
    from matplotlib.patches import FancyBboxPatch

    for curve in drawn.curves:
        _draw_curve(axes, curve)
    for at, words, colour, to_the_left in drawn.words:
        axes.text(*at, words, color=colour, ha="right" if to_the_left else "left", va="bottom", fontsize=9)
    for name, (x, y), (width, height) in drawn.boxes:
        axes.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=4", fill=False))
        axes.text(x + width / 2, y + height / 2, name, ha="center", va="center", weight="bold")
    axes.set(xlim=(0, drawn.size[0]), ylim=(drawn.size[1], 0), aspect="equal")
    axes.set_axis_off()
    axes.set_title(product.form, fontsize="medium")


def _draw_curve(axes: Any, curve: Curve) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    axes.add_patch(PathPatch(Path(curve.points, codes), fill=False, edgecolor=curve.colour, linewidth=2))
    if curve.ring:
        axes.plot(*curve.start, "o", color=curve.colour, markerfacecolor="none", markersize=5)
