"""Argument specs: how the command line writes the arguments of a function; `GRAMMAR` lists them."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import BadInput

GRAMMAR = """\
f32[8,16]  bf16[4]  f64[]  c64[3]    signed standard normal numbers
f32[8]>0  f32[4]<1  f32[4]>0<1       numbers between bounds; probes too
i32[8]<16  u8[3]<9  i32[8]>-3<3      integers, from 0 or above the lower bound
i32[8]                               zeros and ones: indices into any axis
bool[8]                              half of them True
key[]                                a jax.random key
(f32[16,8],f32[8])  [f32[2]]         a tuple, a list
{W:f32[2,3],b:f32[3]}                a dict
=True  =3  =(2,2)  =SAME             an option: a Python literal, or a string
stride=2  padding=SAME               an option passed by keyword
none                                 None
"""
FLOATING = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}
COMPLEX = {"c64": "complex64", "c128": "complex128"}
INTEGER = {f"{kind[0]}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
DTYPES = {**FLOATING, **COMPLEX, **INTEGER, "bool": "bool", "key": "key"}
SHORT = {long: short for short, long in DTYPES.items()}
CLOSING = {"(": ")", "[": "]", "{": "}"}
KEYWORD = re.compile(r"\s*([A-Za-z_]\w*)\s*=")
NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
TOKEN = re.compile(rf"([A-Za-z_]\w*|{NUMBER.pattern}|\S|)")
ARGUMENT = f"an argument like f32[8,16], (f32[2],f32[3]), {{W:f32[2]}}, =True or none, with {', '.join(DTYPES)}"


class BadSpec(BadInput):
    """A spec that cannot be read.

    Attributes:
        spec: the whole text.
        column: where it goes wrong, from 1.
    """

    def __init__(self, spec: str, column: int, reason: str) -> None:
        super().__init__(f"{spec!r}, column {column}: {reason}")
        self.spec, self.column = spec, column


@dataclass(frozen=True)
class ArraySpec:
    """An array to be drawn at random: a key of `DTYPES`, a shape, and bounds that no entry reaches."""

    dtype: str
    shape: tuple[int, ...]
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Option:
    """A value that is passed as it is."""

    value: Any


def parse(spec: str) -> Any:
    """The pytree of `ArraySpec` and `Option` that a spec writes. Bounds are strict; spaces are free.

    Raises:
        BadSpec: the text is no spec, no number lies between its bounds, or JAX would silently narrow its dtype.

    >>> parse("{W:f32[2,3]>0,b:none,padding:=SAME}")
    {'W': ArraySpec(dtype='f32', shape=(2, 3), low=0.0, high=inf), 'b': None, 'padding': Option(value='SAME')}
    """
    return _Reader(spec).whole()


def keyword(spec: str) -> tuple[str, Any] | None:
    """The name and the value of an option passed by keyword, or None for any other spec.

    >>> keyword("stride=2"), keyword("spec=nd,np->dp"), keyword("f32[8]")
    (('stride', 2), ('spec', 'nd,np->dp'), None)
    """
    match = KEYWORD.match(spec)
    return (match[1], _Reader(spec[match.end() - 1 :]).whole().value) if match else None


def make(spec: str, rng: np.random.Generator) -> Any:
    """The argument that a spec describes; raises what `parse` raises.

    >>> make("(i32[6]<9,bool[4],=3)", np.random.default_rng(0))
    (Array([7, 5, 4, 2, 2, 0], dtype=int32), Array([ True, False,  True, False], dtype=bool), 3)
    """
    return draw(parse(spec), rng)


def draw(tree: Any, rng: np.random.Generator) -> Any:
    """The argument that a pytree of `ArraySpec` and `Option` describes."""
    return jax.tree.map(lambda leaf: leaf.value if isinstance(leaf, Option) else _array(leaf, rng), tree)


def _array(spec: ArraySpec, rng: np.random.Generator) -> jax.Array:
    if spec.dtype == "key":
        key = jax.random.key(int(rng.integers(2**31)))
        return jax.random.split(key, spec.shape) if spec.shape else key
    return jnp.asarray(np.asarray(_numbers(spec, rng)).astype(jnp.dtype(DTYPES[spec.dtype])))


def _numbers(spec: ArraySpec, rng: np.random.Generator) -> Any:
    if spec.dtype == "bool":
        return rng.permutation(math.prod(spec.shape)).reshape(spec.shape) % 2 == 0
    if spec.dtype in INTEGER:
        return rng.integers(*_integers(spec), size=spec.shape, endpoint=True, dtype=DTYPES[spec.dtype])
    if spec.dtype in COMPLEX:
        return rng.standard_normal(spec.shape) + 1j * rng.standard_normal(spec.shape)
    return _between(spec.low, spec.high, spec.shape, rng)


def _between(low: float, high: float, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Numbers that keep away from a bound by a twentieth of the interval, or of a half-line's natural scale."""
    if math.isinf(low) and math.isinf(high):
        return rng.standard_normal(shape)
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * rng.uniform(0.05, 0.95, shape)
    edge, sign = (low, 1) if math.isfinite(low) else (high, -1)
    return edge + sign * max(1.0, abs(edge)) * np.exp(rng.uniform(-3, 3, shape))


