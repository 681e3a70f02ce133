"""What a deep network costs before its first step: trace, lower and compile one value_and_grad of it.

An MLP, whose layers stand in a Python loop, as most users write them, so every layer is traced by itself; and the
decoder of `python -m adjax train text`, its blocks in a scan and in a loop. Each trial builds new functions, of the MLP
a new ``any_mode`` too, with JAX's caches emptied: the cost of a fresh process.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from adjax import AffineParams, affine, any_mode
from adjax.examples.text.decoder import SPELLED, Layers, Params, init, loss, run_block
from adjax.examples.text.options import Options as TextOptions
from adjax.examples.text.plain import PLAIN
from benchmarks.harness import (
    Bar,
    Entry,
    Options,
    Program,
    Row,
    Table,
    alternate,
    compile_timed,
    normal,
    paired_ratio,
    spread,
)

DEPTH, SMOKE_DEPTH, MOST_TRIALS = 24, 2, 9
WIDTH, HEADS, CONTEXT, CHARACTERS = 64, 2, 256, 90
STAGES = ("trace_ms", "lower_ms", "compile_ms", "total_ms")
COLUMNS = (
    *((stage.replace("_", " "), f"{{{stage}:.1f}}") for stage in STAGES),
    ("trace / ours", "{trace_ratio:.3f}"),
    ("total / ours", "{total_ratio:.3f}"),
    ("quartiles", "{total_ratio_low:.3f}-{total_ratio_high:.3f}"),
)

Layer = Callable[[AffineParams, jax.Array], jax.Array]


def rows(options: Options) -> Iterator[Row]:
    """Layers all alike, which a cache by shape serves, and layers all different, which it does not."""
    depth = SMOKE_DEPTH if options.smoke else DEPTH
    yield Row(f"{depth}-layer MLP, equal widths", partial(measure, "equal widths", [32] * (depth + 1)))
    yield Row(
        f"{depth}-layer MLP, all widths different", partial(measure, "all widths different", range(16, 17 + depth))
    )
    yield Row(f"{depth}-block decoder, scanned", partial(measure_decoder, depth, True, 1.3))
    yield Row(f"{depth}-block decoder, Python loop", partial(measure_decoder, depth, False, 1.5))


def spelled() -> Layer:
    """affine, built anew from its parts."""
    rule = jax.custom_vjp(affine.fun)
    rule.defvjp(affine.fwd, affine.bwd)
    return any_mode(rule)


def plain() -> Layer:
    """What autodiff gets to differentiate."""
    return lambda params, X: X @ params.W + params.b


def parameters(widths: Sequence[int]) -> list[AffineParams]:
    """Random W[d p] and b[p] of one layer after another."""
    return [AffineParams(*normal((d, p), (p,))) for d, p in itertools.pairwise(widths)]


def value_and_grad(layer: Layer) -> Callable[..., Any]:
    """(layers, X) ↦ the mean square of a tanh MLP, and its gradient."""

    def loss(layers: list[AffineParams], X: jax.Array) -> jax.Array:
        for params in layers:
            X = jnp.tanh(layer(params, X))
        return jnp.mean(X**2)

    return jax.value_and_grad(loss)


def measure(label: str, widths: Sequence[int], options: Options) -> Table:
    """Ours and autodiff's stages, by turns; medians and ratios of the trials."""
    layers, (X,) = parameters(widths), normal((8, widths[0]))
    builders = {"adjax": spelled, "plain autodiff": plain}
    trials = {
        name: lambda build=build: compile_timed(value_and_grad(build()), layers, X) for name, build in builders.items()
    }
    return compare(f"{len(widths) - 1}-layer MLP in a Python loop, {label}", trials, 1.5, options)


def decoder(layers: Layers, depth: int, scanned: bool) -> Callable[..., Any]:
    """(parameters, characters) ↦ the loss of the text decoder, and its gradient."""

    def looped(params: Params, ids: jax.Array) -> jax.Array:
        x = layers.embed(params.table, ids[:, :-1])
        for i in range(depth):
            x = run_block(jax.tree.map(lambda p, i=i: p[i], params.blocks), x, layers, WIDTH // HEADS)
        return layers.linear_cross_entropy(params.characters, layers.rms_norm(params.norm, x), ids[:, 1:])

    scan = lambda params, ids: loss(params, ids, layers, heads=HEADS, dtype="float32")
    return jax.value_and_grad(scan if scanned else looped)


def measure_decoder(depth: int, scanned: bool, most: float, options: Options) -> Table:
    """The same of the text decoder."""
    params = init(jax.random.key(0), TextOptions(width=WIDTH, depth=depth, heads=HEADS), CHARACTERS)
    ids = jnp.zeros((1, CONTEXT + 1), jnp.int32)
    trials = {
        name: lambda layers=layers: compile_timed(decoder(layers, depth, scanned), params, ids)
        for name, layers in (("adjax", SPELLED), ("plain autodiff", PLAIN))
    }
    where = "scanned" if scanned else "in a Python loop"
    return compare(f"decoder of {depth} blocks {where}, {CONTEXT} characters", trials, most, options)


def compare(what: str, trials: dict[str, Callable[[], Program]], most: float, options: Options) -> Table:
    """The stages of both, by turns; ours may take `most` times as long in all."""
    rounds = options.rounds[0], min(options.rounds[1], MOST_TRIALS)
    programs = alternate(trials, seconds=options.seconds, rounds=rounds, seed=options.seed)
    entries = [Entry(name, _measures(programs[name], programs["adjax"])) for name in trials]
    ratio = paired_ratio(*([p.total_ms for p in programs[name]] for name in trials))
    bar = f"compile, {what}: adjax / plain autodiff"
    return Table(
        f"{what}: value_and_grad, traced, lowered, compiled",
        COLUMNS,
        entries,
        bars=[Bar(bar, ratio.median, "<=", most, reason=options.untimed, interval=ratio.interval)],
        notes=[f"trials: {len(programs['adjax'])}, new functions and empty caches in each"],
        untimed=options.untimed,
    )


def _measures(theirs: list[Program], ours: list[Program]) -> dict[str, float]:
    medians = {stage: spread([getattr(program, stage) for program in theirs]).median for stage in STAGES}
    trace = paired_ratio([p.trace_ms for p in theirs], [p.trace_ms for p in ours])
    total = paired_ratio([p.total_ms for p in theirs], [p.total_ms for p in ours])
    return medians | {
        "trace_ratio": trace.median,
        "total_ratio": total.median,
        "total_ratio_low": total.low,
        "total_ratio_high": total.high,
    }
