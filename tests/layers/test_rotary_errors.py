"""What rotary says about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import rotary

X, P = jnp.ones((5, 3, 2, 4), jnp.float32), jnp.arange(3)
TO = "rotary: positions must broadcast to the axes (..., t) of x, (5, 3) (x has shape (5, 3, 2, 4)), got shape"
ERRORS = {
    "odd": (lambda: rotary(X[..., :3], P), ValueError,
            "rotary: x must have an even width d, got d=3 (shape (5, 3, 2, 3))"),
    "no heads": (lambda: rotary(X[0, 0], P), ValueError,
                 "rotary: x must have the axes (..., t, h, d), got shape (2, 4)"),
    "integers": (lambda: rotary(X.astype(int), P), TypeError,
                 "rotary: x must be floating, got dtype int64 (shape (5, 3, 2, 4))"),
    "complex positions": (lambda: rotary(X, P.astype(complex)), TypeError,
                          "rotary: positions must be real, got dtype complex128 (shape (3,))"),
    "boolean positions": (lambda: rotary(X, P > 1), TypeError,
                          "rotary: positions must be floating, got dtype bool (shape (3,))"),
    "positions a range": (lambda: rotary(X, range(3)), TypeError,
                          "rotary: positions must be an array with the axes (..., t), got range"),
    "positions too many": (lambda: rotary(X, jnp.arange(4)), ValueError, f"{TO} (4,)"),
    "positions of rank 3": (lambda: rotary(X, jnp.ones((1, 5, 3), int)), ValueError, f"{TO} (1, 5, 3)"),
    "base": (lambda: rotary(X, P, base=0.0), ValueError, "rotary: base must be positive and finite, got 0.0"),
    "base nan": (lambda: rotary(X, P, base=float("nan")), ValueError,
                 "rotary: base must be positive and finite, got nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error(case):
    f, error, text = ERRORS[case]
    for call in (f, lambda: jax.eval_shape(f)):
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == text