def _integers(spec: ArraySpec) -> tuple[int, int]:
    """The least and the greatest integer allowed."""
    least = 0 if math.isinf(spec.low) else math.floor(spec.low) + 1
    return least, least + 1 if math.isinf(spec.high) else math.ceil(spec.high) - 1


class _Reader:
    """A recursive descent over one spec; `at` is the place of the next token."""

    def __init__(self, spec: str) -> None:
        self.spec, self.at = spec, 0
        self._skip_spaces()

    def whole(self) -> Any:
        value = self.value(nested=False)
        if self.token:
            raise self.wrong("the end")
        return value

    @property
    def token(self) -> str:
        match = TOKEN.match(self.spec, self.at)
        return match[1] if match else ""

    def wrong(self, expected: str) -> BadSpec:
        got = repr(self.token) if self.token else "the end"
        return BadSpec(self.spec, self.at + 1, f"expected {expected}, got {got}")

    def take(self, expected: str = "") -> str:
        """The next token, which is then behind; a token is expected by its own name."""
        token = self.token
        if expected and token != expected:
            raise self.wrong(repr(expected))
        self.at += len(token)
        self._skip_spaces()
        return token

    def _skip_spaces(self) -> None:
        self.at = len(self.spec) - len(self.spec[self.at:].lstrip())

    def value(self, nested: bool = True) -> Any:
        token = self.token
        if token in DTYPES or token in SHORT:
            return self.array()
        if token not in ("(", "[", "{", "=", "none"):
            raise self.wrong(ARGUMENT)
        self.take()
        if token == "none":
            return None
        if token == "=":
            return self.option(nested)
        return self.container(token)

    def container(self, opening: str) -> Any:
        keys: list[str] = []
        values = []
        while self.token != CLOSING[opening]:
            if opening == "{":
                keys.append(self.name(keys))
            values.append(self.value())
            if self.token not in (",", CLOSING[opening]):
                raise self.wrong(f"',' or {CLOSING[opening]!r}")
            if self.token == ",":
                self.take()
        self.take()
        if opening == "{":
            return dict(zip(keys, values, strict=True))
        return tuple(values) if opening == "(" else values

    def name(self, taken: list[str]) -> str:
        if not self.token.isidentifier() or self.token in taken:
            raise self.wrong("a name that is new" if self.token in taken else "a name")
        name = self.take()
        self.take(":")
        return name

    def option(self, nested: bool) -> Option:
        """Up to the end, or within a container up to the comma or bracket that ends it."""
        end = _end_of_option(self.spec, self.at) if nested else len(self.spec)
        text = self.spec[self.at:end].strip()
        if not text:
            raise self.wrong("a value after '='")
        self.at = end
        try:
            return Option(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            return Option(text)

    def array(self) -> ArraySpec:
        start, written = self.at, self.take()
        dtype = SHORT.get(written, written)
        shape = self.shape()
        bounds = self.bounds()
        spec = ArraySpec(dtype, shape, bounds.get(">", -math.inf), bounds.get("<", math.inf))
        reason = _impossible(spec)
        if reason:
            raise BadSpec(self.spec, start + 1, reason)
        return spec

    def shape(self) -> tuple[int, ...]:
        self.take("[")
        sizes: list[int] = []
        while self.token != "]" or sizes:
            if not self.token.isdecimal():
                raise self.wrong("an axis size")
            sizes.append(int(self.take()))
            if self.token != ",":
                break
            self.take()
        self.take("]")
        return tuple(sizes)

    def bounds(self) -> dict[str, float]:
        bounds: dict[str, float] = {}
        while self.token in ("<", ">"):
            if self.token in bounds:
                raise self.wrong("one bound on each side")
            sign = self.take()
            if not NUMBER.fullmatch(self.token):
                raise self.wrong(f"a number after {sign!r} (bounds are strict)")
            bounds[sign] = float(self.take())
        return bounds


def _end_of_option(text: str, start: int) -> int:
    """The place of the first comma or closing bracket outside of the option's own brackets and quotes."""
    closing: list[str] = []
    quote = ""
    for at, character in enumerate(text[start:], start):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in CLOSING:
            closing.append(CLOSING[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif not closing and character in ",)]}":
            return at
    return len(text)


def _impossible(spec: ArraySpec) -> str:
    """Why no such array can be drawn, or nothing."""
    bounded = math.isfinite(spec.low) or math.isfinite(spec.high)
    if spec.dtype != "key" and jax.dtypes.canonicalize_dtype(DTYPES[spec.dtype]) != DTYPES[spec.dtype]:
        return f"{spec.dtype} needs 64-bit mode: add --x64"
    if bounded and spec.dtype not in {*FLOATING, *INTEGER}:
        return f"{spec.dtype} takes no bounds"
    if spec.low >= spec.high:
        return f"no number lies above {spec.low:g} and below {spec.high:g}"
    return _impossible_integers(spec) if spec.dtype in INTEGER else ""


def _impossible_integers(spec: ArraySpec) -> str:
    least, greatest = _integers(spec)
    holds = np.iinfo(DTYPES[spec.dtype])
    if least > greatest:
        advice = f": write both bounds, as in {spec.dtype}[8]>-9<9" if math.isinf(spec.low) else ""
        return f"no integer lies from {least} to {greatest}{advice}"
    if least < holds.min or greatest > holds.max:
        return f"{spec.dtype} holds {holds.min} to {holds.max}, not {least} to {greatest}"
    return ""
