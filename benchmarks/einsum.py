"""einsum(spec, *operands) in float32: one forward and backward pass, Y and the cotangents of all operands.

Plain autodiff differentiates jnp.einsum, PyTorch torch.einsum. The FLOPs are those of the products alone: for each pair
on the path one forward and two backward.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from adjax import einsum
from benchmarks.harness import (
    Contender,
    Options,
    Row,
    Table,
    contest,
    copy_ceiling,
    gemm_ceiling,
    jax_contenders,
    normal,
    peer,
    temporaries_at_most,
    time_at_most,
    torch_contender,
)

Shape = tuple[int, ...]
WORK: dict[str, tuple[str, tuple[Shape, ...], float]] = {
    "product": ("nd,dp->np", ((512, 1024), (1024, 1024)), 2 * 512 * 1024 * 1024),
    "leading axes": ("...d,dp->...p", ((32, 16, 256), (256, 512)), 2 * 32 * 16 * 256 * 512),
    "attention scores": ("bqhd,bkhd->bhqk", ((4, 256, 8, 64), (4, 256, 8, 64)), 2 * 4 * 8 * 256 * 256 * 64),
    "attention values": ("bhqk,bkhd->bqhd", ((4, 8, 256, 256), (4, 256, 8, 64)), 2 * 4 * 8 * 256 * 256 * 64),
    "chain": ("ij,jk,kl->il", ((512, 256), (256, 512), (512, 512)), 2 * 2 * 512 * 256 * 512),
    "low rank": ("nd,dr,rp->np", ((512, 1024), (1024, 16), (16, 1024)), 2 * 2 * 512 * 1024 * 16),
    "bilinear form": ("ni,ij,nj->n", ((1024, 256), (256, 256), (1024, 256)), 2 * 1024 * 256 * 257),
    "batched trace": ("nii->n", ((128, 128, 128),), 0),
    "diagonal": ("ii,ij->ij", ((1024, 1024), (1024, 512)), 0),
    "sum": ("bsd->d", ((16, 256, 256),), 0),
    "stretched": ("bsd,bsd->bsd", ((16, 256, 256), (1, 256, 256)), 0),
}
SMOKE = {
    "product": ("nd,dp->np", ((6, 5), (5, 4)), 2.0 * 6 * 5 * 4),
    "batched trace": ("nii->n", ((4, 3, 3),), 0.0),
}


def rows(options: Options) -> Iterator[Row]:
    """A contest for each spec."""
    for name, work in (SMOKE if options.smoke else WORK).items():
        yield Row(f"einsum {name}", partial(contest_of, name, *work))


def contest_of(name: str, spec: str, shapes: tuple[Shape, ...], flops: float, options: Options) -> Table:
    """Ours against autodiff of jnp.einsum, and torch.einsum."""
    *operands, dY = normal(*shapes, _output_shape(spec, shapes))
    functions = {"adjax": partial(einsum, spec), "plain autodiff": partial(jnp.einsum, spec)}
    table = contest(
        f"einsum {name}, {spec} of {', '.join('×'.join(map(str, shape)) for shape in shapes)}, float32, "
        "forward + backward",
        [
            *jax_contenders(functions, tuple(operands), dY),
            peer("PyTorch einsum", partial(torch_einsum, spec, operands, dY)),
        ],
        options,
        flops=3 * flops or None,
        bytes_moved=2.0 * sum(x.nbytes for x in (*operands, dY)),
        judged=["plain autodiff"],
        ceilings=[copy_ceiling(1 if options.smoke else 64), *([gemm_ceiling(512, 512, 512)] if flops else [])],
    )
    bars = [time_at_most(table, "plain autodiff", 1.05), temporaries_at_most(table, "plain autodiff")]
    return table.with_bars(bars)


def _output_shape(spec: str, shapes: tuple[Shape, ...]) -> Shape:
    operands = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.eval_shape(partial(jnp.einsum, spec), *operands).shape


def torch_einsum(spec: str, operands: list[jax.Array], dY: jax.Array) -> Contender:
    """torch.einsum on all cores."""
    import torch

    return torch_contender("PyTorch einsum", lambda *x: torch.einsum(spec, *x), operands, dY)
