"""The same rule under JAX's transformations. What it gives there must be what it gives by itself, piece by piece.

Each context is a program in which the function occurs transformed; the expected result is put together from single
calls of the rule outside of it. So a departure at the given point is not reported once more in every context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .certificate import Verdict
from .diagnosis import diagnose
from .judge import Prover, Record
from .plain import pull, reason, reverse
from .probes import Numbers, dense, nearby
from .subject import Arrays, Leaf

BATCH = 3


class Batch(NamedTuple):
    """Points side by side, and what the rule gives at each."""

    active: tuple[Numbers, ...]
    u: tuple[Numbers, ...]
    y: tuple[Numbers, ...]
    g: tuple[Numbers, ...]


def batch(prover: Prover, moving: Sequence[int], size: int = BATCH) -> Batch:
    """Near-by points in which the leaves of some arguments differ, each with its own cotangent."""
    s = prover.subject
    actives, us, ys, gs = [], [], [], []
    for b in range(size):
        moved = nearby(s.active, prover.base, prover.seed, b, prover.domain)
        moves = [bool(b) and leaf.position in moving for leaf in s.active]
        active = tuple(m if moves[i] else x for i, (m, x) in enumerate(zip(moved, prover.base, strict=True)))
        u = dense(s.outputs, prover.seed, f"batch {b}")
        one = prover.own(active, prover.passive, u)
        actives.append(active)
        us.append(u)
        ys.append(one.y)
        gs.append(one.g)
    return Batch(tuple(actives), tuple(us), tuple(ys), tuple(gs))


def stacked(several: Sequence[Numbers]) -> Numbers:
    """A leading axis over the points."""
    return tuple(np.stack(x) for x in zip(*several, strict=True))


def judge(
    prover: Prover,
    record: Record,
    got: tuple[Sequence[Any], Sequence[Any]],
    want: tuple[Numbers, Numbers],
    b: Batch | None = None,
) -> None:
    """Outputs and cotangents found in a context against those expected."""
    s = prover.subject
    for law, leaves, found, expected in zip(("forward", "adjoint"), (s.outputs, s.active), got, want, strict=True):
        record.law = law
        for e in record.see(prover.close(leaves, found, expected)):
            also = _also(b, leaves.index(e.leaf), e.want) if b and law == "adjoint" else {}
            record.blame(e, f"under {record.context}", diagnose(prover, e, also=also))
    record.law = "context"


def _also(b: Batch, i: int, want: np.ndarray) -> dict[str, np.ndarray]:
    """What a batching rule gets wrong: sums that are missing, means, one example for all."""
    each = np.stack([g[i] for g in b.g])
    found = {}
    if each[0].shape == want.shape:
        found["is the mean over the batch where the adjoint sums"] = each.mean(0)
        found["is the first example's cotangent alone: the sum over the batch is missing"] = each[0]
        found["is the last example's cotangent alone: the sum over the batch is missing"] = each[-1]
    elif each.shape == want.shape:
        found["is the sum over the batch for every example"] = np.broadcast_to(each.sum(0), want.shape)
        found["is the first example's cotangent for every example"] = np.broadcast_to(each[0], want.shape)
        found["is the last example's cotangent for every example"] = np.broadcast_to(each[-1], want.shape)
        found["is the examples' cotangents in reverse order"] = each[::-1]
    return found


def _cast(prover: Prover, values: Numbers, leaves: Sequence[Leaf]) -> Arrays:
    return prover.sharp.cast(leaves, values)


# Contexts: functions (prover, record) that fill the record, or raise what JAX raises

def eager(prover: Prover, record: Record) -> None:
    """Operation by operation, without jit."""
    s, stage = prover.subject, prover.sharp
    u = dense(s.outputs, prover.seed, "batch 0")
    active, passive, cts = stage.operands(prover.base, prover.passive, u)
    with stage.precision():
        y, back = jax.vjp(lambda *x: stage.form(x, passive).floating, *map(jnp.asarray, active))
        g = pull(back, y, tuple(map(jnp.asarray, cts)))
    one = prover.own(prover.base, prover.passive, u)
    judge(prover, record, (y, g), (one.y, one.g))


def jit(prover: Prover, record: Record) -> None:
    """jit outside of grad and inside of it."""
    stage = prover.sharp
    u = dense(prover.subject.outputs, prover.seed, "batch 0")
    program = stage.compiled("grad of jit", reverse(jax.jit(stage.form)))
    y, g = stage.run(program, *stage.operands(prover.base, prover.passive, u))
    one = prover.own(prover.base, prover.passive, u)
    judge(prover, record, (y.floating, g), (one.y, one.g))


def vmap_argument(position: int) -> Callable[[Prover, Record], None]:
    """A batch in one argument, the others shared: grad of vmap, whose shared cotangents are sums."""

    def context(prover: Prover, record: Record) -> None:
        _grad_of_vmap(prover, record, (position,))

    return context


def grad_of_vmap(prover: Prover, record: Record) -> None:
    """A batch in every argument."""
    _grad_of_vmap(prover, record, tuple({leaf.position for leaf in prover.subject.active}))


def _grad_of_vmap(prover: Prover, record: Record, moving: Sequence[int]) -> None:
    s, stage = prover.subject, prover.sharp
    b = batch(prover, moving)
    axes = tuple(0 if leaf.position in moving else None for leaf in s.active)
    active = tuple(
        np.stack([a[i] for a in b.active]) if axes[i] == 0 else prover.base[i] for i in range(len(s.active))
    )

    def program(a: Arrays, p: Arrays, u: Arrays) -> tuple[Arrays, Arrays]:
        mapped = jax.vmap(lambda x, p: stage.form(x, p).floating, (axes, None))
        y, back = jax.vjp(lambda *x: mapped(x, p), *a)
        return y, pull(back, y, u)

    operands = (_cast(prover, active, s.active), prover.passive, _cast(prover, stacked(b.u), s.outputs))
    got = stage.run(stage.compiled(f"grad of vmap {axes}", program), *operands)
    want = tuple(np.stack(g) if ax == 0 else np.sum(g, 0) for ax, g in zip(axes, zip(*b.g, strict=True), strict=True))
    judge(prover, record, got, (stacked(b.y), want), b)


def vmap_cotangents(prover: Prover, record: Record) -> None:
    """A batch of cotangents at one point, as jacrev makes it."""
    stage = prover.sharp
    b = batch(prover, ())

    def program(a: Arrays, p: Arrays, u: Arrays) -> tuple[Arrays, Arrays]:
        y, back = jax.vjp(lambda *x: stage.form(x, p).floating, *a)
        return y, jax.vmap(lambda u: pull(back, y, u))(u)

    s = prover.subject
    operands = (_cast(prover, prover.base, s.active), prover.passive, _cast(prover, stacked(b.u), s.outputs))
    y, g = stage.run(stage.compiled("vmap of cotangents", program), *operands)
    judge(prover, record, (y, g), (b.y[0], stacked(b.g)), b)


def vmap_of_grad(prover: Prover, record: Record) -> None:
    """Per-example cotangents, everything batched."""
    s, stage = prover.subject, prover.sharp
    b = batch(prover, tuple(range(100)))
    program = stage.compiled("vmap of grad", jax.vmap(reverse(stage.form), (0, None, 0)))
    operands = (_cast(prover, stacked(b.active), s.active), prover.passive, _cast(prover, stacked(b.u), s.outputs))
    y, g = stage.run(program, *operands)
    judge(prover, record, (y.floating, g), (stacked(b.y), stacked(b.g)), b)


def scan(prover: Prover, record: Record) -> None:
    """grad of a scan over a batch, the first argument shared by all steps where there are several."""
    s, stage = prover.subject, prover.sharp
    positions = sorted({leaf.position for leaf in s.active})
    moving = tuple(positions[1:]) or tuple(positions)
    b = batch(prover, moving)
    moves = [leaf.position in moving for leaf in s.active]

    def program(a: Arrays, p: Arrays, u: Arrays) -> tuple[Arrays, Arrays]:
        def over(*x: Any) -> Arrays:
            def step(carry: Any, one: Any) -> tuple[Any, Arrays]:
                some = iter(one)
                here = [next(some) if m else z for m, z in zip(moves, x, strict=True)]
                return carry, stage.form(here, p).floating

            return jax.lax.scan(step, None, [z for m, z in zip(moves, x, strict=True) if m])[1]

        y, back = jax.vjp(over, *a)
        return y, pull(back, y, u)

    active = tuple(np.stack([a[i] for a in b.active]) if m else prover.base[i] for i, m in enumerate(moves))
    operands = (_cast(prover, active, s.active), prover.passive, _cast(prover, stacked(b.u), s.outputs))
    got = stage.run(stage.compiled("scan", program), *operands)
    want = tuple(np.stack(g) if m else np.sum(g, 0) for m, g in zip(moves, zip(*b.g, strict=True), strict=True))
    judge(prover, record, got, (stacked(b.y), want), b)


def remat(prover: Prover, record: Record) -> None:
    """jax.checkpoint: the forward rule runs once more in the backward pass."""
    stage = prover.sharp
    u = dense(prover.subject.outputs, prover.seed, "batch 0")
    program = stage.compiled("remat", reverse(jax.checkpoint(stage.form)))
    y, g = stage.run(program, *stage.operands(prover.base, prover.passive, u))
    one = prover.own(prover.base, prover.passive, u)
    judge(prover, record, (y.floating, g), (one.y, one.g))


def contexts_of(prover: Prover) -> dict[str, Callable[[Prover, Record], None]]:
    """Every context by name."""
    from .devices import explicit_sharding, shard_map, sharded_jit

    s = prover.subject
    names = dict.fromkeys(leaf.position for leaf in s.active)
    found: dict[str, Callable[[Prover, Record], None]] = {"eager": eager, "jit": jit}
    for position in names:
        first = next(leaf.name for leaf in s.active if leaf.position == position)
        found[f"vmap {s.names[position]}" if s.names else f"vmap {first}"] = vmap_argument(position)
    found |= {"vmap cotangents": vmap_cotangents, "vmap of grad": vmap_of_grad, "grad of vmap": grad_of_vmap}
    found |= {"scan": scan, "remat": remat}
    return found | {"shard_map": shard_map, "sharded jit": sharded_jit, "explicit sharding": explicit_sharding}


def examine(prover: Prover, name: str, context: Callable[[Prover, Record], None]) -> Record:
    """Runs one context; what JAX refuses is unsupported, in its own words."""
    record = Record("context", name)
    try:
        context(prover, record)
    except Exception as error:
        record.set(Verdict.UNSUPPORTED, reason(error))
    return record
