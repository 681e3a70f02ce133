"""Contenders: JAX functions and other libraries, each doing one forward and backward pass."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.harness.contest import Contender
from benchmarks.harness.programs import compile_timed

View = Callable[[Any], Sequence[Any]] | None


class Unavailable(Exception):
    """A peer is installed but cannot do this work; the message says why."""


def peer(name: str, build: Callable[[], Contender]) -> Contender:
    """The contender that ``build`` makes, or one that says which library is missing."""
    try:
        return build()
    except ModuleNotFoundError as error:
        return Contender(name, missing=f"{error.name}: not installed")
    except Unavailable as reason:
        return Contender(name, missing=str(reason))


def normal(*shapes: tuple[int, ...], seed: int = 0) -> list[jax.Array]:
    """Random signed float32 arrays, drawn by NumPy: nothing is compiled for them."""
    rng = np.random.default_rng(seed)
    return [jax.numpy.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]


def forward_backward(f: Callable[..., Any]) -> Callable[[tuple[Any, ...], Any], tuple[Any, Any]]:
    """(inputs, dY) ↦ (Y, cotangents of the inputs); None for inputs that have none, such as integers."""

    def step(inputs: tuple[Any, ...], dY: Any) -> tuple[Any, Any]:
        Y, pullback = jax.vjp(f, *inputs)
        return Y, jax.tree.map(lambda dx: None if dx.dtype == jax.dtypes.float0 else dx, pullback(dY))

    return step


def jax_contender(
    name: str, f: Callable[..., Any], inputs: tuple[Any, ...], dY: Any, view: View = jax.tree.leaves
) -> Contender:
    """One jitted forward and backward pass of a JAX function."""
    return jax_program(name, forward_backward(f), (inputs, dY), view)


def jax_program(
    name: str, step: Callable[..., Any], operands: tuple[Any, ...], view: View = jax.tree.leaves
) -> Contender:
    """A jitted JAX function."""
    program = compile_timed(step, *operands)
    return Contender(name, lambda: jax.block_until_ready(program.compiled(*operands)), program, view)


def jax_contenders(functions: Mapping[str, Callable[..., Any]], inputs: tuple[Any, ...], dY: Any) -> list[Contender]:
    """A contender for each of several JAX functions of the same inputs, ours first."""
    return [jax_contender(name, f, inputs, dY) for name, f in functions.items()]


def residual_bytes(f: Callable[..., Any], *inputs: Any) -> int:
    """What the backward pass of a JAX function keeps, the inputs among it."""
    kept = jax.eval_shape(lambda *inputs: jax.vjp(f, *inputs)[1], *inputs)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def torch_contender(name: str, f: Callable[..., Any], inputs: Sequence[Any], dY: Any, view: View = None) -> Contender:
    """One forward and backward pass of a PyTorch function on all cores: calls give (Y, *cotangents of float inputs).

    ``view`` puts the resulting NumPy arrays into our layout, where it differs.
    """
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    tensors = [torch.from_numpy(np.array(x)) for x in inputs]
    differentiated = [x.requires_grad_() for x in tensors if x.is_floating_point()]
    cotangent = torch.from_numpy(np.array(dY))

    def call() -> tuple[Any, ...]:
        Y = f(*tensors)
        return Y.detach(), *torch.autograd.grad(Y, differentiated, cotangent)

    def arrays(result: tuple[Any, ...]) -> Sequence[Any]:
        leaves = [x.numpy() for x in result]
        return view(leaves) if view else leaves

    return Contender(name, call, view=arrays)
