"""FLOP, bytes and collectives of each layer of the decoder, forward and backward, on one of the chips it is split over.

Axes, of what one chip has: n tokens, h heads of e features, t queries and s keys of an example, d features, f features
between, v words of the vocabulary; c bytes an entry.

- FLOP are those of the equations, counted as `explain` does: products 2 n d p forward and twice that backward,
  attention 2 products forward and 5 backward, the loss 3 in all; the rest so many for each entry. The tests hold each
  line below against the count of the layer itself.
- Bytes are those of operands and results, each moved once a pass: within a layer all is fused, between layers nothing
  stays on the chip. Scores of attention and logits of the loss are float32 and, as they stand between two products, go
  to memory and back (`SCORE_BYTES`, `LOGIT_BYTES`) unless the decoder says that a kernel keeps them on the chip.
- Collectives are those of `tensor` as Megatron-LM splits it (columns, then rows), of `sequence`, along which keys and
  values go round a ring, and of parameters: gathered over `fsdp` for each pass that reads them, their gradients summed.
  Sums are float32. The last chip of a ring has the most to do, and all wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .hardware import Collective, Degrees

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
WIDE = 4                                # bytes of float32
SCORE_BYTES = 5 * WIDE, 12 * WIDE       # forward: S out, in twice, P out, in; backward: S, A, dA, dS likewise
MEAN_BYTES = 5 * WIDE                   # S out, in, dA out, A and dA in
LOGIT_BYTES = 7 * WIDE                  # Z out, in three times, dZ out, in twice
ADAMW_FLOPS = 25                        # a parameter: moments, update, decay, clipping
ADAMW_BYTES = 8 * WIDE                  # gradient in twice; parameter and both moments in and out


@dataclass(frozen=True)
class Decoder:
    """The decoder of `python -m adjax train text`, and a training step of it.

    Parameters, gradients and AdamW's two moments are float32, and layers run on a copy of the parameters in `dtype`.

    >>> Decoder(width=128, depth=4, heads=4, between=344, vocabulary=90).parameters
    814720
    """

    width: int                          # d
    depth: int                          # blocks
    heads: int                          # h
    between: int                        # f
    vocabulary: int                     # v
    context: int = 2048                 # t, tokens of an example
    batch: int = 2048                   # b, examples of a step, of all chips together
    dtype: str = "bfloat16"             # of the layers
    remat: bool = False                 # keep each block's input only, and run it again backwards
    fused: bool = False                 # kernels keep scores and logits on the chip
    bands: int = 4                      # runs of queries of attention that skip the keys behind their last one
    loss_block: int = 2**25             # bytes of logits that a chip computes at a time

    @property
    def parameters(self) -> int:
        """Entries of all parameters."""
        d, f = self.width, self.between
        return self.depth * (4 * d * d + 3 * d * f + 2 * d) + 2 * self.vocabulary * d + d


class Pass(NamedTuple):
    """A layer once forward or once backward, on one chip."""

    flops: float = 0
    bytes: float = 0                            # to and from memory
    collectives: tuple[Collective, ...] = ()
    wide: bool = False                          # products of float32

    def plus(self, other: Pass) -> Pass:
        """Both, one after the other."""
        both = self.collectives + other.collectives
        return Pass(self.flops + other.flops, self.bytes + other.bytes, both, self.wide or other.wide)


class Layer(NamedTuple):
    """A layer on one chip."""

    name: str
    times: int                          # a step
    forward: Pass
    backward: Pass
    kept: float = 0                     # bytes, from the forward to the backward pass
    parameters: float = 0               # entries, gathered over fsdp
    in_block: bool = False              # one of the layers that every block has
    recomputed: bool = False            # with remat
    gathered: int = 2                   # times a step its parameters are, over fsdp: for which passes
    live: float = 0                     # bytes of operands and results at once, where not those of the backward pass


class Sizes(NamedTuple):
    """What one chip has; the axes are those of the module."""

    n: int                              # tokens
    h: int                              # heads
    e: int                              # features of a head
    t: int                              # queries of an example
    s: int                              # keys of an example
    d: int                              # features
    f: int                              # features between
    v: int                              # words
    c: int                              # bytes an entry


def sizes_of(decoder: Decoder, degrees: Degrees) -> Sizes:
    """What one chip has.

    Raises:
        ValueError: an axis does not divide.
    """
    if decoder.dtype not in ITEMSIZE:
        raise ValueError(f"predict: dtype must be one of {', '.join(ITEMSIZE)}, got {decoder.dtype!r}")

    def part(axis: str, size: int, *names: str) -> int:
        ways = degrees.of(names)
        if size < 1 or size % ways:
            raise ValueError(f"predict: {size} {axis} do not divide into {' × '.join(names)} = {ways} equal parts")
        return size // ways

    examples, tokens = part("examples", decoder.batch, "data", "fsdp"), part("tokens", decoder.context, "sequence")
    heads, between = part("heads", decoder.heads, "tensor"), part("features between", decoder.between, "tensor")
    words = part("words of the vocabulary", decoder.vocabulary, "tensor")
    if decoder.width < 1 or decoder.width % (2 * decoder.heads):
        raise ValueError(f"predict: a width of {decoder.width} has no {decoder.heads} heads of equal, even width")
    part("parameters of a norm", decoder.width, "fsdp")
    e, c = decoder.width // decoder.heads, ITEMSIZE[decoder.dtype]
    return Sizes(examples * tokens, heads, e, tokens, decoder.context, decoder.width, between, words, c)


def layers_of(decoder: Decoder, degrees: Degrees) -> list[Layer]:
    """Those of the network in their order, one of its blocks standing for all."""
    of, m, d = sizes_of(decoder, degrees), degrees.tensor, decoder.width
    own = of.h * of.e                                               # features of a chip's heads
    norm = _rms_norm(of)
    block = [
        norm._replace(times=2, recomputed=True),
        _affine("qkv", of, d, 3 * own, backward=_summed(m, of.n * d)),
        _rotary(of),
        _attention(of, decoder) if degrees.sequence == 1 else _ring_attention(of, decoder, degrees.sequence),
        _affine("mixed", of, own, d, forward=_summed(m, of.n * d)),
        _affine("gate_up", of, d, 2 * of.f, backward=_summed(m, of.n * d)),
        _swiglu(of),
        _affine("down", of, of.f, d, forward=_summed(m, of.n * d))._replace(recomputed=False),
        *_sums(of),
    ]
    blocks = [layer._replace(times=layer.times * decoder.depth, in_block=True) for layer in block]
    network = [_embed(of, m), *blocks, norm._replace(name="last rms_norm"), _loss(of, decoder, degrees)]
    return [_trained(layer, of.c, decoder, degrees) for layer in network]


def adamw(decoder: Decoder, degrees: Degrees) -> Layer:
    """The update of the parameters that a chip has, and the copy of them in the layers' dtype."""
    entries = sum(layer.parameters * layer.times for layer in layers_of(decoder, degrees)) / degrees.fsdp
    c = ITEMSIZE[decoder.dtype]
    cast = WIDE + c if c < WIDE else 0
    return Layer("adamw", 1, Pass(ADAMW_FLOPS * entries, (ADAMW_BYTES + cast) * entries), Pass())


