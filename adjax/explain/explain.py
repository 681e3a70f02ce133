"""What a backward pass keeps and costs, beside plain autodiff of the same function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import jax

from ..adjoint import is_inexact
from ..adjoint.undecorated import undecorated
from .cost import Cost, cost_of
from .lines import Line, lines_of, type_of
from .saved import Differentiated, Saved
from .tables import Row, aligned, table

SHOWN, LINES_SHOWN = 12, 60             # residuals and lines; the rest are summed up
LINE = 54                               # characters of a line


class Leaf(NamedTuple):
    """An array of the arguments or of the result."""

    name: str
    type: Any
    cotangent: bool                 # whether it has one
    variable: str                   # its letter in the lines


@dataclass(frozen=True)
class Explanation:
    """What goes into a function and comes out, what is kept, and what it costs; as written, and under plain autodiff.

    Prints as text in 80 columns, and as HTML in a notebook.

    >>> of = explain(lambda x: x * x, jax.ShapeDtypeStruct((3,), jax.numpy.float32))
    >>> of.cost.residual_bytes, of.cost.forward_flops
    (12, 3)
    """

    name: str
    arguments: tuple[Leaf, ...]
    results: tuple[Leaf, ...]
    residuals: tuple[Saved, ...]
    plain_residuals: tuple[Saved, ...]
    cost: Cost
    plain_cost: Cost
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        blocks = ([title, *(f"  {line}" for line in aligned(rows, left))] for title, rows, left in _tables(self))
        return "\n\n".join(map("\n".join, blocks))

    def _repr_html_(self) -> str:
        parts = [f"<div><b>{escape(title)}</b></div>{table(rows)}" for title, rows, _ in _tables(self)]
        return f'<div style="font-size:13px;line-height:1.5;">{"".join(parts)}</div>'


def explain(f: Callable[..., Any], *args: Any) -> Explanation:
    """Arguments, results and cotangents of a function, what its backward pass keeps, and what it costs.

    Beside each figure stands that of plain autodiff: of the same function without the custom rules inside it.

    Args:
        f: a function of pytrees of arrays. It is differentiated in all floating and complex leaves.
        args: arrays, or `jax.ShapeDtypeStruct`s: nothing is computed, two programs are compiled.

    Returns:
        An `Explanation`. FLOPs are counted in the equations, an addition, a multiplication and an exponential one each,
        loops as often as they run (`while_loop` once), of branches the dearest; the backward pass is counted from
        residuals and cotangents on. Temporaries are those of both passes compiled as one program for this machine.

    Raises:
        TypeError: no leaf is floating or complex.

    >>> import jax.numpy as jnp
    >>> from adjax import relu
    >>> of = explain(relu, jax.ShapeDtypeStruct((4, 5), jnp.float32))
    >>> [(kept.origin, kept.bytes) for kept in of.residuals], of.plain_cost.residual_bytes
    ([('gt', 20)], 80)
    """
    ours, plain = Differentiated("explain", f, args), Differentiated("explain", undecorated(f), args)
    inputs, lines = lines_of(ours, *ours.types)
    letters = [variable.name for variable in inputs]
    arguments = [Leaf(*leaf) for leaf in zip(ours.names, ours.types, ours.active, letters, strict=True)]
    flat, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(ours, *ours.types))
    results = [Leaf(f"result{jax.tree_util.keystr(path)}", y, is_inexact(y), "") for path, y in flat]
    return Explanation(
        str(getattr(f, "__name__", type(f).__name__)), tuple(arguments), tuple(results), ours.residuals(),
        plain.residuals(), cost_of(ours), cost_of(plain), tuple(lines),
    )  # fmt: skip


# As tables

def _tables(of: Explanation) -> Iterator[tuple[str, list[Row], int]]:
    """Titles, rows, and how many columns are words."""
    leaves = (*of.arguments, *of.results)
    yield f"{of.name}: arguments and results", [("", "", "type", "cotangent"), *map(_leaf, leaves)], 4
    for title, kept in (("kept for the backward pass", of.residuals), ("kept by plain autodiff", of.plain_residuals)):
        yield f"{title}: {_bytes(sum(saved.bytes for saved in kept))}", [("", "type", "bytes"), *_kept(kept)], 2
    words = ("forward FLOPs", "backward FLOPs", "residual bytes", "temporary bytes")
    pairs = zip(words, of.cost, of.plain_cost, strict=True)
    yield "line by line, without custom rules; below each line its transposes", list(_lines(of.lines)), 2
    yield "cost", [("", "as written", "plain autodiff"), *((word, f"{a:,}", f"{b:,}") for word, a, b in pairs)], 1


def _leaf(leaf: Leaf) -> Row:
    said = type_of(leaf.type)
    return leaf.variable, leaf.name, said, said if leaf.cotangent else "none"


def _kept(residuals: Sequence[Saved]) -> Iterator[Row]:
    for saved in residuals[:SHOWN]:
        yield saved.origin, type_of(saved), f"{saved.bytes:,}"
    if rest := residuals[SHOWN:]:
        yield f"and {len(rest)} more", "", f"{sum(saved.bytes for saved in rest):,}"


def _lines(lines: Sequence[Line]) -> Iterator[Row]:
    """Each equation, and below it its transposes."""
    for line in lines[:LINES_SHOWN]:
        yield _clipped(f"{line.result} = {line.expression}"), line.type
        yield from ((_clipped(f"    {adjoint}"), "") for adjoint in line.transposes)
        if line.not_linear_in:
            yield f"    not linear in {', '.join(line.not_linear_in)}", ""
    if len(lines) > LINES_SHOWN:
        yield f"and {len(lines) - LINES_SHOWN} more", ""


def _clipped(words: str) -> str:
    return words if len(words) <= LINE else f"{words[: LINE - 1]}…"


def _bytes(n: int) -> str:
    return f"{n:,} bytes"
