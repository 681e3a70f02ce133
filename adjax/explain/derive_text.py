"""A derivation as text, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from .derive import Derivation, Product

HEADER = ("product", "shapes", "by size", "by letter")


def text(derivation: Derivation) -> str:
    """The einsum, then every operand's cotangent."""
    blocks = [_head(derivation), *map(_adjoint, derivation.adjoints)]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def conclusion(product: Product) -> str:
    """What sizes and letters leave of the candidates."""
    formed, fits = (sum(getattr(c, what) for c in product.candidates) for what in ("formed", "fits"))
    of = product.result.name.removeprefix("d")
    has = "has" if fits == 1 else "have"
    return f"By size {formed} of 8 can be formed and {fits} {has} the shape of {of}; the letters leave one."


def cost(product: Product) -> str:
    """The shapes and FLOPs."""
    shapes = ", ".join(f"{t.name} {t.shape}" for t in product.factors)
    return f"{product.result.name} {product.result.shape} from {shapes}: {product.flops:,} FLOPs"


def _head(derivation: Derivation) -> list[str]:
    sizes = "  ".join(f"{letter}={size}" for letter, size in derivation.sizes.items())
    return [*_equations(derivation.forward), f"  {cost(derivation.forward)}", f"  {sizes}"]


def _equations(product: Product) -> Iterator[str]:
    each = f" for each {', '.join(product.each)}" if product.each else ""
    yield f"{product.form}{each}" + " " * 4 + f'"{product.spec}"'
    if product.form != product.formula:
        yield f"  {product.formula}"


def _adjoint(product: Product) -> list[str]:
    lines = [*_equations(product), f"  {cost(product)}", *(f"  {role}" for role in product.roles)]
    return [*lines, *_table(product), f"  {conclusion(product)}"] if product.candidates else lines


def _table(product: Product) -> Iterator[str]:
    rows = [HEADER]
    for c in product.candidates:
        letters = f"{c.letters}: {product.result.name}" if c.right else c.letters
        rows.append((c.form, " ".join(map(str, c.shapes)), c.sizes, letters))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    for row in rows:
        yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
