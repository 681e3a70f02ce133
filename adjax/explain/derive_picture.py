"""A picture of a product, as boxes, curves and words at places: for SVG and for matplotlib.

Every axis is a line in the colour of its letter. Lines of arrays on the left run to the axis of the result on the right
that they become; where lines meet and end in Σ the axis is summed; one that begins in a ring is repeated. Colours are
Okabe and Ito's, which colour-blind readers can tell apart; each line carries its letter too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .derive import Derivation, Product, Tensor

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#7f7f7f")
BOX, ROW, GAP, LEFT, RIGHT, LABEL = 54, 20, 14, 8, 260, 34          # in the units of the picture, y downwards

Point = tuple[float, float]


class Box(NamedTuple):
    """An array."""

    name: str
    corner: Point
    size: Point


class Curve(NamedTuple):
    """An axis: straight on under its label, then bent."""

    start: Point
    end: Point
    colour: str
    ring: bool = False              # whether it begins in nothing

    @property
    def points(self) -> tuple[Point, Point, Point, Point, Point]:
        """The start, where it begins to bend, two control points, the end."""
        (x, y), (x2, y2) = self.start, self.end
        free = min(x + LABEL, x2)
        middle = (free + x2) / 2
        return self.start, (free, y), (middle, y), (middle, y2), self.end


class Words(NamedTuple):
    """A letter and its size, or Σ."""

    at: Point
    words: str
    colour: str
    to_the_left: bool = False


class Picture(NamedTuple):
    """All of it."""

    size: Point
    boxes: list[Box]
    curves: list[Curve]
    words: list[Words]


class Port(NamedTuple):
    """Where an axis leaves a box."""

    letter: str
    size: int
    at: Point


def colours(derivation: Derivation) -> dict[str, str]:
    """One for each letter."""
    return {letter: PALETTE[i % len(PALETTE)] for i, letter in enumerate(derivation.sizes)}


def picture(product: Product, colours: Mapping[str, str]) -> Picture:
    """The arrays as boxes, their axes as lines."""
    tops, height = [], float(GAP)
    for factor in product.factors:
        tops.append(height)
        height += _height(factor) + GAP
    top = max((height - _height(product.result)) / 2, float(GAP))
    boxes = [_box(f, LEFT, y) for f, y in zip(product.factors, tops, strict=True)]
    given = [_ports(f, LEFT + BOX, y) for f, y in zip(product.factors, tops, strict=True)]
    made = _ports(product.result, RIGHT, top)
    drawn = [item for letter, colour in colours.items() for item in _axis(letter, colour, given, made)]
    size = (RIGHT + BOX + LEFT, max(height, top + _height(product.result) + GAP))
    return Picture(
        size, [*boxes, _box(product.result, RIGHT, top)], [item for item in drawn if isinstance(item, Curve)],
        [item for item in drawn if isinstance(item, Words)],
    )  # fmt: skip


def _height(tensor: Tensor) -> float:
    return ROW * max(1, len(tensor.term))


def _box(tensor: Tensor, x: float, top: float) -> Box:
    return Box(tensor.name, (x, top), (BOX, _height(tensor)))


def _ports(tensor: Tensor, x: float, top: float) -> list[Port]:
    axes = zip(tensor.term, tensor.shape, strict=True)
    return [Port(letter, size, (x, top + ROW * (i + 0.5))) for i, (letter, size) in enumerate(axes)]


def _axis(
    letter: str, colour: str, given: Iterable[Sequence[Port]], made: Sequence[Port]
) -> Iterator[Curve | Words]:
    """From where it is given to where it is made, or to a Σ."""
    starts = [port for ports in given for port in ports if port.letter == letter]
    ends = [port.at for port in made if port.letter == letter]
    for _, size, (x, y) in starts:
        yield Words((x + 6, y - 3), f"{letter} {size}", colour)
    if starts and not ends:
        meet = (LEFT + BOX + 118.0, sum(port.at[1] for port in starts) / len(starts))
        yield from (Curve(port.at, meet, colour) for port in starts)
        yield Words((meet[0] + 4, meet[1] + 4), f"Σ{letter}", colour)
    for x, y in ends:
        yield Words((x - 6, y - 3), letter, colour, to_the_left=True)
        yield from (Curve(port.at, (x, y), colour) for port in starts)
        if not starts:
            yield Curve((x - 27, y), (x, y), colour, ring=True)
