"""What embed says about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import embed

E, I = jnp.ones((5, 3), jnp.float32), jnp.arange(4, dtype=jnp.int32)
ERRORS = {
    "floating ids": (lambda: embed(E, I.astype(jnp.float32)), TypeError,
                     "embed: ids must be integers, got dtype float32 (shape (4,))"),
    "boolean ids": (lambda: embed(E, I > 1), TypeError, "embed: ids must be integers, got dtype bool (shape (4,))"),
    "a list": (lambda: embed(E, [1, 2]), TypeError, "embed: ids must be an array with the axes (...), got list"),
    "integer table": (lambda: embed(E.astype(jnp.int32), I), TypeError,
                      "embed: table must be floating, got dtype int32 (shape (5, 3))"),
    "a vector": (lambda: embed(E[0], I), ValueError, "embed: table must have the axes (V, d), got shape (3,)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error(case):
    f, error, text = ERRORS[case]
    for call in (f, lambda: jax.eval_shape(f)):
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == text
