"""Mathematics as MathML, which browsers draw themselves: no script, no fonts, no network."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def mathml(tex: str, display: str) -> str:
    """The MathML of a formula; ValueError where it is not understood."""
    converted = convert(tex.replace("{aligned}", "{align*}"), display=display)  # the same lines, and known to it
    if "\\" in converted or "<mi>&</mi>" in converted:
        raise ValueError(f"cannot be written as MathML: {tex}")
    return converted


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True}
