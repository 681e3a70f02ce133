"""What dropout says about bad input: the whole text, at trace time."""

import jax
import jax.numpy as jnp
import pytest

from adjax import dropout

K, X = jax.random.key(0), jnp.ones((2, 3), jnp.float32)
ERRORS = {
    "rate one": (lambda: dropout(K, X, 1.0), ValueError, "dropout: rate must be in [0, 1), got 1.0"),
    "rate negative": (lambda: dropout(K, X, -0.1), ValueError, "dropout: rate must be in [0, 1), got -0.1"),
    "rate nan": (lambda: dropout(K, X, float("nan")), ValueError, "dropout: rate must be in [0, 1), got nan"),
    "rate an array": (lambda: dropout(K, X, X), TypeError,
                      "dropout: rate must be a number, got an array of shape (2, 3)"),
    "many keys": (lambda: dropout(jax.random.split(K, 4), X, 0.5), ValueError,
                  "dropout: key must be one key, got an array of keys of shape (4,); split and vmap"),
    "a seed": (lambda: dropout(3, X, 0.5), TypeError, "dropout: key must be a key, made by jax.random.key, got int"),
    "key and x exchanged": (lambda: dropout(X, K, 0.5), TypeError,
                            "dropout: x must be floating, got dtype key<fry> (shape ())"),
    "an array for a key": (lambda: dropout(X, X, 0.5), TypeError,
                           "dropout: key must be a key, made by jax.random.key, got dtype float32 (shape (2, 3))"),
    "integers": (lambda: dropout(K, X.astype("int32"), 0.5), TypeError,
                 "dropout: x must be floating, got dtype int32 (shape (2, 3))"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error(case):
    f, error, text = ERRORS[case]
    for call in (f, lambda: jax.eval_shape(f)):
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == text
