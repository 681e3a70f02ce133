"""What einsum says about bad input: the whole text, at trace time, whichever transformation is around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import einsum


def ones(*shape, dtype=jnp.float64):
    return jnp.ones(shape, dtype)


X, W = ones(8, 3), ones(3, 5)
PRODUCT = "nd,dp->np"
MALFORMED = "einsum: malformed spec "

BAD_VALUES = {
    "sizes": (PRODUCT, (X, ones(4, 5)),
              "einsum: axis d of 'nd,dp->np' is 3 in operand 0 (shape (8, 3)) but 4 in operand 1 (shape (4, 5))"),
    "transposed": (PRODUCT, (X.T, W),
                   "einsum: axis d of 'nd,dp->np' is 8 in operand 0 (shape (3, 8)) but 3 in operand 1 (shape (3, 5))"),
    "sizes past a 1": ("d,d,d->", (ones(1), ones(3), ones(4)),
                       "einsum: axis d of 'd,d,d->' is 3 in operand 1 (shape (3,)) but 4 in operand 2 (shape (4,))"),
    "size 0 and 2": ("d,d->", (ones(0), ones(2)),
                     "einsum: axis d of 'd,d->' is 0 in operand 0 (shape (0,)) but 2 in operand 1 (shape (2,))"),
    "diagonal": ("ii", (X,), "einsum: axis i of 'ii' is 8 in operand 0 (shape (8, 3)) but 3 in the same operand"),
    "diagonal of 1": ("ii->i", (ones(1, 3),),
                      "einsum: axis i of 'ii->i' is 1 in operand 0 (shape (1, 3)) but 3 in the same operand"),
    "ellipsis": ("...d,...d->...", (ones(2, 4, 3), ones(5, 3)),
                 "einsum: axis -1 of the ellipsis of '...d,...d->...' is 4 in operand 0 (shape (2, 4, 3)) "
                 "but 5 in operand 1 (shape (5, 3))"),
    "too few operands": (PRODUCT, (X,), "einsum: 'nd,dp->np' has 2 operands, got 1"),
    "no operands": (PRODUCT, (), "einsum: 'nd,dp->np' has 2 operands, got 0"),
    "too many operands": (PRODUCT, (X, W, W), "einsum: 'nd,dp->np' has 2 operands, got 3"),
    "rank too high": (PRODUCT, (ones(2, 8, 3), W),
                      "einsum: operand 0 of 'nd,dp->np' must have 2 axes (n, d), got shape (2, 8, 3)"),
    "rank too low": (PRODUCT, (X, ones(3)), "einsum: operand 1 of 'nd,dp->np' must have 2 axes (d, p), got shape (3,)"),
    "no scalar": (",d", (X, ones(3)), "einsum: operand 0 of ',d' must have 0 axes (), got shape (8, 3)"),
    "rank below an ellipsis": ("n...d,dp", (ones(3), W),
                               "einsum: operand 0 of 'n...d,dp' must have at least 2 axes (n, ..., d), got shape (3,)"),
    "unknown output": ("nd,dp->nq", (X, W), "einsum: output axis q of 'nd,dp->nq' is in no operand"),
    "output twice": ("nd,dp->nn", (X, W), "einsum: output axis n of 'nd,dp->nn' is named 2 times"),
    "two outputs": ("nd,dp->n,p", (X, W), MALFORMED + "'nd,dp->n,p': there is one output"),
    "half an arrow": ("nd,dp-np", (X, W), MALFORMED + "'nd,dp-np': '->' stands once, before the output"),
    "two arrows": ("nd->dp->np", (X, W), MALFORMED + "'nd->dp->np': '->' stands once, before the output"),
    "turned arrow": ("nd,dp>-np", (X, W), MALFORMED + "'nd,dp>-np': '->' stands once, before the output"),
    "two dots": ("..d,dp", (X, W), MALFORMED + "'..d,dp': an ellipsis is three dots, one to a term"),
    "four dots": ("....d,dp", (X, W), MALFORMED + "'....d,dp': an ellipsis is three dots, one to a term"),
    "two ellipses": ("...d...,dp", (X, W), MALFORMED + "'...d...,dp': an ellipsis is three dots, one to a term"),
    "digit": ("n1,1p->np", (X, W), MALFORMED + "'n1,1p->np': an axis is a letter, got '1'"),
    "semicolon": ("nd;dp->np", (X, W), MALFORMED + "'nd;dp->np': an axis is a letter, got ';'"),
}  # fmt: skip
OBJECTS = np.array([[1, 2], [3]], object)
BAD_TYPES = {
    "no spec": (X, (W,), "einsum: spec must be a string like 'nd,dp->np', got an array of shape (8, 3)"),
    "spec missing": (None, (X, W), "einsum: spec must be a string like 'nd,dp->np', got NoneType"),
    "list": (PRODUCT, ([[1.0] * 3], W),
             "einsum: operand 0 of 'nd,dp->np' must be an array with the axes (n, d), got list"),
    "number": (",d->d", (2.0, ones(3)), "einsum: operand 0 of ',d->d' must be an array with the axes (), got float"),
    "missing": ("...d,dp", (X, None),
                "einsum: operand 1 of '...d,dp' must be an array with the axes (d, p), got NoneType"),
    "objects": ("n", (OBJECTS,), "einsum: operand 0 of 'n' must be numeric, got dtype object (shape (2,))"),
}  # fmt: skip
BAD = {k: (ValueError, v) for k, v in BAD_VALUES.items()} | {k: (TypeError, v) for k, v in BAD_TYPES.items()}
AROUND = {
    "eager": einsum,
    "jit": lambda spec, *operands: jax.jit(lambda s: einsum(spec, *operands))(1.0),
    "grad": lambda spec, *operands: jax.grad(lambda s: s * jnp.sum(einsum(spec, *operands)))(1.0),
    "jvp": lambda spec, *operands: jax.jvp(lambda s: einsum(spec, *operands) * s, (1.0,), (1.0,)),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named(bad, around):
    kind, (spec, operands, text) = BAD[bad]
    with pytest.raises(kind) as error:
        AROUND[around](spec, *operands)
    assert str(error.value) == text


def test_keywords_are_refused():
    with pytest.raises(TypeError, match=r"einsum\(\) got an unexpected keyword argument 'optimize'"):
        einsum(PRODUCT, X, W, optimize=True)


def test_a_bad_example_inside_vmap_is_named_by_its_own_shape():
    with pytest.raises(ValueError, match=r"axis d of 'd,dp->p' is 4 in operand 0 \(shape \(4,\)\) but 3 in operand 1"):
        jax.vmap(lambda x: einsum("d,dp->p", x, W))(ones(8, 4))


@pytest.mark.parametrize("spec", ["nd", "n d", "nd->", "...", "...d->d", "->".join(["nd", "d..."])])
def test_what_plain_jax_takes_is_taken(spec):
    assert np.array_equal(einsum(spec, X), jnp.einsum(spec, X))
