"""A flow as text, and as HTML for a notebook."""

from __future__ import annotations

from html import escape

from .flow import Flow, LayerFlow

HEADINGS = ("layer", "shape", "‖W‖", "‖dW‖", "dW/W", "σmax", "σmin", "Πσmax", "‖Y‖", "‖dY‖", "dead")


def text(flow: Flow) -> str:
    """The layers, then the verdict."""
    rows = [HEADINGS, *map(_cells, flow.layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    aligned = lambda i, cell: cell.rjust(widths[i]) if i > 1 else cell.ljust(widths[i])
    lines = ["  ".join(aligned(i, cell) for i, cell in enumerate(row)) for row in rows]
    return "\n".join([f"loss {flow.loss:.4g}", *lines, *_verdict(flow)])


def html(flow: Flow) -> str:
    """One `<div>`."""
    style = "padding:1px 12px 1px 0;text-align:left;border:0;background:transparent;"
    row = lambda cells: "<tr>" + "".join(f'<td style="{style}">{escape(cell)}</td>' for cell in cells) + "</tr>"
    said = "".join(f"<div><b>{escape(line)}</b></div>" for line in _verdict(flow))
    table = f"<table>{row(HEADINGS)}{''.join(row(_cells(layer)) for layer in flow.layers)}</table>"
    return f'<div style="font-size:13px;line-height:1.5;"><div>loss {flow.loss:.4g}</div>{table}{said}</div>'


def _verdict(flow: Flow) -> list[str]:
    return list(flow.verdict) or ["gradients flow: nothing vanishes, explodes or dies, and all numbers are finite"]


def _cells(layer: LayerFlow) -> tuple[str, ...]:
    numbers = (
        layer.norm, layer.gradient, layer.ratio, layer.largest, layer.smallest, layer.product, layer.activation,
        layer.cotangent,
    )  # fmt: skip
    return (layer.name, "×".join(map(str, layer.shape)), *(f"{x:.2g}" for x in numbers), f"{layer.dead:.0%}")
