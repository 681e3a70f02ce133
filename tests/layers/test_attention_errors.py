"""attention: the whole text of each error."""

import jax.numpy as jnp
import pytest

from adjax import attention

Q, K, V = jnp.zeros((2, 6, 4, 3)), jnp.zeros((2, 5, 2, 3)), jnp.zeros((2, 5, 2, 7))


@pytest.mark.parametrize(
    ("given", "options", "text"),
    [
        ((jnp.zeros((6, 4, 3)), K, V), {}, "q must have the axes (b, t, h, d), got shape (6, 4, 3)"),
        ((jnp.zeros((3, 6, 4, 3)), K, V), {},
         "q has b=3 examples (shape (3, 6, 4, 3)), k 2 (shape (2, 5, 2, 3)), v 2 (shape (2, 5, 2, 7))"),
        ((Q, jnp.zeros((2, 5, 2, 4)), V), {},
         "q has d=3 features (shape (2, 6, 4, 3)) but k has d=4 (shape (2, 5, 2, 4))"),
        ((Q, K, jnp.zeros((2, 4, 2, 7))), {},
         "k has s=5 keys of g=2 heads (shape (2, 5, 2, 3)) but v has s=4 of g=2 (shape (2, 4, 2, 7))"),
        ((Q, jnp.zeros((2, 5, 3, 3)), jnp.zeros((2, 5, 3, 7))), {},
         "the h=4 heads of q (shape (2, 6, 4, 3)) are no multiple of the g=3 heads of k (shape (2, 5, 3, 3))"),
        ((Q, K, V), {"window": 0}, "window must be at least 1, got 0"),
        ((Q, K, V), {"window": -3}, "window must be at least 1, got -3"),
        ((Q, K, V), {"softcap": 0.0}, "softcap must be positive, got 0.0"),
        ((Q, K, V), {"mask": jnp.ones((6, 4), bool)},
         "mask must broadcast to (b, h, t, s) = (2, 4, 6, 5), got shape (6, 4)"),
        ((Q, K, V), {"bias": jnp.ones((1, 2, 4, 6, 5))},
         "bias must broadcast to (b, h, t, s) = (2, 4, 6, 5), got shape (1, 2, 4, 6, 5)"),
    ],
)  # fmt: skip
def test_values(given, options, text):
    with pytest.raises(ValueError) as error:
        attention(*given, **options)
    assert str(error.value) == f"attention: {text}"


@pytest.mark.parametrize(
    ("given", "options", "text"),
    [
        ((Q, K, V.astype(jnp.int32)), {}, "v must be floating, got dtype int32 (shape (2, 5, 2, 7))"),
        ((Q, K, V), {"mask": jnp.ones((6, 5))}, "mask must be boolean, got dtype float64 (shape (6, 5))"),
        ((Q, K, V), {"bias": jnp.ones((6, 5), bool)}, "bias must be floating, got dtype bool (shape (6, 5))"),
        ((Q, K, V), {"window": 2.5}, "window must be an integer, got float"),
    ],
)
def test_types(given, options, text):
    with pytest.raises(TypeError) as error:
        attention(*given, **options)
    assert str(error.value) == f"attention: {text}"
