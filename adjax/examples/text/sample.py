"""Writing: one character after another, each drawn from what the network expects next."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import adjax
from adjax.examples.text.data import Text
from adjax.examples.text.decoder import SPELLED, Params, features
from adjax.examples.text.options import Options

TEMPERATURE = 0.8


def write(params: Params, text: Text, options: Options) -> str:
    """`options.sample` characters that follow the beginning of the held-out text."""
    ids = text.held_out[: options.context]
    return text.spelled(np.asarray(_continue(params, jnp.asarray(ids), options)))


@functools.partial(jax.jit, static_argnames="options")
def _continue(params: Params, ids: Array, options: Options) -> Array:
    """The next characters, each of them from the `context` characters before it."""
    cast = jax.tree.map(lambda p: p.astype(options.dtype), params)

    def one_more(ids: Array, key: Array) -> tuple[Array, Array]:
        x = features(cast, ids[None], SPELLED, heads=options.heads)[0, -1]         # (1, t) -> (d,)
        logits = adjax.affine(cast.characters, x).astype(jnp.float32)              # (d,) -> (v,)
        new = jax.random.categorical(key, logits / TEMPERATURE).astype(ids.dtype)
        return jnp.append(ids[1:], new), new

    keys = jax.random.split(jax.random.key(options.seed), options.sample)
    return jax.lax.scan(one_more, ids, keys)[1]
