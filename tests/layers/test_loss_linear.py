"""linear_cross_entropy against autodiff of the whole logits: blocks that do not divide, spans of columns, masks."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from adjax import AffineParams
from adjax.layers import loss_blocks
from adjax.layers.loss_linear import Operands, Options, Sizes, in_blocks
from tests.cases import assert_close, normal
from tests.layers.families.loss import distribution, plain_cross_entropy

KEEP = jnp.array([True, True, False, True, True])
LABELS = jnp.array([1, 6, 0, 2, 3])
OPTIONS = {"label_smoothing": 0.25, "z_loss": 0.125}
CASES = [                               # rows and columns at a time, of 5 and 7; soft labels, masked, reduction
    (Sizes(2, 7), False, True, "mean"),
    (Sizes(2, 3), True, False, "mean"),
    (Sizes(8, 9), True, True, "sum"),
    (Sizes(2, 3), False, True, "none"),
    (Sizes(2, 7), True, False, "none"),
]  # fmt: skip


def derivatives(f, args, tangents, u):
    L = lambda *args: jnp.sum(u * jnp.sin(f(*args)))
    every = tuple(range(len(args)))
    grad = jax.grad(L, every)
    curved = lambda *args: sum(jnp.sum(jnp.sin(g)) for g in grad(*args))
    return {
        "value": f(*args),
        "grad": grad(*args),
        "grad of x alone": jax.grad(L, 2)(*args),
        "jvp": jax.jvp(f, args, tangents)[1],
        "forward over reverse": jax.jvp(grad, args, tangents)[1],
        "reverse over reverse": jax.grad(curved, every)(*args),
    }


@pytest.mark.parametrize(("sizes", "soft", "masked", "reduction"), CASES, ids=str)
def test_every_mode_and_order(sizes, soft, masked, reduction, rng):
    args = normal(rng, 3, 7), normal(rng, 7), normal(rng, 5, 3), *([distribution(rng, 5, 7)] if soft else [])
    tangents = tuple(normal(rng, *t.shape) for t in args)
    u = normal(rng, *((5,) if reduction == "none" else ()))
    keep = KEEP if masked else None

    def ours(W, b, x, y=LABELS):
        return in_blocks(Operands(AffineParams(W, b), x, y, keep), Options(0.25, 0.125, None), reduction, sizes)

    def plain(W, b, x, y=LABELS):
        return plain_cross_entropy(x @ W + b, y, where=keep, reduction=reduction, **OPTIONS)

    got, want = (jax.jit(partial(derivatives, f))(args, tangents, u) for f in (ours, plain))
    assert_close(got, want, 1e-12)


@pytest.mark.parametrize("sizes", [Sizes(2, 7), Sizes(2, 5)], ids=str)
def test_a_large_dW_is_summed_a_few_columns_at_a_time(sizes, rng, monkeypatch):
    """Two columns at a time here, a last one alone."""
    monkeypatch.setattr(loss_blocks, "PRODUCT_BYTES", 2 * 3 * 8)
    W, b, x = normal(rng, 3, 7), normal(rng, 7), normal(rng, 5, 3)
    ours = lambda W, b, x: in_blocks(Operands(AffineParams(W, b), x, LABELS, None), Options(0, 0, None), "sum", sizes)
    plain = lambda W, b, x: plain_cross_entropy(x @ W + b, LABELS, reduction="sum")
    got, want = (jax.jit(jax.grad(f, (0, 1, 2))) for f in (ours, plain))
    assert got.lower(W, b, x).as_text().count("tensor<3x2xf64>") > 2
    assert_close(got(W, b, x), want(W, b, x), 1e-12)
