"""Where arrays lie: the devices of a run as a mesh, and layouts that name only the axes it has."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, reshard
from jax.sharding import PartitionSpec as P

from adjax.adjoint.cotangent import varying
from adjax.examples.parallel.options import Axes, MeshOptions, spelled
from adjax.examples.readers import BadOption

BATCH = "data", "fsdp"
TOKENS = *BATCH, "sequence"
DEVICE_FLAG = "--xla_force_host_platform_device_count"


class Placement(NamedTuple):
    """A mesh, and who lays arrays out over it."""

    mesh: Mesh
    mode: str

    @property
    def batch(self) -> tuple[str, ...]:
        """The axes over which examples are split."""
        return tuple(name for name in BATCH if name in self.mesh.shape)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The axes over which all that a loss is the mean of is split: examples, and what they are sequences of."""
        return tuple(name for name in TOKENS if name in self.mesh.shape)

    def size(self, *names: str) -> int:
        """The devices along some axes; 1 along one that the mesh has not."""
        return math.prod(self.mesh.shape.get(name, 1) for name in names)

    def spec(self, *entries: Any, without: Sequence[str] = ()) -> P:
        """A layout, of which only the axes that the mesh has are left."""
        return P(*(self._left(entry, without) for entry in entries))

    def _left(self, entry: Any, without: Sequence[str]) -> Any:
        names = (entry,) if isinstance(entry, str) else tuple(entry or ())
        left = tuple(name for name in names if name in self.mesh.shape and name not in without)
        return left[0] if len(left) == 1 else left or None

    def sharding(self, spec: P) -> NamedSharding:
        """The layout on this mesh."""
        return NamedSharding(self.mesh, spec)

    def batch_spec(self, examples: int) -> P:
        """The layout of so many examples: whole on every device where they do not divide."""
        return P() if examples % self.size(*self.batch) else self.spec(BATCH)

    def laid_out(self, x: Array, spec: P) -> Array:
        """The array with this layout, where the compiler or the types know of layouts."""
        if self.mode == "explicit":
            return reshard(x, self.sharding(spec))
        return lax.with_sharding_constraint(x, self.sharding(spec))


@functools.cache
def _mesh(axes: Axes, mode: str) -> Mesh:
    kind = AxisType.Explicit if mode == "explicit" else AxisType.Auto
    names, sizes = zip(*axes, strict=True)
    return jax.make_mesh(sizes, names, axis_types=(kind,) * len(axes), devices=jax.devices()[: math.prod(sizes)])


def placement(options: MeshOptions) -> Placement | None:
    """That of the options; None without a mesh.

    Raises:
        BadOption: there are not enough devices, or a process would have none.
    """
    if not options.mesh:
        return None
    needed, there = math.prod(count for _, count in options.mesh), jax.device_count()
    if needed > there:
        raise BadOption(
            f"--mesh: {spelled(options.mesh)} has {needed} devices, and there are {there}; "
            f"--devices {needed} simulates them on CPU"
        )
    if needed < there and jax.process_count() > 1:
        raise BadOption(f"--mesh: {spelled(options.mesh)} has {needed} devices, and all processes have {there}")
    return Placement(_mesh(options.mesh, options.mode), options.mode)


def entered(options: MeshOptions) -> AbstractContextManager[Any]:
    """The context in which arrays lie on the mesh of the options."""
    on = placement(options)
    return contextlib.nullcontext() if on is None else jax.set_mesh(on.mesh)


def put(options: MeshOptions, batch: Any) -> Any:
    """Arrays of examples, over the devices that split them."""
    on = placement(options)
    if on is None:
        return batch

    def split(x: Any) -> Array:
        return jax.make_array_from_callback(x.shape, on.sharding(on.batch_spec(len(x))), x.__getitem__)

    return jax.tree.map(split, batch)


def whole(options: MeshOptions, tree: Any) -> Any:
    """Arrays of the mesh as every process can read them; without a mesh as they are."""
    on = placement(options)
    return tree if on is None else jax.device_get(jax.device_put(tree, on.sharding(P())))


def simulate(devices: int | None) -> None:
    """Make CPU look like so many devices.

    Raises:
        BadOption: JAX already runs on another number.
    """
    if devices is None:
        return
    flags = os.environ.get("XLA_FLAGS", "").split()
    if any(flag.startswith(DEVICE_FLAG) for flag in flags):
        os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if not flag.startswith(DEVICE_FLAG))
    try:
        jax.config.update("jax_num_cpu_devices", devices)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:
        if jax.device_count() != devices:
            raise BadOption(f"--devices: JAX already runs on {jax.device_count()}, got {devices}") from None


def vary(x: Array, axes: Sequence[str]) -> Array:
    """In `shard_map`: the same value, as one that may differ from device to device along these axes."""
    missing = tuple(axis for axis in axes if axis not in varying(jax.typeof(x)))
    return lax.pcast(x, missing, to="varying") if missing else x
