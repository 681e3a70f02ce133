"""Why a gradient has its shape: the adjoint of an einsum in each of its operands, and what else might have been.

Seen as a form in its operands and the cotangent dY an einsum is symmetric (`einsum`): the cotangent of an operand is
the einsum in which its term and the output's change places. Where the terms are matrices, that is a product of two of
them, each as it is or transposed. Eight such products can be written down. Most do not fit by their sizes, and where
sizes are equal more of them do; the letters leave one whatever the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase
from typing import NamedTuple

from ..adjoint.subscripts import parse, read, steps, swap

DEFAULT_SIZES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)     # all different, so that shapes tell


class Tensor(NamedTuple):
    """An array of an einsum."""

    name: str
    term: str                       # a letter for every axis
    shape: tuple[int, ...]


class Candidate(NamedTuple):
    """A product of two matrices that could be written down for a cotangent."""

    form: str                       # "Xᵀ dY"
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    sizes: str                      # "3 ≠ 8", or the shape of the product
    letters: str                    # "d meets n", or the axes of the product, or ""
    formed: bool                    # whether the sizes that meet are equal
    fits: bool                      # whether the shape is that of the cotangent
    right: bool                     # whether the letters are


class Product(NamedTuple):
    """An einsum of some arrays: the forward one, or that of a cotangent."""

    result: Tensor
    factors: tuple[Tensor, ...]
    spec: str
    form: str                       # "dW = Xᵀ dY"; without a matrix form the sum
    formula: str                    # "dW[d p] = Σ_n X[n d] dY[n p]"
    each: str                       # letters of axes along which the matrix form holds entry by entry
    flops: int
    roles: tuple[str, ...]          # of a cotangent: where each letter comes from, or why it is summed
    candidates: tuple[Candidate, ...]    # of a cotangent that is a product of matrices


@dataclass(frozen=True)
class Derivation:
    """The adjoint of an einsum in every operand; prints as text, and as HTML with pictures in a notebook.

    >>> of = derive_adjoint("nd,dp->np", n=8, d=3, p=5)
    >>> of.forward.formula, of.adjoints[0].result.name, of.sizes["d"]
    ('Y[n p] = Σ_d X[n d] W[d p]', 'dX', 3)
    """

    spec: str
    sizes: Mapping[str, int]
    forward: Product
    adjoints: tuple[Product, ...]

    def __str__(self) -> str:
        from .derive_text import text

        return text(self)

    def _repr_html_(self) -> str:
        from .derive_html import html

        return html(self)


def derive_adjoint(spec: str, *, names: Sequence[str] | None = None, **sizes: int) -> Derivation:
    """For each operand of an einsum its cotangent: einsum, matrix form, shapes, FLOPs, and why no other product fits.

    Args:
        spec: an einsum as `einsum` takes it. An ellipsis stands for one axis here.
        names: of the operands; X, or X and W, or A, B, C and so on if left out. The result is Y.
        sizes: `n=8`: those of letters. The others get sizes that all differ.

    Returns:
        A `Derivation`: `print` it, or let a notebook show it. Of FLOPs a multiplication counts one and an addition
        one; those of more than two operands are of the path that `einsum` takes.

    Raises:
        ValueError: the spec is malformed, a size is of no letter or negative, the names are not one an operand.
        TypeError: the spec is no string, or a size no integer.

    >>> of = derive_adjoint("nd,dp->np", n=8, d=3, p=5)
    >>> [adjoint.form for adjoint in of.adjoints], [adjoint.spec for adjoint in of.adjoints]
    (['dX = dY Wᵀ', 'dW = Xᵀ dY'], ['np,dp->nd', 'nd,np->dp'])
    >>> [c.form for c in of.adjoints[1].candidates if c.right]
    ['Xᵀ dY']
    >>> sum(c.fits for c in derive_adjoint("nd,dp->np", n=4, d=4, p=4).adjoints[1].candidates)     # sizes do not tell
    8
    """
    if not isinstance(spec, str):
        raise TypeError(f"derive_adjoint: spec must be a string like 'nd,dp->np', got {type(spec).__name__}")
    terms, _ = parse(spec)
    inputs, output, every = read(spec, _shapes(spec, terms, sizes))
    operands = tuple(_tensor(name, term, every) for name, term in zip(_names(names, inputs), inputs, strict=True))
    Y = _tensor("Y", output, every)
    return Derivation(spec, every, _product(Y, operands, every), tuple(_adjoints(operands, Y, every)))


def _shapes(spec: str, terms: Sequence[str], given: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """Those of the operands: the given sizes, and different ones for all other letters."""
    letters = list(dict.fromkeys("".join(terms).replace("...", "")))
    for letter, size in given.items():
        if letter not in letters:
            raise ValueError(f"derive_adjoint: {spec!r} has no axis {letter!r}: its letters are {', '.join(letters)}")
        if not hasattr(size, "__index__") or isinstance(size, bool):
            raise TypeError(f"derive_adjoint: the size of axis {letter} must be an integer, got {size!r}")
        if size < 0:
            raise ValueError(f"derive_adjoint: the size of axis {letter} must not be negative, got {size}")
    free = _unused(given.values())
    sizes = {letter: int(given[letter]) if letter in given else next(free) for letter in letters}
    dots = (next(free),)
    each = lambda letters: tuple(sizes[c] for c in letters)
    halves = (term.partition("...") for term in terms)
    return tuple(each(left) + (dots if found else ()) + each(right) for left, found, right in halves)


def _unused(given: Iterable[int]) -> Iterator[int]:
    """Sizes that are not among the given ones."""
    taken = set(given)
    yield from (size for size in DEFAULT_SIZES if size not in taken)
    yield from (size for size in range(DEFAULT_SIZES[-1] + 1, 10_000) if size not in taken)


def _names(names: Sequence[str] | None, inputs: Sequence[str]) -> Sequence[str]:
    if names is None:
        return {1: ("X",), 2: ("X", "W")}.get(len(inputs)) or [ascii_uppercase[i % 24] for i in range(len(inputs))]
    if len(names) != len(inputs) or len(set(names)) != len(inputs):
        raise ValueError(f"derive_adjoint: names must be {len(inputs)} different ones, one an operand, got {names!r}")
    return names


def _tensor(name: str, term: str, sizes: Mapping[str, int]) -> Tensor:
    return Tensor(name, term, tuple(sizes[axis] for axis in term))


def _adjoints(operands: tuple[Tensor, ...], Y: Tensor, sizes: Mapping[str, int]) -> Iterator[Product]:
    """The term of an operand and that of the output change places."""
    terms = [operand.term for operand in operands]
    for i, operand in enumerate(operands):
        _, term = swap(terms, Y.term, i)
        dY = Tensor("dY", Y.term, Y.shape)
        factors = (*operands[:i], dY, *operands[i + 1 :])
        adjoint = _product(Tensor(f"d{operand.name}", term, operand.shape), factors, sizes)
        candidates = _candidates(adjoint.result, factors, sizes)
        yield adjoint._replace(roles=tuple(_roles(adjoint.result, factors)), candidates=tuple(candidates))


def _product(result: Tensor, factors: tuple[Tensor, ...], sizes: Mapping[str, int]) -> Product:
    spec = f"{','.join(factor.term for factor in factors)}->{result.term}"
    formula, (form, each) = _formula(result, factors), _matrix_form(result, factors)
    return Product(
        result, factors, spec, f"{result.name} = {form}" if form else formula, formula, each, flops(spec, sizes), (), ()
    )


# In words

def _formula(result: Tensor, factors: Sequence[Tensor]) -> str:
    """`dW[d p] = Σ_n X[n d] dY[n p]`."""
    named = lambda t: f"{t.name}[{' '.join(t.term)}]" if t.term else t.name
    summed = "".join(c for c in dict.fromkeys("".join(f.term for f in factors)) if c not in result.term)
    return f"{named(result)} = {summed and f'Σ_{summed} '}{' '.join(map(named, factors))}"


def _roles(result: Tensor, factors: Sequence[Tensor]) -> Iterator[str]:
    """Of every letter: where it comes from, or that it is summed, repeated, or on a diagonal."""
    for letter in dict.fromkeys("".join(f.term for f in factors) + result.term):
        holders = " and ".join(dict.fromkeys(f.name for f in factors if letter in f.term))
        of = result.name.removeprefix("d")
        if result.term.count(letter) > 1:
            yield f"{letter} is on the diagonal of {of}, zero elsewhere"
        elif letter not in result.term:
            plural = "have" if " and " in holders else "has"
            yield f"{letter} is summed: {holders} {plural} it, {of} has not"
        elif not holders:
            yield f"{letter} is repeated: {of} alone has it"
        else:
            yield f"{letter} comes from {holders}"


# As matrices

def _matrices(result: Tensor, factors: Sequence[Tensor]) -> tuple[str, str, str, str] | None:
    """The two factors' letters, the result's, and those of axes that all three share; None where they are no matrices.

    An axis that all three have is an index of many products; without such axes at most two are left to each.
    """
    terms = [*(f.term for f in factors), result.term]
    if len(terms) != 3 or any(len(set(term)) < len(term) for term in terms):
        return None
    each = "".join(c for c in terms[2] if all(c in term for term in terms))
    a, b, out = ("".join(c for c in term if c not in each) for term in terms)
    twice = all(sum(c in term for term in (a, b, out)) == 2 for c in a + b + out)
    contracted = [c for c in a if c in b]
    fits = twice and max(map(len, (a, b, out))) <= 2 and len(contracted) <= 1
    return (a, b, out, each) if fits else None


def _matrix_form(result: Tensor, factors: Sequence[Tensor]) -> tuple[str, str]:
    """`Xᵀ dY`, and the letters of axes along which it holds entry by entry; '' where there is none."""
    if len(factors) == 1:
        (X,) = factors
        turned = X.term != result.term
        same = len(X.term) <= 2 and len(set(X.term)) == len(X.term) and X.term[:: -1 if turned else 1] == result.term
        return (_transposed(X.name) if turned else X.name) * same, ""
    found = _matrices(result, factors)
    if found is None:
        return "", ""
    a, b, out, each = found
    (left, a), (right, b) = (factors[0].name, a), (factors[1].name, b)
    if out and (b[:1] == out[:1] or out[0] in b) and out[0] not in a:
        left, a, right, b = right, b, left, a                       # the factor with the first axis stands first
    shared = next((c for c in a if c in b), "")
    if shared:
        left = _transposed(left) if a[0] == shared else left        # (k, i): its transpose has k last; kᵀ of a vector
        right = _transposed(right) if b[-1] == shared and len(b) == 2 else right
    elif a and b:
        right = _transposed(right)                                  # a column times a row
    elif (a or b) and (a or b) != out:
        left, right = (_transposed(left), right) if a else (left, _transposed(right))
    return f"{left} {right}", each


def _transposed(name: str) -> str:
    return f"{name}ᵀ"


def _candidates(result: Tensor, factors: Sequence[Tensor], sizes: Mapping[str, int]) -> Iterator[Candidate]:
    """All products of two matrices, each as it is or transposed, in both orders."""
    found = _matrices(result, factors) if len(factors) == 2 else None
    if found is None or any(len(term) != 2 for term in found[:3]):
        return
    pair = [(factor.name, term) for factor, term in zip(factors, found[:2], strict=True)]
    out = found[2]
    for (first, second), *turned in product((pair, pair[::-1]), (False, True), (False, True)):
        (p, a), (q, b) = (
            (_transposed(name), term[::-1]) if turn else (name, term)
            for (name, term), turn in zip((first, second), turned, strict=True)
        )
        shapes = tuple(tuple(sizes[c] for c in term) for term in (a, b))
        inner, outer = (a[1], b[0]), a[0] + b[1]
        formed = sizes[inner[0]] == sizes[inner[1]]
        shape = tuple(sizes[c] for c in outer)
        fits = formed and shape == tuple(sizes[c] for c in out)
        right = inner[0] == inner[1] and outer == out
        met = f"{inner[0]} meets {inner[1]}" if inner[0] != inner[1] else f"({outer[0]}, {outer[1]})"
        said = str(shape) if formed else f"{sizes[inner[0]]} ≠ {sizes[inner[1]]}"
        yield Candidate(f"{p} {q}", (shapes[0], shapes[1]), said, met, formed, fits, right)


# FLOPs

def flops(spec: str, sizes: Mapping[str, int]) -> int:
    """Multiplications and additions of an einsum, in the notation of `subscripts`.

    >>> sizes = {"n": 8, "d": 3, "p": 5}
    >>> [flops(spec, sizes) for spec in ("nd,dp->np", "nd->d", "nd->dn")]
    [240, 24, 0]
    """
    left, _, out = spec.partition("->")
    inputs = left.split(",")
    if len(inputs) <= 2:
        return _step_flops(inputs, out, sizes)
    kept = "".join(c for c in dict.fromkeys(out) if c in left)      # what is repeated or on a diagonal costs nothing
    shapes = tuple(tuple(sizes[c] for c in term) for term in inputs)
    return sum(_step_flops(step.inputs, step.output, sizes) for step in steps(f"{left}->{kept}", shapes))


def _step_flops(inputs: Sequence[str], out: str, sizes: Mapping[str, int]) -> int:
    """Of one or two operands: as many multiplications as there are combinations of letters, and as many sums."""
    letters = set("".join(inputs)) - {"1"}
    whole = math.prod(sizes[c] for c in letters)
    summed = any(c not in out for c in letters)
    return whole * ((len(inputs) == 2) + summed)
