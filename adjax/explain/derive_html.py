"""A derivation for a notebook: HTML with inline styles, and a picture of each product in SVG.

Text and background are those of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from .derive import Candidate, Derivation, Product, Tensor
from .derive_picture import Box, Curve, Words, colours, picture
from .derive_text import HEADER, conclusion, cost

CELL = "padding:1px 14px 1px 0;text-align:left;white-space:nowrap;border:0;background:transparent;"
FAINT, MONO = "opacity:0.6;", "font-family:monospace;"


def html(derivation: Derivation) -> str:
    """One `<div>`."""
    of_letters = colours(derivation)
    parts = [_product(product, of_letters) for product in (derivation.forward, *derivation.adjoints)]
    return f'<div style="font-size:13px;line-height:1.5;">{"".join(parts)}</div>'


def _product(product: Product, of_letters: Mapping[str, str]) -> str:
    each = f" for each {', '.join(product.each)}" if product.each else ""
    lines = [f'<b style="font-size:15px;">{escape(product.form)}</b>{escape(each)}']
    if product.form != product.formula:
        lines.append(escape(product.formula))
    lines += [_span(MONO, product.spec), _span(FAINT, cost(product))]
    words = "".join(f"<div>{line}</div>" for line in [*lines, *map(escape, product.roles)])
    side = "display:inline-block;vertical-align:top;margin-right:24px;"
    top = f'<div style="{side}">{svg(product, of_letters)}</div><div style="{side}">{words}</div>'
    return f'<div style="margin:0 0 18px 0;">{top}{_table(product)}</div>'


def _span(style: str, words: str) -> str:
    return f'<span style="{style}">{escape(words)}</span>'


def _table(product: Product) -> str:
    if not product.candidates:
        return ""
    head = "".join(f'<th style="{CELL}font-weight:normal;{FAINT}">{title}</th>' for title in HEADER)
    rows = "".join(_row(c, product.result) for c in product.candidates)
    table = f'<table style="border-collapse:collapse;"><tr>{head}</tr>{rows}</table>'
    return f"{table}<div>{escape(conclusion(product))}</div>"


def _row(c: Candidate, result: Tensor) -> str:
    style = "font-weight:bold;" if c.right else "" if c.fits else FAINT
    letters = f"{c.letters}: {result.name}" if c.right else c.letters
    cells = (c.form, " ".join(map(str, c.shapes)), c.sizes, letters)
    return "<tr>" + "".join(f'<td style="{CELL}{style}">{escape(cell)}</td>' for cell in cells) + "</tr>"


# Pictures

def svg(product: Product, of_letters: Mapping[str, str]) -> str:
    """The picture of a product."""
    (width, height), boxes, curves, words = picture(product, of_letters)
    body = "".join([*map(_curve, curves), *map(_words, words), *map(_box, boxes)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" fill="none" font-family="sans-serif" font-size="12">'
        f"<title>{escape(product.formula)}</title>{body}</svg>"
    )


def _box(box: Box) -> str:
    (x, y), (width, height) = box.corner, box.size
    middle = f'x="{x + width / 2:g}" y="{y + height / 2 + 4:g}" text-anchor="middle"'
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" stroke="currentColor"/>'
        f'<text {middle} font-weight="bold" fill="currentColor">{escape(box.name)}</text>'
    )


def _curve(curve: Curve) -> str:
    (x, y), (free, _), (a, b), (c, d), (x2, y2) = curve.points
    path = f"M{x:g} {y:g}H{free:g}C{a:g} {b:g} {c:g} {d:g} {x2:g} {y2:g}"
    ring = f'<circle cx="{x - 3:g}" cy="{y:g}" r="3" stroke="{curve.colour}"/>' if curve.ring else ""
    return f'{ring}<path d="{path}" stroke="{curve.colour}" stroke-width="2"/>'


def _words(said: Words) -> str:
    anchor = "end" if said.to_the_left else "start"
    (x, y), words = said.at, escape(said.words)
    return f'<text x="{x:g}" y="{y:g}" fill="{said.colour}" text-anchor="{anchor}">{words}</text>'
