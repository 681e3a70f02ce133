"""affine(params, X) in float32: one forward and backward pass, Y, then dW, db and dX from a random dY.

Axes: n examples, d features in, p features out. The floor is the three matrix products and nothing else.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from adjax import AffineParams, affine
from benchmarks.harness import (
    Bar,
    Contender,
    Entry,
    Options,
    Program,
    Row,
    Table,
    compile_timed,
    contest,
    copy_ceiling,
    forward_backward,
    gemm_ceiling,
    jax_contender,
    jax_contenders,
    normal,
    peer,
    temporaries_at_most,
    time_at_most,
    torch_contender,
)

SHAPES = ((512, 1024, 1024), (64, 4096, 4096), (4096, 64, 64), (8, 32, 32))
SMOKE_SHAPES = ((8, 32, 16),)
INSTRUCTIONS = ("dot", "copy", "transpose", "fusion")


def rows(options: Options) -> Iterator[Row]:
    """A contest for each shape, then the compiled programs of all shapes."""
    shapes = SMOKE_SHAPES if options.smoke else SHAPES
    for shape in shapes:
        yield Row("affine " + _label(shape), partial(contest_of, shape))
    yield Row("affine, compiled programs", partial(compare_programs, shapes))


def plain(params: AffineParams, X: jax.Array) -> jax.Array:
    """What autodiff gets to differentiate."""
    W, b = params
    return X @ W + b


def contest_of(shape: tuple[int, int, int], options: Options) -> Table:
    """Ours against autodiff, peers and the floor."""
    params, X, dY = problem(*shape)
    n, d, p = shape
    functions = {"adjax": affine, "plain autodiff": plain, "raw custom_vjp": affine.custom_vjp}
    table = contest(
        f"affine {_label(shape)} float32, forward + backward",
        [
            *jax_contenders(functions, (params, X), dY),
            peer("flax nnx.Linear", partial(flax_linear, params, X, dY)),
            peer("equinox nn.Linear", partial(equinox_linear, params, X, dY)),
            peer("PyTorch F.linear", partial(torch_linear, params, X, dY)),
            numpy_formulas(params, X, dY),
            three_products(params, X, dY),
        ],
        options,
        flops=6 * n * d * p,
        judged=["plain autodiff"],
        ceilings=[gemm_ceiling(n, d, p), copy_ceiling(1 if options.smoke else 64)],
    )
    bars = [time_at_most(table, "plain autodiff", 1.03), temporaries_at_most(table, "plain autodiff")]
    return table.with_bars(bars)


def problem(n: int, d: int, p: int) -> tuple[AffineParams, jax.Array, jax.Array]:
    """Random parameters, X[n d] and dY[n p]."""
    W, b, X, dY = normal((d, p), (p,), (n, d), (n, p))
    return AffineParams(W, b), X, dY


def flax_linear(params: AffineParams, X: jax.Array, dY: jax.Array) -> Contender:
    """flax.nnx.Linear, whose state has the leaves b, W."""
    from flax import nnx

    d, p = params.W.shape
    graph, state = nnx.split(nnx.Linear(d, p, rngs=nnx.Rngs(0)))
    state = jax.tree.unflatten(jax.tree.structure(state), [params.b, params.W])

    def view(result: Any) -> list[Any]:
        Y, db, dW, dX = jax.tree.leaves(result)
        return [Y, dW, db, dX]

    return jax_contender("flax nnx.Linear", lambda state, X: nnx.merge(graph, state)(X), (state, X), dY, view)


def equinox_linear(params: AffineParams, X: jax.Array, dY: jax.Array) -> Contender:
    """equinox.nn.Linear, mapped over the examples; its weight is Wᵀ[p d]."""
    import equinox

    d, p = params.W.shape
    layer = equinox.nn.Linear(d, p, key=jax.random.key(0))
    layer = equinox.tree_at(lambda layer: (layer.weight, layer.bias), layer, (params.W.T, params.b))
    return jax_contender("equinox nn.Linear", lambda layer, X: jax.vmap(layer)(X), (layer, X), dY, _transposed_weight)


def torch_linear(params: AffineParams, X: jax.Array, dY: jax.Array) -> Contender:
    """torch.nn.functional.linear on all cores; its weight is Wᵀ[p d]."""
    from torch.nn import functional

    f = lambda weight, b, X: functional.linear(X, weight, b)
    return torch_contender("PyTorch F.linear", f, (params.W.T, params.b, X), dY, _transposed_weight)


def _transposed_weight(result: Any) -> list[Any]:
    Y, dWeight, db, dX = jax.tree.leaves(result)
    return [Y, dWeight.T, db, dX]


def numpy_formulas(params: AffineParams, X: jax.Array, dY: jax.Array) -> Contender:
    """The three adjoints, written out in NumPy."""
    W, b, X, dY = (np.array(x) for x in (*params, X, dY))
    return Contender("NumPy, written out", lambda: (X @ W + b, X.T @ dY, dY.sum(axis=0), dY @ W.T))


def three_products(params: AffineParams, X: jax.Array, dY: jax.Array) -> Contender:
    """The floor: X W, Xᵀ dY and dY Wᵀ, no bias and no derivative taken."""
    products: Callable[..., Any] = lambda W, X, dY: (X @ W, X.T @ dY, dY @ W.T)
    inputs = (params.W, X, dY)
    program = compile_timed(products, *inputs)
    return Contender("three bare GEMMs", lambda: jax.block_until_ready(program.compiled(*inputs)), program, view=None)


def compare_programs(shapes: tuple[tuple[int, int, int], ...], options: Options) -> Table:
    """Ours and autodiff's optimized programs hold the same products, and ours no copy more."""
    entries, bars = [], []
    for shape in shapes:
        params, X, dY = problem(*shape)
        ours, theirs = (instructions(compile_timed(forward_backward(f), (params, X), dY)) for f in (affine, plain))
        entries += [Entry(f"adjax {_label(shape)}", ours), Entry(f"plain autodiff {_label(shape)}", theirs)]
        bars.append(Bar(f"products {_label(shape)}, as plain autodiff", ours["dot"], "==", theirs["dot"]))
        bars.append(Bar(f"copies {_label(shape)}, as plain autodiff", ours["copy"], "<=", theirs["copy"]))
    columns = (*((name, f"{{{name}:.0f}}") for name in INSTRUCTIONS), ("temp MB", "{temporaries_mb:.3f}"))
    return Table("affine, instructions in the compiled programs", columns, entries, bars=bars)


def instructions(program: Program) -> dict[str, float]:
    """How many products, copies, transposes and fusions a program holds, and its temporaries."""
    counts = program.instructions()
    return {name: counts[name] for name in INSTRUCTIONS} | {"temporaries_mb": (program.temporaries or 0) / 1e6}


def _label(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
