"""The networks of the digits over the devices of a mesh: where their parameters lie, and what devices say to others.

`data` and `fsdp` split the images. `fsdp` splits every parameter along its first axis that divides, and leaves whole
what has none. `model` splits the features between two layers of the perceptron, and the channels between two blocks of
the convolutional network: of each two the first has its features or channels out split and the second those in, so that
the sum over the devices comes after both. Between them a device normalizes, rectifies and pools channels of its own, in
whole groups. A layer or a block that is left over is whole on every device, and so is the network's last layer.

The perceptron's sums follow from layouts under `auto` and `explicit`. That of two convolutions is spelled in all modes:
under these two as well the network runs inside `jax.shard_map`. The compiler would sum the statistics of the groups
over the devices too, twice forward and twice backward, for to it they are products along the channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.sharding import PartitionSpec as P
from jax.sharding import auto_axes

from adjax import AffineParams, ConvParams, NormParams
from adjax.examples.digits.cnn import Block
from adjax.examples.digits.model import Apply, Params
from adjax.examples.parallel.mesh import BATCH, Placement

OUT: dict[str, Any] = {"mlp": P(None, "model"), "cnn": P(None, None, None, "model")}     # of W
IN: dict[str, Any] = {"mlp": P("model"), "cnn": P(None, None, "model")}
EACH: Any = P("model")                  # of what has a number for each feature or channel out
WHOLE: Any = P()
COLUMNS = {"mlp": AffineParams(OUT["mlp"], EACH), "cnn": Block(ConvParams(OUT["cnn"], None), NormParams(EACH, EACH))}
ROWS = {"mlp": AffineParams(IN["mlp"], WHOLE), "cnn": Block(ConvParams(IN["cnn"], None), NormParams(WHOLE, WHOLE))}


def specs(on: Placement, model: str, params: Params) -> Any:
    """The layout of every parameter of `mlp` or `cnn`."""
    split: Any = jax.tree.map(lambda _: P(), params)
    if "model" in on.mesh.shape:
        split = _in_pairs(model, split) if model == "mlp" else (_in_pairs(model, split[0]), split[1])
    return jax.tree.map(partial(_over_fsdp, on), params, split)


def _in_pairs(model: str, whole: list[Any]) -> list[Any]:
    """Layers or blocks, of each two the first by columns and the second by rows."""
    pairs = len(whole) // 2
    return [*[COLUMNS[model], ROWS[model]] * pairs, *whole[2 * pairs :]]


def _over_fsdp(on: Placement, x: Any, spec: P) -> P:
    """The layout, with fsdp at the first axis that nothing splits and that divides."""
    entries = [*spec, *[None] * (x.ndim - len(spec))]
    divides = [n % on.size("fsdp") == 0 and entry is None for n, entry in zip(x.shape, entries, strict=True)]
    if "fsdp" in on.mesh.shape and any(divides):
        entries[divides.index(True)] = "fsdp"
    return on.spec(*entries)


def network_on(on: Placement | None, model: str, apply: Apply, layouts: Any, plain: bool) -> Apply:
    """The network on a mesh: it takes parameters as they are stored, and images as they are split."""
    if on is None:
        return apply
    if on.mode == "explicit" and plain:
        return auto_axes(apply, out_sharding=on.spec(BATCH))
    if on.mode != "shard_map" and model == "cnn" and "model" in on.mesh.shape and not plain:
        own = jax.tree.map(lambda spec: on.spec(*spec, without=("fsdp",)), layouts)
        apply = jax.shard_map(apply, mesh=on.mesh, in_specs=(own, on.spec(BATCH)), out_specs=on.spec(BATCH))
    gathered: Callable[..., Array] = partial(_gathered, on)
    return lambda params, X: apply(jax.tree.map(gathered, params, layouts), X)


def _gathered(on: Placement, x: Array, spec: P) -> Array:
    """What `fsdp` splits, whole. Its adjoint scatters the sum of the gradients."""
    if on.mode != "shard_map":
        return on.laid_out(x, on.spec(*spec, without=("fsdp",)))
    return lax.all_gather(x, "fsdp", axis=list(spec).index("fsdp"), tiled=True) if "fsdp" in spec else x
