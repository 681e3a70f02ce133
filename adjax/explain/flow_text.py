"""A flow as text, and as HTML for a notebook."""

from __future__ import annotations

from html import escape

from .flow import Flow, LayerFlow
from .tables import aligned, table

HEADINGS = ("layer", "shape", "‖W‖", "‖dW‖", "dW/W", "σmax", "σmin", "Πσmax", "‖Y‖", "‖dY‖", "dead")


def text(flow: Flow) -> str:
    """The layers, the probes if there are any, then the verdict."""
    rows = [HEADINGS, *map(_cells, flow.layers)]
    probes = [str(flow.probes)] if flow.probes else []
    return "\n".join([f"loss {flow.loss:.4g}", *aligned(rows, 2), *probes, *_verdict(flow)])


def html(flow: Flow) -> str:
    """One `<div>`."""
    said = "".join(f"<div><b>{escape(line)}</b></div>" for line in _verdict(flow))
    tables = table([HEADINGS, *map(_cells, flow.layers)]) + (table(flow.probes.rows()) if flow.probes else "")
    return f'<div style="font-size:13px;line-height:1.5;"><div>loss {flow.loss:.4g}</div>{tables}{said}</div>'


def _verdict(flow: Flow) -> list[str]:
    return list(flow.verdict) or ["gradients flow: nothing vanishes, explodes or dies, and all numbers are finite"]


def _cells(layer: LayerFlow) -> tuple[str, ...]:
    numbers = (
        layer.norm, layer.gradient, layer.ratio, layer.largest, layer.smallest, layer.product, layer.activation,
        layer.cotangent,
    )  # fmt: skip
    return (layer.name, "×".join(map(str, layer.shape)), *(f"{x:.2g}" for x in numbers), f"{layer.dead:.0%}")
