"""What the activations say about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import geglu, gelu, relu, silu, swiglu

X, Y, I, C = (jnp.ones(s, t) for s, t in [((2, 3), "float32"), ((3,), "float32"), (4, "int32"), (4, "complex64")])
ERRORS = {
    "integers": (lambda: relu(I), TypeError, "relu: x must be floating, got dtype int32 (shape (4,))"),
    "complex": (lambda: gelu(C), TypeError, "gelu: x must be real, got dtype complex64 (shape (4,))"),
    "a number": (lambda: silu(2.0), TypeError, "silu: x must be an array with the axes (...), got float"),
    "up integers": (lambda: swiglu(C.real, I), TypeError, "swiglu: up must be floating, got dtype int32 (shape (4,))"),
    "gate a list": (lambda: geglu([1.0], Y), TypeError, "geglu: gate must be an array with the axes (...), got list"),
    "two shapes": (
        lambda: swiglu(X, Y), ValueError, "swiglu: gate and up must have one shape, got (2, 3) and (3,)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error(case):
    f, error, text = ERRORS[case]
    for call in (f, lambda: jax.eval_shape(f)):
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == text
