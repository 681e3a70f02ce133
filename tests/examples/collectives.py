"""What a compiled program says to other devices, read from its text: how often, and how many bytes a device gets."""

import math
import re
from collections import Counter
from typing import NamedTuple

OPERATION = re.compile(
    r"= (?P<results>\(.*?\)|\S+) "
    r"(?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start)?\("
)
RESULT = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")


class Collectives(NamedTuple):
    """By kind; what is in the body of a loop counts once."""

    count: Counter
    bytes: Counter


def collectives(compiled):
    count, size = Counter(), Counter()
    for line in compiled.as_text().splitlines():
        if found := OPERATION.search(line):
            kind = found["kind"]
            count[kind] += 1
            for _, bits, shape in RESULT.findall(found["results"]):
                size[kind] += int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
    return Collectives(count, size)