# Layer by layer

def _embed(of: Sizes, m: int) -> Layer:
    rows, table = of.n * of.d, of.v * of.d
    summed = _collectives("all-reduce", m, of.c * rows)             # each chip has the rows of its words
    forward = Pass(0, WIDE * of.n + 2 * of.c * rows, summed)
    return Layer("embed", 1, forward, Pass(rows, of.c * rows + WIDE * table), WIDE * of.n, table, gathered=1)


def _rms_norm(of: Sizes) -> Layer:
    x = of.n * of.d
    forward, backward = Pass(4 * x + 3 * of.n, 2 * of.c * x), Pass(9 * x + 3 * of.n, 3 * of.c * x)
    return Layer("rms_norm", 1, forward, backward, of.c * x + WIDE * of.n, of.d)


def _affine(name: str, of: Sizes, d: int, p: int, forward: tuple[Collective, ...] = (),
            backward: tuple[Collective, ...] = ()) -> Layer:  # fmt: skip
    x, y, W = of.n * d, of.n * p, d * p
    wide = of.c == WIDE
    there = Pass(2 * of.n * W, of.c * (x + W + y), forward, wide)                       # Y = X W
    back = Pass(4 * of.n * W, of.c * (2 * y + W + 2 * x) + WIDE * W, backward, wide)    # dX = dY Wᵀ, dW = Xᵀ dY
    return Layer(name, 1, there, back, of.c * x, W, recomputed=True)


def _rotary(of: Sizes) -> Layer:
    x, table = 2 * of.n * of.h * of.e, of.t * of.e                  # q and k, and a table for each
    forward, backward = Pass(3 * x + 3 * table, 2 * of.c * x), Pass(3 * x + 4 * table, 2 * of.c * x)
    return Layer("rotary", 1, forward, backward, WIDE * of.t, recomputed=True)          # positions, of both


def _attention(of: Sizes, decoder: Decoder) -> Layer:
    """A band of queries ends at the last key that it sees."""
    x, rows, seen = of.n * of.h * of.e, of.n * of.h, (decoder.bands + 1) / (2 * decoder.bands)
    scores = rows * of.t * seen
    moved = (0, 0) if decoder.fused else SCORE_BYTES
    forward = Pass(4 * scores * of.e + 6 * scores + x + 3 * rows, 4 * of.c * x + moved[0] * scores, (),
                   True)                                                                # S = Q Kᵀ, O = A V
    added = 2 * decoder.bands * seen * x                            # each band adds to dK and dV
    backward = Pass(10 * scores * of.e + 10 * scores + added + rows, 7 * of.c * x + moved[1] * scores, (),
                    True)                                                               # S, dA, dQ, dK, dV
    return Layer("attention", 1, forward, backward, of.c * 3 * x + 2 * WIDE * rows, recomputed=True, live=7 * of.c * x)


