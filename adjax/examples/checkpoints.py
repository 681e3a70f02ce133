"""Checkpoints: what a training run needs to go on after it was killed, written by orbax while the run goes on.

A checkpoint is the folder DIR/STEP. It gets that name when everything in it is written, so a run killed while it saves
leaves the checkpoint before. Each process writes what its devices hold, and reads what they shall hold: the mesh and
the number of devices may change in between.

Beside the state lie the options it depends on, and a fingerprint. orbax finds files that are missing or cut off; what
it does not find, a changed bit in an array, the fingerprint does. For a leaf of elements x[i] it is

    Σ_i  h(bits(x[i]) xor c i)   modulo 2^32,      h a bijection of the numbers of 32 bits, MurmurHash3's last stage:

no change of a single element can hide behind a bijection, and a sum of integers is the same on every mesh.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jax.experimental import multihost_utils

from adjax.examples.readers import BadOption

State = TypeVar("State")

KEPT = 3                                # the last few checkpoints
UNFINISHED = "*.orbax-checkpoint-tmp*"
SAID = 200                              # characters of an error that is not the system's
UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}  # by the bytes of an element; 8 are two of 4


class NotSaved(OSError):
    """A run has ended, and its last state is in no checkpoint; the text says why, and which one is left."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: where they are. It is made, and in a run of several processes all of them see it.
        run: the options on which the state depends.
        every: the steps from one checkpoint to the next.
        say: hears which checkpoint the run goes on from, and of those that could not be written or read.

    Raises:
        BadOption: the directory holds checkpoints of another run.
        OSError: the directory cannot be made.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Checkpoints(folder, {"width": 3}, every=10) as checkpoints:
    ...     checkpoints.save(10, {"b": jnp.ones(3, "float32")})
    >>> Checkpoints(folder, {"width": 3}, every=10).latest({"b": jnp.zeros(3, "float32")})
    (10, {'b': Array([1., 1., 1.], dtype=float32)})
    >>> Checkpoints(folder, {"width": 4}, every=10)
    Traceback (most recent call last):
    adjax.examples.readers.BadOption: --checkpoint: ... holds a run with width 3, and this one has width 4
    """

    def __init__(
        self, directory: Path, run: Mapping[str, Any], *, every: int, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.directory, self.every = directory.absolute(), every
        self._run, self._say = dict(run), say
        self._begun, self._unsaved = 0, ""                                 # the step whose state is being written
        logging.getLogger("absl").setLevel(logging.CRITICAL)               # what orbax logs is said here, in a line
        self._manager = self._open()
        for step in self.steps():
            self._require_same_run(step)

    def steps(self) -> list[int]:
        """The steps after which the state was saved, the last one first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def due(self, step: int) -> bool:
        """Whether the state after so many steps is to be saved."""
        return step % self.every == 0

    def save(self, step: int, state: Any) -> None:
        """Begin to save the state, unless it is saved, and come back before that is done: the state may be donated."""
        self._finish()
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave({"state": state, "fingerprint": np.asarray(fingerprint(state))}),
            run=ocp.args.JsonSave(self._run),
        )
        try:
            self._manager.save(step, args=items, force=True)
            self._begun = step
        except Exception as error:
            self._give_up(step, error)

    def latest(self, like: State) -> tuple[int, State]:
        """The last state that can be read whole, and its step; `like` and 0 where there is none.

        `like` is a state of the same shapes, dtypes and shardings. What cannot be read is renamed, and not removed.
        """
        for step in self.steps():
            state, problem = self._read(step, like)
            if not problem:
                self._say(f"goes on after {step} steps, from {self.directory}")
                return step, state
            aside = self._put_aside(step)
            self._say(f"checkpoint {step} is damaged ({problem}); it is {aside.name} now, and the one before is used")
        return 0, like

    def read(self, step: int, like: State) -> State:
        """The state that was saved after so many steps.

        Raises:
            OSError: it is damaged.
        """
        self._finish()
        state, problem = self._read(step, like)
        if problem:
            raise OSError(f"checkpoint {step} is damaged ({problem})")
        return state

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
            NotSaved: the last state could not be written.
        """
        self._finish()
        self._manager.close()
        if self._unsaved:
            raise NotSaved(self._unsaved)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except NotSaved:
            if error is None:
                raise

    def _open(self) -> ocp.CheckpointManager:
        if jax.process_index() == 0:
            for unfinished in self.directory.glob(UNFINISHED):
                shutil.rmtree(unfinished, ignore_errors=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True)
        return ocp.CheckpointManager(self.directory, item_names=("state", "run"), options=options)

    def _finish(self) -> None:
        """Wait for the save that was begun, and say so if it failed."""
        try:
            self._manager.wait_until_finished()
            self._unsaved = "" if self._begun else self._unsaved
        except Exception as error:
            self._give_up(self._begun, error)
        self._begun = 0

    def _give_up(self, step: int, error: Exception) -> None:
        """Say that a state is not saved, and open the directory anew: that frees what was written of it."""
        self._manager = self._open()
        left = f"the last good checkpoint is {self.steps()[0]}" if self.steps() else "there is no checkpoint yet"
        self._unsaved = f"the state after {step} steps is not saved ({_reason(error)}); {left}"
        self._say(self._unsaved)

    def _require_same_run(self, step: int) -> None:
        try:
            theirs = ocp.JsonCheckpointHandler().restore(self.directory / str(step) / "run")
        except Exception:                                                  # damaged: `latest` will say so
            return
        for name in sorted(theirs.keys() | self._run.keys()):
            there, here = theirs.get(name, "not known"), self._run.get(name, "not known")
            if there != here:
                raise BadOption(
                    f"--checkpoint: {self.directory} holds a run with {name} {there}, and this one has {name} {here}"
                )

    def _read(self, step: int, like: State) -> tuple[State, str]:
        """A state and what is wrong with it: every process comes to the same result."""
        whole = {"state": like, "fingerprint": np.zeros(len(jax.tree.leaves(like)), np.uint32)}
        folder, problem = self.directory / str(step), ""
        try:
            if ocp.JsonCheckpointHandler().restore(folder / "run") != self._run:
                problem = "its options are not those of the run"
            read = ocp.StandardCheckpointHandler().restore(folder / "state", args=ocp.args.StandardRestore(whole))
        except MemoryError:
            raise
        except Exception as error:
            problem = _reason(error)
        if _any(bool(problem)):
            return like, problem or "another process could not read it"
        if not np.array_equal(fingerprint(read["state"]), read["fingerprint"]):
            return like, "its fingerprint is not that of what is in it"
        return read["state"], ""

    def _put_aside(self, step: int) -> Path:
        folder = self.directory / str(step)
        names = (self.directory / f"damaged-{step}{'-' * bool(n)}{n or ''}" for n in itertools.count())
        aside = next(name for name in names if not name.exists())
        multihost_utils.sync_global_devices(f"before {aside.name}")
        if jax.process_index() == 0:
            folder.rename(aside)
        multihost_utils.sync_global_devices(f"after {aside.name}")
        self._manager.reload()
        return aside


@jax.jit
def fingerprint(state: Any) -> Array:
    """A number for each leaf, (leaves,) uint32: the module says how it is made.

    >>> fingerprint({"W": jnp.ones((2, 3), "float32"), "b": jnp.zeros(3, "float32")})
    Array([1816477717, 3441930953], dtype=uint32)
    """
    return jnp.stack([_fingerprint(leaf) for leaf in jax.tree.leaves(state)])


def _fingerprint(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
    index = jnp.zeros(bits.shape, jnp.uint32)
    for axis, stride in enumerate(math.prod(bits.shape[axis + 1 :]) for axis in range(bits.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride % 2**32)
    h = bits ^ (index * jnp.uint32(0x9E3779B1))                            # 2^32 divided by the golden ratio
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(h ^ (h >> 16), dtype=jnp.uint32)


def _any(mine: bool) -> bool:
    """Whether it is so in any process."""
    return mine if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(mine)).any())


def _reason(error: Exception) -> str:
    """What went wrong, in a few words: the system's where the error carries them."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(code[1]) if code else error.errno if isinstance(error, OSError) else None
    if number:
        return os.strerror(number)
    text = " ".join(str(error).split(". See full")[0].split()) or type(error).__name__
    return text if len(text) <= SAID else text[: SAID - 3] + "..."
