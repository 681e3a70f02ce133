"""A prediction as text: one line for each pass of each layer, then memory and the step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .cost_layers import Layer, Pass
from .hardware import INNERMOST_FIRST
from .tables import Row, aligned

if TYPE_CHECKING:
    from .cost_model import Prediction

PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}


def written(of: Prediction) -> str:
    """In 80 columns; of one chip and a whole step, all blocks together, no collective hidden."""
    tables = aligned(list(_passes(of)), 2), aligned(list(_memory(of)), 1)
    return "\n\n".join(map("\n".join, (_introduction(of), *tables, _step(of))))


def in_brief(of: Prediction) -> str:
    """What is split how, and the step."""
    return "\n".join(_introduction(of)[:3] + _step(of))


def short(x: float, unit: str = "") -> str:
    """Three digits and a prefix of its unit.

    >>> short(0), short(67_108_864), short(0.01234, "s"), short(999.9, "B"), short(1.5, "s")
    ('0', '67.1 M', '12.3 ms', '1.00 kB', '1.50 s')
    """
    if not x:
        return f"0 {unit}".rstrip()
    rounded = float(f"{x:.2e}")
    power = min(max(PREFIXES), max(min(PREFIXES), 3 * math.floor(math.log10(rounded) / 3)))
    digits = rounded / 10.0**power
    return f"{digits:.{max(0, 2 - math.floor(math.log10(digits)))}f} {PREFIXES[power]}{unit}".rstrip()


def _introduction(of: Prediction) -> list[str]:
    decoder, degrees, chip = of.decoder, of.degrees, of.hardware
    kept = "each block's input" if decoder.remat else "all activations"
    peak, wide = (short(rate, "FLOP/s") for rate in (chip.flops, chip.wide_flops))
    moved, link, network = (short(rate, "B/s") for rate in (chip.bandwidth, chip.link, chip.network))
    memory = short(chip.memory, "B")
    split = ", ".join(f"{axis} {getattr(degrees, axis)}" for axis in reversed(INNERMOST_FIRST))
    return [
        f"{short(decoder.parameters)} parameters: {decoder.depth} blocks, width {decoder.width}, {decoder.heads} heads,"
        f" {decoder.between} between, {decoder.vocabulary} words",
        f"{decoder.batch} examples of {decoder.context} tokens a step, in {decoder.dtype}, keeping {kept}",
        f"{degrees.chips} chips: {split}",
        f"{chip.name}: {peak}, {wide} of float32, {memory} of memory at {moved},",
        f"  {link} to the {chip.domain} chips of its domain, {network} beyond,",
        f"  busy from {chip.flops / chip.bandwidth:.0f} FLOP a byte of memory on",
    ]


def _passes(of: Prediction) -> Iterator[Row]:
    *network, update = of.layers
    yield "one chip, one step", "", "FLOP", "moved B", "sent B", "FLOP/B", "bound", "time s"
    yield "forward", *[""] * 7
    yield from (_pass(of, layer, layer.forward) for layer in network)
    yield "backward", *[""] * 7
    yield from (_pass(of, layer, layer.backward) for layer in reversed(network))
    yield "update", *[""] * 7
    yield _pass(of, update, update.forward)


def _pass(of: Prediction, layer: Layer, one: Pass) -> Row:
    taken, n = of.times(one), layer.times
    sent = sum(collective.sent(of.degrees) for collective in one.collectives)
    intensity = f"{one.flops / one.bytes:.3g}" if one.flops < 1000 * one.bytes else f"{one.flops / one.bytes:.0f}"
    figures = short(n * one.flops), short(n * one.bytes), short(n * sent), intensity
    return f"  {layer.name}", f"{n} ×", *figures, taken.bound, short(n * taken.apart)


def _memory(of: Prediction) -> Iterator[Row]:
    yield "memory of one chip", "B"
    for name, bytes in of.memory._asdict().items():
        yield f"  {name}", short(bytes)
    yield "  in all", short(of.memory.total)


def _step(of: Prediction) -> list[str]:
    tokens, (high, low) = of.decoder.batch * of.decoder.context, of.utilization
    used, held = (short(bytes, "B") for bytes in (of.memory.total, of.hardware.memory))
    least, most = (short(seconds, "s") for seconds in of.seconds)
    many, few = (short(tokens / seconds) for seconds in of.seconds)
    return [
        f"memory  {used}, which {'fits into' if of.fits else 'does not fit into'} {held}",
        f"step    {least} if all collectives hide behind work, {most} if none does",
        f"        {many} to {few} tokens/s, {high:.0%} to {low:.0%} of the peak",
    ]
