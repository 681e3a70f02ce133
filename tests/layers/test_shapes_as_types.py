"""The shapes in the annotations of affine's rule hold, checked at run time by jaxtyping and beartype."""

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from jaxtyping import jaxtyped

from adjax import AffineParams, affine

FWD, BWD = (jaxtyped(rule, typechecker=beartype) for rule in (affine.fwd, affine.bwd))


@pytest.mark.parametrize("leading", [(), (4,), (2, 5)])
def test_rule_has_the_shapes_it_says(leading):
    params = AffineParams.init(jax.random.key(0), 3, 7)
    X = jnp.ones((*leading, 3), jnp.float32)
    Y, residuals = FWD(params, X)
    (dW, db), dX = BWD(residuals, Y)
    assert (Y.shape, dW.shape, db.shape, dX.shape) == ((*leading, 7), (3, 7), (7,), X.shape)


def test_a_wrong_type_is_caught():
    _, residuals = FWD(AffineParams.init(jax.random.key(0), 3, 7), jnp.ones((4, 3), jnp.float32))
    with pytest.raises(Exception, match=r"dY"):
        BWD(residuals, jnp.ones((4, 7), jnp.int32))
