"""What layer_norm and rms_norm say about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import layer_norm, rms_norm

X, V = jnp.ones((2, 4, 6), jnp.float32), jnp.ones(6, jnp.float32)
FITS = "must have shape (c,) = (6,) to fit x (shape (2, 4, 6)), got shape"
ERRORS = {
    "scale": (lambda: rms_norm((V[:3], None), X), ValueError, f"rms_norm: scale {FITS} (3,)"),
    "bias": (lambda: layer_norm((V, V[None]), X), ValueError, f"layer_norm: bias {FITS} (1, 6)"),
    "scalar": (lambda: layer_norm((V, V), V[0]), ValueError,
               "layer_norm: x must have a channel axis c, got a scalar (shape ())"),
    "eps": (lambda: rms_norm((V, None), X, eps=0.0), ValueError, "rms_norm: eps must be positive, got 0.0"),
    "integers": (lambda: layer_norm((V, V), X.astype("int32")), TypeError,
                 "layer_norm: x must be floating, got dtype int32 (shape (2, 4, 6))"),
    "complex": (lambda: rms_norm((V, None), X.astype("complex64")), TypeError,
                "rms_norm: x must be real, got dtype complex64 (shape (2, 4, 6))"),
    "scale alone": (lambda: rms_norm(V, X), TypeError,
                    "rms_norm: params must be NormParams(scale, bias) or a tuple (scale, bias), "
                    "got an array of shape (6,)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error(case):
    f, error, text = ERRORS[case]
    for call in (f, lambda: jax.eval_shape(f)):
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == text
