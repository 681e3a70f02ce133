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
LOOP = re.compile(r'body=%?([\w.-]+).*"known_trip_count":\{"n":"(\d+)"\}')


class Collectives(NamedTuple):
    """By kind."""

    count: Counter
    bytes: Counter


def collectives(compiled, turns=False):
    """What is in the body of a loop counts once; with `turns` as often as that runs, but loops within it once."""
    count, size = Counter(), Counter()
    program = compiled.as_text()
    times = {body: int(n) for body, n in LOOP.findall(program)} if turns else {}
    for computation in program.split("\n\n"):
        often = times.get(computation.strip().split(" ", 1)[0].lstrip("%"), 1)
        for line in computation.splitlines():
            if found := OPERATION.search(line):
                count[found["kind"]] += often
                for _, bits, shape in RESULT.findall(found["results"]):
                    size[found["kind"]] += often * int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
    return Collectives(count, size)
