"""Kill a training run at random moments, start it again each time, and compare its parameters bit by bit.

    python tools/crash.py                       20 times SIGKILL
    python tools/crash.py --kills 3 --seed 1    three times, at other moments

The run trains the network of `python -m adjax train text`, a tiny one, and saves its state after every step, so most
moments are in the middle of a save. What a kill leaves is looked at: `unfinished` counts those that left a checkpoint
half written. A run that gets to its end is compared and begun anew. Exit status: 0 if every end is the one of a run
that nothing interrupted, to the last bit; 1 if not.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

STEPS = 40
LIMIT_S = 120  # for one start of the run
STEP_S = (0.0, 0.6)  # after its first new step a run is killed within these seconds
COMPILED_ONCE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0, "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1}


class Outcome(NamedTuple):
    """What came of a series of kills."""

    kills: int
    unfinished: int  # kills that left a checkpoint half written
    ends: list[str]  # the digests of the parameters where the run got to its end
    expected: str  # that of the run that nothing interrupted

    @property
    def same(self) -> bool:
        """Whether every end is the expected one."""
        return bool(self.ends) and set(self.ends) == {self.expected}


def crash(kills: int, seed: int, folder: Path, steps: int = STEPS) -> Outcome:
    """Kill the run so many times, then let it come to its end."""
    moments = random.Random(seed)
    expected = start(folder / "whole", steps)
    assert expected is not None, "the run that nothing interrupts did not come to its end"
    checkpoints, unfinished, done, ends = folder / "killed", 0, 0, []
    while done < kills:
        end = start(checkpoints, steps, moments.uniform(*STEP_S))
        if end is not None:
            ends.append(end)
            shutil.rmtree(checkpoints)
            continue
        done += 1
        unfinished += any(checkpoints.glob("*tmp*"))
    end = start(checkpoints, steps)
    return Outcome(done, unfinished, [*ends, end or "none"], expected)


def start(checkpoints: Path, steps: int, kill_after: float | None = None) -> str | None:
    """Start the run, kill it so many seconds after its first new step; the digest if it came to its end."""
    command = [sys.executable, __file__, "--run", str(checkpoints), "--steps", str(steps)]
    environment = os.environ | {name: str(value) for name, value in COMPILED_ONCE.items()}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(checkpoints.parent / "compiled")
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        try:
            process.stdout.readline()
            if kill_after is not None:
                time.sleep(kill_after)
                process.kill()
            lines = process.stdout.read().splitlines()
        finally:
            process.kill()
            limit.cancel()
    return next((line.removeprefix("end ") for line in lines if line.startswith("end ")), None)


def run(checkpoints: Path, steps: int) -> None:
    """The run: a line for each step, and at the end one with the digest of the parameters."""
    import jax
    import numpy as np

    from adjax.examples.text import data, options, resume

    tiny = options.Options(steps=steps, width=8, depth=1, heads=1, context=8, batch=4)
    tiny = tiny._replace(checkpoint=checkpoints, checkpoint_every=1)
    report = lambda at: print("step", at.step, flush=True)
    params = resume.train(tiny, data.load(tiny), report, lambda: False).params
    digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)))
    print("end", digest.hexdigest(), flush=True)


def main() -> int:
    """Parse and run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how many times (default 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (default 0)")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"of the run (default {STEPS})")
    parser.add_argument("--run", type=Path, metavar="DIR", help="be the run that is killed, with checkpoints in DIR")
    given = parser.parse_args()
    if given.run:
        run(given.run, given.steps)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        outcome = crash(given.kills, given.seed, Path(folder), given.steps)
    print(f"{outcome.kills} kills, of them {outcome.unfinished} left a checkpoint unfinished")
    print(f"{len(outcome.ends)} ends, {'all the same bits' if outcome.same else 'NOT the same bits'} as uninterrupted")
    return 0 if outcome.same else 1


if __name__ == "__main__":
    sys.exit(main())
