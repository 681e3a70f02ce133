"""Einsum specs as text: read, checked against shapes, turned into adjoints and into steps. Strings and shapes only.

A spec read against shapes is written out: a letter for every axis, those of an ellipsis too, and "1" for an axis of
size 1 that broadcasting stretches. In this notation two things are allowed that users cannot write: a letter twice in
the output, which puts the values on the diagonal, and a letter that the output alone has, along which they repeat.
They close the notation under adjoints: the adjoint of an einsum in one operand is the einsum in which that operand's
term and the output's change places.

    nd,dp->np     dX: np,dp->nd     dW: nd,np->dp       ⟨X W, dY⟩ = Σ_ndp X_nd W_dp dY_np is symmetric in its terms
    ii->          dX: ->ii                              of a trace: a diagonal
    nd->d         dX: d->nd                             of a sum: a broadcast
    nd,1d->nd     db: nd,nd->1d                         of a broadcast: a sum
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from string import ascii_letters
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]
TYPICAL = 64                            # what an axis of symbolic size counts when a path is chosen


class Subscripts(NamedTuple):
    """A spec written out for operands of known shapes: `inputs -> output`, and the size of every letter."""

    inputs: tuple[str, ...]
    output: str
    sizes: Mapping[str, int]


class Step(NamedTuple):
    """An einsum of one or two of the values so far (first come the operands); its result is the next value."""

    at: tuple[int, ...]
    inputs: tuple[str, ...]
    output: str


def backward_specs(spec: str, shapes: Sequence[Shape]) -> tuple[str, ...]:
    """For each operand the einsum that gives its cotangent: the cotangent of the output stands in its place.

    Args:
        spec: as `einsum` takes it.
        shapes: those of the operands.

    Returns:
        Specs written out: a letter for every axis, "1" for one that was stretched. An output letter that no input has
        repeats the values, one that occurs twice puts them on the diagonal.

    >>> backward_specs("nd,dp->np", [(8, 3), (3, 5)])
    ('np,dp->nd', 'nd,np->dp')
    >>> backward_specs("ii", [(4, 4)]), backward_specs("...d->d", [(2, 4, 3)])
    (('->ii',), ('d->ABd',))
    >>> backward_specs("nd,nd->nd", [(8, 3), (1, 3)])
    ('nd,1d->nd', 'nd,nd->1d')
    """
    inputs, output, _ = read(spec, tuple(shapes))
    swapped = (swap(inputs, output, i) for i in range(len(inputs)))
    return tuple(f"{','.join(terms)}->{term}" for terms, term in swapped)


def swap(inputs: Sequence[str], output: str, i: int) -> tuple[tuple[str, ...], str]:
    """The adjoint in operand `i`: its term and the output change places."""
    return (*inputs[:i], output, *inputs[i + 1 :]), inputs[i]


def parse(spec: str) -> tuple[tuple[str, ...], str]:
    """The terms of the operands and of the output, without spaces; an output that is left out is implied.

    >>> parse("b a, a c"), parse("...ii")
    ((('ba', 'ac'), 'bc'), (('...ii',), '...'))
    """
    inputs, arrow, output = spec.replace(" ", "").partition("->")
    terms = tuple(inputs.split(","))
    for term in (*terms, output):
        letters = term.replace("...", "", 1)
        if "-" in letters or ">" in letters:
            raise ValueError(f"einsum: malformed spec {spec!r}: '->' stands once, before the output")
        if "." in letters:
            raise ValueError(f"einsum: malformed spec {spec!r}: an ellipsis is three dots, one to a term")
        if "," in letters:
            raise ValueError(f"einsum: malformed spec {spec!r}: there is one output")
        if letters and not letters.isalpha():
            wrong = next(c for c in letters if not c.isalpha())
            raise ValueError(f"einsum: malformed spec {spec!r}: an axis is a letter, got {wrong!r}")
    named = Counter("".join(terms).replace(".", ""))
    if not arrow:
        output = "..." * ("..." in inputs) + "".join(sorted(c for c in named if named[c] == 1))
    for axis, count in Counter(output.replace(".", "")).items():
        if count > 1:
            raise ValueError(f"einsum: output axis {axis} of {spec!r} is named {count} times")
        if axis not in named:
            raise ValueError(f"einsum: output axis {axis} of {spec!r} is in no operand")
    return terms, output


@lru_cache(maxsize=4096)
def read(spec: str, shapes: tuple[Shape, ...]) -> Subscripts:
    """The spec written out for these shapes. Raises ValueError where it does not fit them."""
    terms, output = parse(spec)
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {spec!r} has {len(terms)} operands, got {len(shapes)}")
    ranks = [_ellipsis_rank(spec, i, term, shape) for i, (term, shape) in enumerate(zip(terms, shapes, strict=True))]
    free = list(zip(range(max(ranks)), _unused(spec), strict=False))
    dots = "".join(letter for _, letter in free)                    # an ellipsis is aligned on the right

    def written_out(term: str, rank: int) -> str:
        return term.replace("...", dots[len(dots) - rank :])

    inputs = [written_out(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    sizes = _sizes(spec, inputs, shapes, dots)
    stretched = tuple(
        "".join("1" if size == 1 != sizes[axis] else axis for axis, size in zip(term, shape, strict=True))
        for term, shape in zip(inputs, shapes, strict=True)
    )
    return Subscripts(stretched, written_out(output, len(dots)), sizes)


def _ellipsis_rank(spec: str, i: int, term: str, shape: Shape) -> int:
    """How many axes the ellipsis of a term stands for."""
    letters = term.replace("...", "")
    rank = len(shape) - len(letters)
    if rank < 0 or (rank > 0 and letters == term):
        least = "at least " * (letters != term)
        raise ValueError(
            f"einsum: operand {i} of {spec!r} must have {least}{len(letters)} axes ({axes_of(term)}), got shape {shape}"
        )
    return rank


def axes_of(term: str) -> str:
    """The axes of a term for a message: `..., n, d`."""
    left, dots, right = term.partition("...")
    return ", ".join([*left, *[dots] * bool(dots), *right])


def _unused(spec: str) -> Iterator[str]:
    """Letters that a spec does not use, capitals first, without end."""
    beyond = (chr(code) for code in range(192, 0x10000))
    return (c for c in chain(ascii_letters[26:], ascii_letters[:26], beyond) if c.isalpha() and c not in spec)


def _sizes(spec: str, inputs: Sequence[str], shapes: Sequence[Shape], dots: str) -> dict[str, int]:
    """The size of every letter: that of the operands in which it is not 1. Raises ValueError where two differ."""
    first: dict[str, tuple[int, int]] = {}                          # the size, and an operand that has it
    for i, (term, shape) in enumerate(zip(inputs, shapes, strict=True)):
        for axis, size in zip(term, shape, strict=True):
            known, where = first.setdefault(axis, (size, i))
            if known == 1 and where != i:
                first[axis] = size, i
            elif size != known and (size != 1 or where == i):
                name = f"axis {dots.index(axis) - len(dots)} of the ellipsis" if axis in dots else f"axis {axis}"
                there = f"operand {where} (shape {shapes[where]})"
                here = "in the same operand" if where == i else f"in operand {i} (shape {shape})"
                raise ValueError(f"einsum: {name} of {spec!r} is {known} in {there} but {size} {here}")
    return {axis: size for axis, (size, _) in first.items()}


@lru_cache(maxsize=4096)
def steps(spec: str, shapes: tuple[Shape, ...]) -> tuple[Step, ...]:
    """The einsum as steps of one operand (a diagonal, a sum, a squeeze, a transpose) and of two (a contraction).

    Every value is used once. Whatever one operand can do alone comes first; then the pairs follow an optimal path.

    >>> for step in steps("iij,jk,kl->l", ((2, 2, 3), (3, 4), (4, 5))): print(*step)
    (0,) ('iij',) j
    (3, 1) ('j', 'jk') k
    (2, 4) ('kl', 'k') l
    """
    inputs, output, sizes = read(spec, shapes)
    if len(inputs) == 1:
        return (Step((0,), inputs, output),)
    program, live = [], list(enumerate(inputs))
    for i, term in live:
        elsewhere = output + "".join(other for j, other in enumerate(inputs) if j != i)
        kept = "".join(axis for axis in dict.fromkeys(term) if axis != "1" and axis in elsewhere)
        if kept != term:
            program.append(Step((i,), (term,), kept))
            live[i] = len(inputs) + len(program) - 1, kept
    for pair in _path([term for _, term in live], output, sizes):
        (i, a), (j, b) = (live[place] for place in sorted(pair))
        live = [value for place, value in enumerate(live) if place not in pair]
        needed = output + "".join(term for _, term in live)
        out = output if not live else "".join(axis for axis in natural(a, b) if axis in needed)
        program.append(Step((i, j), (a, b), out))
        live.append((len(inputs) + len(program) - 1, out))
    return tuple(program)


def natural(a: str, b: str) -> str:
    """The letters of two terms in the order in which a product has them that keeps them all: shared ones first."""
    return "".join([*(c for c in a if c in b), *(c for c in a if c not in b), *(c for c in b if c not in a)])


def _path(terms: Sequence[str], output: str, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
    if len(terms) == 2:
        return [(0, 1)]
    known = {axis: size if isinstance(size, int) else TYPICAL for axis, size in sizes.items()}
    operands = [np.broadcast_to(np.float32(0), [known[axis] for axis in term]) for term in terms]     # no memory
    return jnp.einsum_path(f"{','.join(terms)}->{output}", *operands, optimize="auto")[0]
