"""Every layer of the package at several shapes and options has a certificate; the table grows with the layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import AffineParams, affine, certify


def arrays(dtype, *shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(s), dtype) for s in shapes]


def affine_at(dtype, *leading, d=4, p=3, bias=True):
    W, b, X = arrays(dtype, (d, p), (p,), (*leading, d))
    return affine, (AffineParams(W, b if bias else None), X)


CASES = {
    "affine, a batch": affine_at(jnp.float32, 6),
    "affine, no batch": affine_at(jnp.float32),
    "affine, two batch axes": affine_at(jnp.float64, 2, 5),
    "affine, no bias": affine_at(jnp.float32, 6, bias=False),
    "affine, one feature": affine_at(jnp.float32, 6, d=1, p=2),
    "affine, square": affine_at(jnp.float32, 4, d=4, p=4),
    "affine, bfloat16": affine_at(jnp.bfloat16, 6),
    "affine, float16": affine_at(jnp.float16, 6),
    "affine, complex": affine_at(jnp.complex64, 6),
    "affine, a plain tuple": (affine, (tuple(affine_at(jnp.float32, 6)[1][0]), affine_at(jnp.float32, 6)[1][1])),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_is_proven(name):
    f, args = CASES[name]
    certificate = certify(f, *args, key=jax.random.key(len(name)))
    assert certificate.ok, f"\n{certificate}"
