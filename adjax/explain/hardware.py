"""What chips can do at best, and how they are joined: the numbers that a cost model divides by.

FLOP are floating point operations, bytes are bytes (not bits), times are seconds. GB are 10⁹ bytes, GiB 2³⁰.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

INNERMOST_FIRST = ("tensor", "sequence", "fsdp", "data")        # neighbours talk most


@dataclass(frozen=True)
class Hardware:
    """A chip, and its way to others. All rates are peaks: what is reached is less.

    A chip has a domain of chips that links join (a node of GPUs, a pod of TPUs), and a network beyond it.

    >>> from adjax import HARDWARE
    >>> HARDWARE["h100"].flops / HARDWARE["h100"].bandwidth         # FLOP a byte below which memory is the limit
    295.2238805970149
    """

    name: str
    flops: float            # FLOP/s of products of bfloat16 or float16, dense
    wide_flops: float       # FLOP/s of products of float32 at JAX's default precision
    bandwidth: float        # bytes/s, of its memory
    memory: float           # bytes
    link: float             # bytes/s that a chip sends within its domain, over all of its links
    domain: int             # chips
    network: float          # bytes/s that a chip sends beyond
    source: str = "given"   # of the numbers, in words

    def __post_init__(self) -> None:
        for name in ("flops", "wide_flops", "bandwidth", "memory", "link", "domain", "network"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"Hardware: {name} must be a positive number, got {getattr(self, name)!r}")


_TENSOR_CORE = "NVIDIA's {} data sheet: dense bfloat16 and TF32, memory, NVLink one way; a DGX's network, {} a GPU"
_TPU = "Google's TPU {} documentation; all links in one direction; products of float32 are rounded to bfloat16"

HARDWARE = {
    of.name: of
    for of in (
        Hardware("a100", 312e12, 156e12, 2.039e12, 80e9, 300e9, 8, 25e9, _TENSOR_CORE.format("A100 SXM", "200 Gbit/s")),
        Hardware("h100", 989e12, 494e12, 3.35e12, 80e9, 450e9, 8, 50e9, _TENSOR_CORE.format("H100 SXM", "400 Gbit/s")),
        Hardware("h200", 989e12, 494e12, 4.8e12, 141e9, 450e9, 8, 50e9, _TENSOR_CORE.format("H200 SXM", "400 Gbit/s")),
        Hardware("v5e", 197e12, 197e12, 819e9, 16e9, 200e9, 256, 25e9 / 8, _TPU.format("v5e")),
        Hardware("v5p", 459e12, 459e12, 2.765e12, 95 * 2.0**30, 600e9, 8960, 50e9 / 8, _TPU.format("v5p")),
        Hardware("v6e", 918e12, 918e12, 1.638e12, 32e9, 400e9, 256, 12.5e9, _TPU.format("v6e") + "; network guessed"),
    )
}


@dataclass(frozen=True)
class Degrees:
    """How many ways a training step is split.

    Attributes:
        data: examples; every part has all parameters.
        fsdp: examples, and parameters, gradients and optimizer state with them (ZeRO-3): gathered layer by layer.
        tensor: heads, features between and vocabulary.
        sequence: tokens of an example; keys and values of attention go round a ring.

    >>> Degrees(data=2, fsdp=4, tensor=8).chips
    64
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            degree = getattr(self, field.name)
            if not isinstance(degree, int) or degree < 1:
                raise ValueError(f"Degrees: {field.name} must be an integer of at least 1, got {degree!r}")

    @property
    def chips(self) -> int:
        """The product."""
        return self.of(INNERMOST_FIRST)

    def of(self, axes: Sequence[str]) -> int:
        """Chips along some axes.

        >>> Degrees(data=2, fsdp=4, tensor=8).of(["data", "fsdp"])
        8
        """
        return math.prod(getattr(self, axis) for axis in axes)

    def in_domain(self, axes: Sequence[str], domain: int) -> int:
        """Of the chips along some axes, how many one domain holds: axes are laid out `INNERMOST_FIRST`.

        >>> Degrees(fsdp=4, tensor=2).in_domain(["fsdp"], 4)        # pairs of `tensor`, two of them
        2
        """
        stride, held = 1, 1
        for axis in INNERMOST_FIRST:
            degree = getattr(self, axis)
            if axis in axes:
                held *= min(degree, max(1, domain // stride))
            stride *= degree
        return held


class Collective(NamedTuple):
    """What chips along some axes do together."""

    kind: str                       # "all-reduce", "all-gather", "reduce-scatter" or "collective-permute"
    axes: tuple[str, ...]
    bytes: float                    # an all-gather returns them, a chip of a permute sends them, others are given them

    def sent(self, degrees: Degrees) -> float:
        """Bytes that a chip sends: round a ring, the least that gathers and sums.

        >>> Collective("all-reduce", ("data",), 1000.0).sent(Degrees(data=4))
        1500.0
        """
        n = degrees.of(self.axes)
        return self.bytes * {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1}.get(self.kind, (n - 1) / n)

    def seconds(self, degrees: Degrees, hardware: Hardware) -> float:
        """Over links within a domain; beyond it, all chips of a group that share a domain share the way out."""
        held = degrees.in_domain(self.axes, hardware.domain)
        beyond = held < degrees.of(self.axes)
        rate = min(hardware.link, hardware.network * held) if beyond else hardware.link
        return self.sent(degrees) / rate
