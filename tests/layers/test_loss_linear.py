"""linear_cross_entropy against autodiff of the whole logits: blocks that do not divide, spans of columns, masks."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from adjax import AffineParams
from adjax.layers.loss_linear import Operands, Options, Sizes, in_blocks
from tests.cases import assert_close, normal
from tests.layers.families.loss import distribution, plain_cross_entropy

pytestmark = pytest.mark.shared

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


def test_a_block_of_logits_is_in_memory_twice_at_most():
    """Z and exp(Z − m), beside the product that is added to dW; nothing as large is carried through the loop."""
    n, d, v, rows = 64, 8, 1024, 16
    f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)

    def ours(W, x, y):
        return in_blocks(Operands(AffineParams(W, None), x, y, None), Options(0, 0, None), "mean", Sizes(rows, v))

    pull = jax.jit(jax.value_and_grad(ours, (0, 1)))
    memory = pull.lower(f32(d, v), f32(n, d), jax.ShapeDtypeStruct((n,), jnp.int32)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * (2.5 * rows * v + d * v + 4 * n * d + v)
