"""Rules inside `jax.shard_map`: right on one device, off by sums over mesh axes on several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.certify.planting import normal
from tests.certify.rules import Mutant

PRODUCT = normal((8, 4), (4, 12))                           # every axis divides by 2 and by 4


def matmul(X: Array, W: Array) -> Array:
    return X @ W


def sharded(local: Callable[..., Any], bwd: Callable[..., Any], specs: Any, out: P, *, devices: int = 2,
            check_vma: bool = True, shape: dict[str, int] | None = None) -> Callable[[], Any]:
    """Makes `local` with the rule `bwd(args, dY)` on every device of a mesh, by default with the one axis `m`."""
    axes = shape or {"m": devices}

    def make() -> Any:
        f = jax.custom_vjp(local)
        f.defvjp(lambda *args: (local(*args), args), bwd)
        mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes),
                             devices=jax.devices()[:devices])
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=check_vma)

    return make


def dX_of(dY: Array, W: Array) -> Array:
    return dY @ W.T


def dW_of(X: Array, dY: Array) -> Array:
    return X.T @ dY


def over_examples(reduce: Callable[[Array], Array], **how: Any) -> Callable[[], Any]:
    """Makes X W with the examples spread over the mesh; `reduce` makes one dW of the devices'."""
    return sharded(matmul, lambda r, dY: (dX_of(dY, r[1]), reduce(dW_of(r[0], dY))), (P("m"), P()), P("m"), **how)


def over_features(prepare: Callable[[Array], Array], **how: Any) -> Callable[[], Any]:
    """Makes X W with the features spread over the mesh; `prepare` is what happens to dY."""
    return sharded(lambda X, W: lax.psum(X @ W, "m"),
                   lambda r, dY: (dX_of(prepare(dY), r[1]), dW_of(r[0], prepare(dY))),
                   (P(None, "m"), P("m")), P(), **how)


def over_outputs(reduce: Callable[[Array], Array], **how: Any) -> Callable[[], Any]:
    """Makes X W with the columns of W spread over the mesh; `reduce` makes one dX of the devices'."""
    return sharded(matmul, lambda r, dY: (reduce(dX_of(dY, r[1])), dW_of(r[0], dY)), (P(), P(None, "m")), P(None, "m"),
                   **how)


def psum(x: Array) -> Array:
    return lax.psum(x, "m")


def pmean(x: Array) -> Array:
    return lax.pmean(x, "m")


def of_first_device(x: Array) -> Array:
    return psum(jnp.where(lax.axis_index("m") == 0, x, 0))


def ring(x: Array, step: int, n: int = 4) -> Array:
    """Hands each device's shard on to the one `step` places further."""
    return lax.ppermute(x, "m", [(i, (i + step) % n) for i in range(n)])


def mutant(name: str, make: Callable[[], Any], reference: Callable[..., Any] = matmul, diagnosis: str | None = None,
           *, devices: int = 2, arguments: Any = PRODUCT) -> Mutant:
    return Mutant(name, make, arguments, options={"reference": reference}, devices=devices, law="adjoint",
                  diagnosis=diagnosis)


MUTANTS = [
    mutant("shard_map: psum missing", over_features(lambda dY: dY, check_vma=False), diagnosis="mesh axis"),
    mutant("shard_map: psum missing on four devices", over_features(lambda dY: dY, devices=4, check_vma=False),
           diagnosis="mesh axis", devices=4),
    mutant("shard_map: pmean of dY instead of psum", over_features(pmean, check_vma=False), diagnosis="mesh axis"),
    mutant("shard_map: psum of dY where none belongs", over_features(psum), diagnosis="mesh axis"),
    mutant("shard_map: double psum of dW", over_examples(lambda dW: psum(psum(dW))), diagnosis="mesh axis"),
    mutant("shard_map: own psum of dW beside the one of shard_map", over_examples(psum, devices=4, check_vma=False),
           diagnosis="mesh axis", devices=4),
    mutant("shard_map: pmean of dW instead of psum", over_examples(pmean, devices=4), diagnosis="mesh axis", devices=4),
    mutant("shard_map: pmean of dX instead of psum", over_outputs(pmean), diagnosis="mesh axis"),
    mutant("shard_map: dW of the first device only", over_examples(of_first_device)),
    mutant("shard_map: psum over one of two mesh axes, pmean over the other",
           sharded(matmul, lambda r, dY: (dX_of(dY, r[1]), lax.pmean(lax.psum(dW_of(r[0], dY), "m"), "k")),
                   (P(("m", "k")), P()), P(("m", "k")), devices=4, shape={"m": 2, "k": 2}),
           diagnosis="mesh axis", devices=4),
    mutant("shard_map: a mean loss divided by the local batch",
           sharded(lambda X: lax.pmean(jnp.mean(X**2), "m"), lambda r, dy: (2 * r[0] * dy / r[0].size,),
                   (P("m"),), P()),
           lambda X: jnp.mean(X**2), "mesh axis", arguments=normal((8, 4))),
    mutant("shard_map: the ring turned the same way in the backward rule",
           sharded(lambda X: ring(jnp.sin(X), 1), lambda r, dY: (jnp.cos(r[0]) * ring(dY, 1),), (P("m"),), P("m"),
                   devices=4),
           lambda X: jnp.roll(jnp.sin(X), 2, axis=0), devices=4, arguments=normal((8, 4))),
    mutant("shard_map: the slice of the gathered cotangent not summed over the devices",
           sharded(lambda X, W: lax.all_gather(X, "m", tiled=True) @ W,
                   lambda r, dY: (lax.dynamic_slice_in_dim(dX_of(dY, r[1]), 4 * lax.axis_index("m"), 4),
                                  dW_of(lax.all_gather(r[0], "m", tiled=True), dY)),
                   (P("m"), P(None, "m")), P(None, "m"))),
]
