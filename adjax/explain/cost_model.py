"""Predicts a training step of the decoder on given hardware: time and memory, layer by layer.

A layer takes the time of what limits it: max(FLOP / peak, bytes / bandwidth), the roofline (Williams et al., 2009), and
its collectives take the bytes that a chip sends over the bandwidth of the way. A step takes at least what it takes if
all collectives hide behind their own layer's work, and at most, at these rates, what it takes if none does:

    Σ max(FLOP / peak, bytes / bandwidth, sent / link)    to    Σ (max(FLOP / peak, bytes / bandwidth) + sent / link)

Real steps lie above: no chip runs at its peak. Latencies, launches and the input are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from .cost_layers import WIDE, Decoder, Layer, Pass, adamw, layers_of, sizes_of
from .cost_text import written
from .hardware import Degrees, Hardware


class Times(NamedTuple):
    """Seconds that a pass takes by what could limit it."""

    compute: float                      # FLOP / peak
    memory: float                       # bytes / bandwidth
    link: float                         # sent / link

    @property
    def hidden(self) -> float:
        """If its collectives run beside it."""
        return max(self)

    @property
    def apart(self) -> float:
        """If they run after it."""
        return max(self.compute, self.memory) + self.link

    @property
    def bound(self) -> str:
        """What limits it; nothing where there is nothing to do."""
        return max(self._fields, key=lambda name: getattr(self, name)) if self.hidden else ""


class Memory(NamedTuple):
    """Bytes on one chip at the worst moment."""

    parameters: float                   # float32
    optimizer: float                    # two moments, float32
    gradients: float                    # float32
    copy: float                         # of the parameters in the layers' dtype
    gathered: float                     # of two layers, this one and the next
    activations: float                  # kept for the backward pass
    working: float                      # operands and results of the largest layer

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


@dataclass(frozen=True)
class Prediction:
    """What a training step of a decoder takes, spread in given degrees over chips. Prints as a table.

    Attributes:
        layers: those of the network, one of its blocks standing for all, and `adamw`; all numbers are of one chip.
        memory: of one chip.

    >>> from adjax import HARDWARE
    >>> small = Decoder(128, 4, 4, 344, 90, context=256, batch=16, dtype="float32")
    >>> of = predict(small, Degrees(data=2), HARDWARE["a100"])
    >>> [layer.name for layer in of.layers][:3], of.fits
    (['embed', 'rms_norm', 'qkv'], True)
    """

    decoder: Decoder
    degrees: Degrees
    hardware: Hardware
    layers: tuple[Layer, ...]
    memory: Memory

    def __str__(self) -> str:
        return written(self)

    def times(self, of: Pass) -> Times:
        """Of a layer's pass, once.

        >>> of = predict(DECODERS["7b"], Degrees(fsdp=256), Hardware("slow link", 1e15, 5e14, 3e12, 80e9, 1e9, 8, 1e9))
        >>> of.times(of.layers[2].forward).bound
        'link'
        """
        peak = self.hardware.wide_flops if of.wide else self.hardware.flops
        sent = sum(collective.seconds(self.degrees, self.hardware) for collective in of.collectives)
        return Times(of.flops / peak, of.bytes / self.hardware.bandwidth, sent)

    @property
    def passes(self) -> list[tuple[int, Pass]]:
        """All of a step, with how often each runs."""
        return [(layer.times, of) for layer in self.layers for of in (layer.forward, layer.backward)]

    @property
    def flops(self) -> float:
        """FLOP of a step on one chip."""
        return sum(n * of.flops for n, of in self.passes)

    @property
    def sent(self) -> float:
        """Bytes that a chip sends in a step."""
        return sum(n * collective.sent(self.degrees) for n, of in self.passes for collective in of.collectives)

    @property
    def seconds(self) -> tuple[float, float]:
        """Of a step: with all collectives hidden, and with none."""
        times = [(n, self.times(of)) for n, of in self.passes]
        return sum(n * t.hidden for n, t in times), sum(n * t.apart for n, t in times)

    @property
    def utilization(self) -> tuple[float, float]:
        """Of the peak, by the FLOP that the network needs: without those of remat. At most, and at least."""
        needed = predict(replace(self.decoder, remat=False), self.degrees, self.hardware).flops
        most, least = (needed / seconds / self.hardware.flops for seconds in self.seconds)
        return most, least

    @property
    def fits(self) -> bool:
        """Whether a chip's memory holds it."""
        return self.memory.total <= self.hardware.memory


def predict(decoder: Decoder, degrees: Degrees, hardware: Hardware) -> Prediction:
    """Time and memory of a training step of a decoder, spread over chips.

    Args:
        decoder: its sizes and those of a step; `DECODERS` has some.
        degrees: how many ways data, fsdp, tensor and sequence are split; their product is the number of chips.
        hardware: rates and memory of a chip; `HARDWARE` has some. `dataclasses.replace` changes a number.

    Returns:
        A `Prediction`: `.seconds`, `.memory`, `.flops`, `.layers`. FLOP, bytes, seconds, of one chip.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an axis does not divide, or a number is out of its range.

    >>> from adjax import DECODERS, HARDWARE, Degrees
    >>> of = predict(DECODERS["7b"], Degrees(fsdp=256), HARDWARE["v5p"])
    >>> f"{of.decoder.parameters:.2e} parameters, {of.memory.parameters / 1e6:.0f} MB of them on a chip"
    '6.74e+09 parameters, 105 MB of them on a chip'
    >>> of.seconds[0] <= of.seconds[1], of.fits
    (True, True)
    """
    given = ("decoder", decoder, Decoder), ("degrees", degrees, Degrees), ("hardware", hardware, Hardware)
    for name, value, kind in given:
        if not isinstance(value, kind):
            raise TypeError(f"predict: {name} must be of type {kind.__name__}, got {type(value).__name__}")
    for name in ("depth", "bands", "loss_block"):
        if getattr(decoder, name) < 1:
            raise ValueError(f"predict: {name} must be at least 1, got {getattr(decoder, name)}")
    network, update = layers_of(decoder, degrees), adamw(decoder, degrees)
    return Prediction(decoder, degrees, hardware, (*network, update), _memory(network, decoder, degrees))


def _memory(network: list[Layer], decoder: Decoder, degrees: Degrees) -> Memory:
    of = sizes_of(decoder, degrees)
    entries = sum(layer.times * layer.parameters for layer in network) / degrees.fsdp
    blocks = sum(layer.times * layer.kept for layer in network if layer.in_block)
    others = sum(layer.times * layer.kept for layer in network if not layer.in_block)
    if decoder.remat:                                               # every input, and all of the block that runs again
        blocks = decoder.depth * of.c * of.n * of.d + blocks / decoder.depth
    return Memory(
        parameters=WIDE * entries,
        optimizer=2 * WIDE * entries,
        gradients=WIDE * entries,
        copy=of.c * entries if of.c < WIDE else 0,
        gathered=2 * of.c * max(layer.parameters for layer in network) if degrees.fsdp > 1 else 0,
        activations=blocks + others,
        working=max(layer.live or layer.backward.bytes for layer in network),
    )


# The published sizes of LLaMA (Touvron et al., 2023), whose 7 B were trained with 4 M tokens a step
DECODERS = {
    "7b": Decoder(4096, 32, 32, 11008, 32000),
    "13b": Decoder(5120, 40, 40, 13824, 32000),
    "33b": Decoder(6656, 60, 52, 17920, 32000),
    "65b": Decoder(8192, 80, 64, 22016, 32000),
}