def _ring_attention(of: Sizes, decoder: Decoder, n: int) -> Layer:
    """Of the last of n chips: its own block, and then all others, which it sees whole. Backward they come twice."""
    own, x, rows = _attention(of, decoder), of.n * of.h * of.e, of.n * of.h
    scores, visits = rows * of.t, n - 1
    mean, there, back = (0, 0, 0) if decoder.fused else (MEAN_BYTES, *SCORE_BYTES)
    seen = scores * (decoder.bands + 1) / (2 * decoder.bands)       # of its own block
    shift = _collectives("collective-permute", n, 2 * of.c * x * visits, "sequence")    # of K and V
    home = _collectives("collective-permute", n, 2 * WIDE * x * n, "sequence")          # of dK and dV
    merged = 3 * x + 10 * rows                                      # a visit's O and rows with those before
    forward = Pass(visits * (4 * scores * of.e + 6 * scores + x + 3 * rows + merged),
                   visits * (4 * of.c * x + there * scores), shift, True)               # S, O
    means = Pass((seen + visits * scores) * (4 * of.e + 8), n * 4 * of.c * x + mean * (seen + visits * scores), shift,
                 True)                                                                  # S, dA
    backward = Pass(visits * (10 * scores * of.e + 8 * scores + 3 * x), visits * (7 * of.c * x + 4 * WIDE * x
                    + back * scores), shift + home, True)                               # S, dA, dQ, dK, dV
    live = 8 * of.c * x + 5 * WIDE * x                              # with guests, and dQ, dK, dV, two on their way
    return own._replace(forward=own.forward.plus(forward), backward=own.backward.plus(means).plus(backward), live=live)


def _swiglu(of: Sizes) -> Layer:
    x = of.n * of.f
    forward, backward = Pass(3 * x, 3 * of.c * x), Pass(12 * x, 5 * of.c * x)
    return Layer("swiglu", 1, forward, backward, 2 * of.c * x, recomputed=True)


def _sums(of: Sizes) -> Iterator[Layer]:
    """x + mixed and x + down, and of their cotangents; with remat only the first is needed again."""
    once = Pass(of.n * of.d, 3 * of.c * of.n * of.d)
    yield Layer("x + mixed", 1, once, once, recomputed=True)
    yield Layer("x + down", 1, once, once)


def _loss(of: Sizes, decoder: Decoder, degrees: Degrees) -> Layer:
    """Its gradients are computed forward, a block of rows at a time, and kept: backward they are scaled."""
    logits, W, x, m = of.n * of.v, of.d * of.v, of.n * of.d, degrees.tensor
    blocks = -(-of.n // max(128, decoder.loss_block // (WIDE * of.v)))
    weights = 4 * WIDE * W * blocks                                 # W in twice, the sum of dW in and out
    moved = 0 if decoder.fused else LOGIT_BYTES * logits
    statistics = _summed(m, of.n) + _summed(m, 2 * of.n) + _summed(m, x)               # maximum, sums, dX
    loss = _collectives("all-reduce", degrees.of(TOKENS), WIDE, *TOKENS)
    forward = Pass(6 * logits * of.d + 9 * logits + W + 14 * of.n, 2 * of.c * x + weights + moved, statistics + loss,
                   True)  # fmt: skip
    backward = Pass(x + W, of.c * (2 * x + W) + WIDE * W)
    live = 2 * of.c * x + WIDE * W + 3 * min(decoder.loss_block, WIDE * logits)
    return Layer("linear_cross_entropy", 1, forward, backward, of.c * (x + W), W, gathered=1, live=live)


# Collectives

TOKENS = ("data", "fsdp", "sequence")           # the axes that split tokens


def _collectives(kind: str, ways: int, bytes: float, *axes: str) -> tuple[Collective, ...]:
    """One, or none where there is nobody to talk to."""
    return (Collective(kind, axes or ("tensor",), bytes),) if ways > 1 else ()


def _summed(m: int, entries: float) -> tuple[Collective, ...]:
    return _collectives("all-reduce", m, WIDE * entries)


def _trained(layer: Layer, c: int, decoder: Decoder, degrees: Degrees) -> Layer:
    """With what its parameters send, and what remat runs again."""
    back = layer.backward
    if decoder.remat and layer.recomputed:
        back = layer.forward.plus(back)
    split, whole = degrees.fsdp, ("data", "sequence")
    gathered = _collectives("all-gather", split, c * layer.parameters, "fsdp")
    scattered = _collectives("reduce-scatter", split, WIDE * layer.parameters, "fsdp")
    summed = _collectives("all-reduce", degrees.of(whole), WIDE * layer.parameters / split, *whole)
    if not layer.parameters:
        return layer._replace(backward=back)
    return layer._replace(
        forward=layer.forward.plus(Pass(collectives=gathered)),
        backward=back.plus(Pass(collectives=gathered * (layer.gathered - 1) + scattered + summed)),
    )
