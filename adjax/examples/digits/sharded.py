"""The networks of the digits over the devices of a mesh: where their parameters lie, and what devices say to others.

`data` and `fsdp` split the images. `fsdp` splits every parameter along its first axis that divides, and leaves whole
what has none. `model` is for the perceptron: of each two layers the first has its features out split and the second its
features in, so that the sum over the devices comes after both. A layer that is left over is whole on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.sharding import PartitionSpec as P
from jax.sharding import auto_axes

from adjax import AffineParams
from adjax.examples.digits.model import Apply, Params
from adjax.examples.parallel.mesh import BATCH, Placement

COLUMNS: Any = P(None, "model"), P("model")                             # of W and b
ROWS: Any = P("model"), P()


def specs(on: Placement, params: Params) -> Any:
    """The layout of every parameter."""
    split: Any = jax.tree.map(lambda _: P(), params)
    if "model" in on.mesh.shape:
        pairs = len(params) // 2
        split = [*(AffineParams(*of) for of in (COLUMNS, ROWS) * pairs), *split[2 * pairs :]]
    return jax.tree.map(partial(_over_fsdp, on), params, split)


def _over_fsdp(on: Placement, x: Any, spec: P) -> P:
    """The layout, with fsdp at the first axis that nothing splits and that divides."""
    entries = [*spec, *[None] * (x.ndim - len(spec))]
    divides = [n % on.size("fsdp") == 0 and entry is None for n, entry in zip(x.shape, entries, strict=True)]
    if "fsdp" in on.mesh.shape and any(divides):
        entries[divides.index(True)] = "fsdp"
    return on.spec(*entries)


def network_on(on: Placement | None, apply: Apply, layouts: Any, plain: bool) -> Apply:
    """The network on a mesh: it takes parameters as they are stored, and images as they are split."""
    if on is None:
        return apply
    if on.mode == "explicit" and plain:
        return auto_axes(apply, out_sharding=on.spec(BATCH))
    gathered: Callable[..., Array] = partial(_gathered, on)
    return lambda params, X: apply(jax.tree.map(gathered, params, layouts), X)


def _gathered(on: Placement, x: Array, spec: P) -> Array:
    """What `fsdp` splits, whole. Its adjoint scatters the sum of the gradients."""
    if on.mode != "shard_map":
        return on.laid_out(x, on.spec(*spec, without=("fsdp",)))
    return lax.all_gather(x, "fsdp", axis=list(spec).index("fsdp"), tiled=True) if "fsdp" in spec else x
