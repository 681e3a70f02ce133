"""Contexts of several devices, simulated ones included: shard_map, jit with sharded inputs, explicit sharding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .certificate import Verdict
from .contexts import batch, judge, stacked
from .judge import Prover, Record
from .plain import pull, reason, reverse
from .probes import axis_sizes, dense
from .subject import Arrays, Leaf

DEVICES = 2
AXIS = "devices"


def mesh(kind: AxisType) -> jax.sharding.Mesh:
    """A mesh of two devices."""
    return jax.make_mesh((DEVICES,), (AXIS,), axis_types=(kind,), devices=jax.devices()[:DEVICES])


def _enough(record: Record) -> bool:
    if len(jax.devices()) < DEVICES:
        how = "jax_num_cpu_devices, or --devices on the command line, simulates them"
        record.set(Verdict.SKIPPED, f"needs {DEVICES} devices: {how}")
        return False
    return True


def shard_map(prover: Prover, record: Record) -> None:
    """One example a device under `check_vma=True`; each argument in turn is shared, its cotangent then a psum."""
    if not _enough(record):
        return
    positions = sorted({leaf.position for leaf in prover.subject.active})
    for shared in ((), *((p,) for p in positions if len(positions) > 1)):
        _one_example_a_device(prover, record, shared)


def _one_example_a_device(prover: Prover, record: Record, shared: tuple[int, ...]) -> None:
    s, stage = prover.subject, prover.sharp
    moving = tuple(leaf.position for leaf in s.active if leaf.position not in shared)
    b = batch(prover, moving, DEVICES)
    moves = [leaf.position in moving for leaf in s.active]
    split = PartitionSpec(AXIS)
    specs = tuple(split if m else PartitionSpec() for m in moves)
    axes = mesh(AxisType.Auto)

    def local(a: Arrays, p: Arrays, u: Arrays) -> tuple[Arrays, Arrays]:
        def one(*x: Any) -> Arrays:
            here = [z[0] if m else z for m, z in zip(moves, x, strict=True)]
            return tuple(y[None] for y in stage.form(here, p).floating)

        y, back = jax.vjp(one, *a)
        return y, pull(back, y, u)

    ups = tuple(split for _ in s.outputs)
    program = jax.shard_map(
        local, mesh=axes, in_specs=(specs, PartitionSpec(), ups), out_specs=(ups, specs), check_vma=True
    )
    active = tuple(np.stack([a[i] for a in b.active]) if m else prover.base[i] for i, m in enumerate(moves))
    operands = (stage.cast(s.active, active), prover.passive, stage.cast(s.outputs, stacked(b.u)))
    got = stage.run(stage.compiled(f"shard_map {shared}", program), *operands)
    want = tuple(np.stack(g) if m else np.sum(g, 0) for m, g in zip(moves, zip(*b.g, strict=True), strict=True))
    judge(prover, record, got, (stacked(b.y), want), b)


def placed(leaves: Sequence[Leaf], values: Sequence[Any], n: int, axes: jax.sharding.Mesh) -> Arrays:
    """Arrays whose first axis of size `n` is split over the mesh; the others on every device."""

    def put(leaf: Leaf, x: Any) -> Any:
        spec: list[str | None] = [None] * len(leaf.shape)
        if n in leaf.shape:
            spec[leaf.shape.index(n)] = AXIS
        return jax.device_put(x, NamedSharding(axes, PartitionSpec(*spec)))

    return tuple(put(leaf, x) for leaf, x in zip(leaves, values, strict=True))


def sharded_jit(prover: Prover, record: Record) -> None:
    """jit of arguments that are split over devices along each axis size that divides."""
    if not _enough(record):
        return
    s, stage = prover.subject, prover.sharp
    u = dense(s.outputs, prover.seed, "batch 0")
    one = prover.own(prover.base, prover.passive, u)
    axes = mesh(AxisType.Auto)
    program = stage.compiled("sharded", reverse(stage.form))
    for n in _divisible(s.active)[:2]:
        active, passive, cts = stage.operands(prover.base, prover.passive, u)
        with stage.precision():
            operands = (placed(s.active, active, n, axes), placed(s.passive, passive, n, axes), cts)
        y, g = stage.run(program, *operands)
        judge(prover, record, (y.floating, g), (one.y, one.g))
    if not record.checks:
        record.set(Verdict.SKIPPED, f"no axis is divisible by {DEVICES}")


def _divisible(leaves: Sequence[Leaf]) -> list[int]:
    """Axis sizes that divide; those that occur in one argument alone first, as a batch axis does."""
    sizes = [n for n in axis_sizes(leaves) if n % DEVICES == 0]
    return sorted(sizes, key=lambda n: sum(n in leaf.shape for leaf in leaves))


def explicit_sharding(prover: Prover, record: Record) -> None:
    """Layouts as part of the types: an axis of one argument is split, the first that plain JAX accepts."""
    if not _enough(record):
        return
    s, stage = prover.subject, prover.sharp
    u = dense(s.outputs, prover.seed, "batch 0")
    one = prover.own(prover.base, prover.passive, u)
    said = f"no axis of one argument alone is divisible by {DEVICES}"
    axes = mesh(AxisType.Explicit)
    typed: list[str] = []

    def program(a: Arrays, p: Arrays, u: Arrays) -> tuple[Arrays, Arrays]:
        y, back = jax.vjp(lambda *x: stage.form(x, p).floating, *a)
        g = pull(back, y, [jax.sharding.reshard(x, jax.typeof(v).sharding) for x, v in zip(u, y, strict=True)])
        typed[:] = [leaf.name for leaf, x, ct in zip(s.active, a, g, strict=True)
                    if jax.typeof(ct).sharding != jax.typeof(x).sharding]
        return y, g

    for n in _divisible(s.active):
        if sum(n in leaf.shape for leaf in s.active) != 1:
            continue
        with stage.precision(), jax.set_mesh(axes):
            active, passive, cts = stage.operands(prover.base, prover.passive, u)
            operands = placed(s.active, active, n, axes), placed(s.passive, passive, n, axes), cts
            try:
                jax.eval_shape(stage.plain_form, *operands[:2])
            except Exception as error:
                said = f"plain JAX refuses: {reason(error)}"
                continue
            y, g = stage.run(stage.compiled(f"explicit {n}", program), *operands)
        record.holds(not typed, ", ".join(typed), "the cotangent is laid out unlike its primal")
        judge(prover, record, (y, g), (one.y, one.g))
        return
    record.set(Verdict.UNSUPPORTED, said)
