"""A derivation for a notebook: HTML with inline styles, and a picture of each product in SVG.

In a picture every axis is a line in the colour of its letter. Lines of arrays on the left run to the axis of the result
on the right that they become; where two meet and end in Σ the axis is summed. Colours are Okabe and Ito's, which
colour-blind readers can tell apart; each line carries its letter too. Text and background are those of the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from .derive import Candidate, Derivation, Product, Tensor
from .derive_text import HEADER, conclusion, cost

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#7f7f7f")
CELL = "padding:1px 14px 1px 0;text-align:left;white-space:nowrap;border:0;background:transparent;"
FAINT, MONO = "opacity:0.6;", "font-family:monospace;"
BOX, ROW, GAP, LEFT, RIGHT, LABEL = 54, 20, 14, 8, 260, 34          # of a picture, in its units


def html(derivation: Derivation) -> str:
    """One `<div>`."""
    colours = {letter: PALETTE[i % len(PALETTE)] for i, letter in enumerate(derivation.sizes)}
    parts = [_product(product, colours) for product in (derivation.forward, *derivation.adjoints)]
    return f'<div style="font-size:13px;line-height:1.5;">{"".join(parts)}</div>'


def _product(product: Product, colours: Mapping[str, str]) -> str:
    each = f" for each {', '.join(product.each)}" if product.each else ""
    lines = [f'<b style="font-size:15px;">{escape(product.form)}</b>{escape(each)}']
    if product.form != product.formula:
        lines.append(escape(product.formula))
    lines += [_span(MONO, product.spec), _span(FAINT, cost(product))]
    words = "".join(f"<div>{line}</div>" for line in [*lines, *map(escape, product.roles)])
    side = "display:inline-block;vertical-align:top;margin-right:24px;"
    top = f'<div style="{side}">{picture(product, colours)}</div><div style="{side}">{words}</div>'
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

Point = tuple[float, float]


class Port(NamedTuple):
    """Where an axis leaves a box."""

    letter: str
    size: int
    at: Point


def picture(product: Product, colours: Mapping[str, str]) -> str:
    """The arrays as boxes, their axes as lines."""
    tops, height = [], float(GAP)
    for factor in product.factors:
        tops.append(height)
        height += _height(factor) + GAP
    result_top = (height - _height(product.result)) / 2
    given = [_ports(factor, LEFT + BOX, top) for factor, top in zip(product.factors, tops, strict=True)]
    made = _ports(product.result, RIGHT, result_top)
    boxes = [_box(f, LEFT, top) for f, top in zip(product.factors, tops, strict=True)]
    lines = [line for letter in colours for line in _lines(letter, colours[letter], given, made)]
    body = "".join([*lines, *boxes, _box(product.result, RIGHT, result_top)])
    width, height = RIGHT + BOX + LEFT, max(height, result_top + _height(product.result) + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" viewBox="0 0 {width} {height:g}" '
        f'role="img" fill="none" font-family="sans-serif" font-size="12"><title>{escape(product.formula)}</title>'
        f"{body}</svg>"
    )


def _height(tensor: Tensor) -> float:
    return ROW * max(1, len(tensor.term))


def _ports(tensor: Tensor, x: float, top: float) -> list[Port]:
    axes = zip(tensor.term, tensor.shape, strict=True)
    return [Port(letter, size, (x, top + ROW * (i + 0.5))) for i, (letter, size) in enumerate(axes)]


def _box(tensor: Tensor, x: float, top: float) -> str:
    height = _height(tensor)
    middle = f'x="{x + BOX / 2:g}" y="{top + height / 2 + 4:g}" text-anchor="middle"'
    return (
        f'<rect x="{x:g}" y="{top:g}" width="{BOX}" height="{height:g}" rx="4" stroke="currentColor"/>'
        f'<text {middle} font-weight="bold" fill="currentColor">{escape(tensor.name)}</text>'
    )


def _lines(letter: str, colour: str, given: Iterable[Sequence[Port]], made: Sequence[Port]) -> Iterator[str]:
    """An axis: from where it is given to where it is made, or to a Σ."""
    starts = [port for ports in given for port in ports if port.letter == letter]
    ends = [port.at for port in made if port.letter == letter]
    for _, size, (x, y) in starts:
        yield _text((x + 6, y - 3), f"{letter} {size}", colour, "start")
    if starts and not ends:
        meet = (LEFT + BOX + 118.0, sum(port.at[1] for port in starts) / len(starts))
        yield from (_curve(port.at, meet, colour) for port in starts)
        yield _text((meet[0] + 4, meet[1] + 4), f"Σ{letter}", colour, "start")
    for x, y in ends:
        yield _text((x - 6, y - 3), letter, colour, "end")
        yield from (_curve(port.at, (x, y), colour) for port in starts)
        if not starts:
            yield f'<circle cx="{x - 30:g}" cy="{y:g}" r="3" stroke="{colour}"/>'
            yield _curve((x - 27, y), (x, y), colour)


def _curve(start: Point, end: Point, colour: str) -> str:
    (x, y), (x2, y2) = start, end
    free = min(x + LABEL, x2)                                       # straight on under its label
    middle = (free + x2) / 2
    path = f"M{x:g} {y:g}H{free:g}C{middle:g} {y:g} {middle:g} {y2:g} {x2:g} {y2:g}"
    return f'<path d="{path}" stroke="{colour}" stroke-width="2"/>'


def _text(at: Point, words: str, colour: str, anchor: str) -> str:
    return f'<text x="{at[0]:g}" y="{at[1]:g}" fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'
