"""einsum itself: hundreds of random specs against jnp.einsum, every dtype, every edge of its domain."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import einsum
from adjax.adjoint.subscripts import backward_specs, parse, steps
from adjax.certify.quick import quick_options
from tests.cases import as_dtype, assert_close, assert_same_types, normal, normal_like

pytestmark = pytest.mark.shared


def forward_and_backward(f, operands, dY):
    """Value and cotangents."""
    Y, back = jax.vjp(f, *operands)
    return Y, back(dY)


def problem(rng, spec, *shapes, dtype=jnp.float64):
    """Operands and a cotangent."""
    operands = tuple(normal(rng, *shape, dtype=dtype) for shape in shapes)
    return operands, normal_like(rng, jax.eval_shape(partial(jnp.einsum, spec), *operands))


# Any spec

def random_spec(rng):
    """A spec of up to four operands with repeated and lone letters, ellipses, stretched axes and spaces; shapes."""
    letters = rng.permutation(list("ijkAB"))
    sizes = {axis: int(rng.choice([0, 1, 2, 3], p=[0.04, 0.16, 0.5, 0.3])) for axis in letters}
    dots = tuple(int(n) for n in rng.integers(1, 4, 2))
    stretch = lambda size: 1 if rng.random() < 0.15 else size
    terms, shapes = [], []
    for _ in range(rng.integers(1, 5)):
        term = "".join(rng.choice(letters[:4], rng.integers(0, 4)))
        own = {axis: stretch(sizes[axis]) for axis in term}
        shape = [own[axis] for axis in term]
        if rng.random() < 0.3:
            at = int(rng.integers(0, len(term) + 1))
            rank = int(rng.integers(0, 3))
            term = f"{term[:at]}...{term[at:]}"
            shape[at:at] = [stretch(n) for n in dots[2 - rank :]]
        terms.append(term)
        shapes.append(tuple(shape))
    spec = ",".join(terms)
    if rng.random() < 0.7:
        named = sorted(set(spec) & set(letters))
        output = list(rng.permutation(named)[: rng.integers(0, len(named) + 1)])
        if "..." in spec and rng.random() < 0.7:
            output.insert(int(rng.integers(0, len(output) + 1)), "...")
        spec += "->" + "".join(output)
    if rng.random() < 0.3:
        spec = " ".join(spec.replace("...", "E").replace("->", "D")).replace("E", "...").replace("D", "->")
    return spec, shapes


@pytest.mark.parametrize("dtype", [jnp.float64] * 3 + [jnp.complex128], ids=lambda t: t.__name__)
def test_random_specs(dtype, rng):
    """Thirty specs a program, so that little is compiled; the two Pythons that CI runs draw different ones."""
    rng = np.random.default_rng([sys.version_info.minor, *rng.integers(0, 2**32, 2)])
    specs = [random_spec(rng) for _ in range(30)]
    problems = [problem(rng, spec, *shapes) for spec, shapes in specs]
    if dtype == jnp.complex128:
        turned = jax.tree.map(lambda x: jax.lax.complex(x, normal_like(rng, x)), problems)
        problems = as_dtype(turned, dtype)

    def all_of(einsum):
        def f(problems):
            functions = [partial(einsum, spec) for spec, _ in specs]
            return [forward_and_backward(f, *p) for f, p in zip(functions, problems, strict=True)]

        return jax.jit(f, compiler_options=quick_options())(problems)

    for (spec, shapes), got, want in zip(specs, all_of(einsum), all_of(jnp.einsum), strict=True):
        try:
            assert_same_types(got, want)
            assert_close(got, want, 1e-12)
        except AssertionError as error:
            raise AssertionError(f"{spec!r} of {shapes}: {error}") from None


def test_the_generator_draws_every_feature():
    """At the seed of nothing special, among as many specs as the test above takes."""
    rng = np.random.default_rng(0)
    drawn = [random_spec(rng) for _ in range(320)]
    terms = [parse(spec) for spec, _ in drawn]
    count = {
        "diagonal": sum(any(t.count(c) > 1 and c in out for t in ts for c in set(t) - {"."}) for ts, out in terms),
        "trace": sum(any(t.count(c) > 1 and c not in out for t in ts for c in set(t) - {"."}) for ts, out in terms),
        "ellipsis": sum("..." in out for _, out in terms),
        "summed ellipsis": sum("..." not in out and "..." in "".join(ts) for ts, out in terms),
        "stretched": sum(any("1" in spec for spec in backward_specs(*one)) for one in drawn),
        "four operands": sum(len(shapes) == 4 for _, shapes in drawn),
        "implicit": sum("->" not in spec for spec, _ in drawn),
        "empty": sum(0 in shape for _, shapes in drawn for shape in shapes),
    }
    assert min(count.values()) >= 20, count


# The specs of the backward pass, as text

BACKWARD = {
    "nd,dp->np": ([(8, 3), (3, 5)], ("np,dp->nd", "nd,np->dp")),
    "dp,nd": ([(3, 5), (8, 3)], ("np,nd->dp", "dp,np->nd")),
    "ii": ([(4, 4)], ("->ii",)),
    "iij->j": ([(4, 4, 3)], ("j->iij",)),
    "nd->": ([(8, 3)], ("->nd",)),
    "nd,nd->nd": ([(8, 3), (1, 3)], ("nd,1d->nd", "nd,nd->1d")),
    "...d,dp->...p": ([(2, 4, 3), (3, 5)], ("ABp,dp->ABd", "ABd,ABp->dp")),
    "...A,...->...": ([(1, 2, 3), (4, 2)], ("BC,BC->1CA", "1CA,BC->BC")),
    "b a, b a -> a": ([(8, 3), (8, 3)], ("a,ba->ba", "ba,a->ba")),
    "ij,jk,kl->il": ([(2, 3), (3, 4), (4, 5)], ("il,jk,kl->ij", "ij,il,kl->jk", "ij,jk,il->kl")),
    ",": ([(), ()], (",->", ",->")),
}


@pytest.mark.parametrize("spec", BACKWARD)
def test_backward_specs(spec):
    shapes, texts = BACKWARD[spec]
    assert backward_specs(spec, shapes) == texts


def test_every_value_of_the_tree_is_used_once():
    program = steps("aai,ib,bj,j,kl->k", ((2, 2, 3), (3, 4), (4, 5), (5,), (6, 7)))
    used = sorted(place for step in program for place in step.at)
    assert used == [*range(5 + len(program) - 1)]
    assert all(len(step.at) == len(step.inputs) <= 2 for step in program)


def test_more_letters_than_the_alphabet_has():
    """52 letters named, and an ellipsis beside them."""
    spec = ",".join([*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY", "Z..."]) + "->..."
    shapes = [(1,)] * 51 + [(1, 2, 3)]
    assert backward_specs(spec, shapes)[-1].endswith("ÀÁ->ZÀÁ")
    assert einsum(spec, *(jnp.full(shape, 2.0) for shape in shapes)).tolist() == [[2.0**52] * 3] * 2


# Accuracy

WIDTHS = [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16]
SPECS = {
    "product": ("nd,dp->np", (7, 37), (37, 11)),
    "swapped product": ("dp,nd->np", (37, 11), (7, 37)),
    "trace": ("nii->n", (3, 19, 19)),
    "sum": ("nd->d", (29, 3)),
    "stretched": ("nd,nd->nd", (29, 5), (1, 5)),
    "outer": ("a,b->ab", (7,), (11,)),
}


@pytest.mark.parametrize("dtype", WIDTHS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", SPECS)
def test_every_entry_is_within_the_rounding_bound(name, dtype, rng):
    """`terms` roundings in the accumulator, one in the result, of a sum of products; to first order."""
    spec, *shapes = SPECS[name]
    exact = problem(rng, spec, *shapes)
    both = jax.jit(partial(forward_and_backward, partial(einsum, spec)), compiler_options=quick_options())
    got = both(*as_dtype(exact, dtype))
    want = forward_and_backward(partial(jnp.einsum, spec), *exact)
    magnitude = forward_and_backward(partial(jnp.einsum, spec), *jax.tree.map(jnp.abs, exact))
    unit = lambda t: float(jnp.finfo(t).eps) / 2
    accumulator = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
    bound = 1.01 * (64 * unit(accumulator) + unit(dtype))           # no sum here has more than 64 terms
    for value, truth, size in zip(*map(jax.tree.leaves, (got, want, magnitude)), strict=True):
        assert value.dtype == dtype
        assert np.all(np.abs(np.asarray(value, np.float64) - truth) <= bound * size)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda t: t.__name__)
def test_half_precision_accumulates_in_float32(dtype):
    """A bfloat16 accumulator stops at 256, a float16 one at 2048."""
    n = 50_000
    ones, eye = jnp.ones((n, 1), dtype), jnp.ones((), dtype)
    rounded = np.asarray(n).astype(dtype)
    assert einsum("nd->d", ones)[0] == rounded
    assert einsum("nd,nd->", ones, ones) == rounded
    assert einsum("nd,nd,->d", ones, ones, eye)[0] == rounded
    assert jax.grad(lambda s: einsum("nd,d->nd", ones, s).astype(jnp.float32).sum())(jnp.ones(1, dtype))[0] == rounded
    assert jax.grad(lambda s: einsum("n,->n", ones[:, 0], s).astype(jnp.float32).sum())(eye) == rounded
    assert jax.grad(lambda s: einsum("nd,nd->nd", ones, s).astype(jnp.float32).sum())(ones[:1])[0, 0] == rounded


# Dtypes

def test_complex_cotangents_are_transposed_not_conjugated(rng):
    X, W, dY = (jax.lax.complex(normal(rng, *s), normal(rng, *s)) for s in ((4, 5), (5, 3), (4, 3)))
    _, (dX, dW) = forward_and_backward(partial(einsum, "nd,dp->np"), (X, W), dY)
    assert_close((dX, dW), (dY @ W.T, X.T @ dY), 1e-12)
    assert np.abs(dW - X.conj().T @ dY).max() > 0.1


MIXED = [(jnp.float32, jnp.float64), (jnp.bfloat16, jnp.float32), (jnp.bfloat16, jnp.float16),
         (jnp.float64, jnp.complex128), (jnp.complex64, jnp.float64), (jnp.int32, jnp.float32)]  # fmt: skip


@pytest.mark.parametrize("dtypes", MIXED, ids=lambda ts: ",".join(t.__name__ for t in ts))
def test_mixed_dtypes_promote_and_their_cotangents_are_cast_back(dtypes, rng):
    X, W = (normal(rng, *s).astype(t) for s, t in zip(((4, 2, 5), (5, 3)), dtypes, strict=True))
    with jax.numpy_dtype_promotion("standard"):
        dY = normal(rng, 2, 3).astype(jnp.result_type(X, W))

        def both(einsum):
            if jnp.issubdtype(X.dtype, np.integer):
                return forward_and_backward(lambda W: einsum("nkd,dp->kp", X, W), (W,), dY)
            return forward_and_backward(partial(einsum, "nkd,dp->kp"), (X, W), dY)

        got, want = both(einsum), both(jnp.einsum)
    assert_same_types(got, want)
    exact = [t for t in dtypes if jnp.issubdtype(t, np.inexact)]
    assert_close(got, want, 8 * max(float(jnp.finfo(t).eps) for t in exact))


def test_strict_promotion_is_not_broken():
    with pytest.raises(Exception, match="no available implicit dtype promotion path"):
        einsum("i,i->i", jnp.ones(3, jnp.float32), jnp.ones(3, jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, bool], ids=lambda t: t.__name__)
@pytest.mark.parametrize("spec", ["ij,jk->ik", "ij,jk->", "ij,jk->kji"])
def test_integers_are_those_of_plain_jax(spec, dtype, rng):
    X, W = (jnp.asarray(rng.integers(0, 2, shape).astype(dtype)) for shape in ((4, 3), (3, 5)))
    got, want = (f(spec, X, W) for f in (einsum, jnp.einsum))
    assert got.dtype == want.dtype and np.array_equal(got, want)
    got, want = (f("ii", X[:3]) for f in (einsum, jnp.einsum))
    assert got.dtype == want.dtype and np.array_equal(got, want)


# What is kept and what is computed

def kept(f, *operands):
    """The shapes of the residuals."""
    return sorted(r.shape for r in jax.tree.leaves(jax.vjp(f, *operands)[1]))


def test_residuals_are_the_operands_that_the_others_need(rng):
    X, W, V = normal(rng, 8, 3), normal(rng, 3, 5), normal(rng, 5, 7)
    assert kept(partial(einsum, "nd,dp->np"), X, W) == [(3, 5), (8, 3)]
    assert kept(lambda X: einsum("nd,dp->np", X, W), X) == [(3, 5)]
    assert kept(lambda W: einsum("nd,dp->np", X, W), W) == [(8, 3)]
    assert kept(lambda W: einsum("nd,dp,pq->nq", X, W, V), W) == [(5, 7), (8, 3)]
    assert kept(partial(einsum, "nd,dp,pq->nq"), X, W, V) == [(3, 5), (5, 7), (8, 3)]
    assert kept(lambda X: einsum("nd,nd->n", X, X), X) == [(8, 3)]              # twice the same array
    for spec in ("nd->", "nd->dn", "...->..."):
        assert kept(partial(einsum, spec), X) == []
    assert kept(partial(einsum, "ii"), X[:3]) == []


def products(f, *operands):
    """The products in the forward and backward program, before it is optimized."""
    program = lambda *operands: forward_and_backward(f, operands, jnp.ones(jax.eval_shape(f, *operands).shape))
    return str(jax.make_jaxpr(program)(*operands)).count("dot_general")


def test_nothing_is_computed_for_operands_not_differentiated(rng):
    X, W, V = normal(rng, 8, 3), normal(rng, 3, 5), normal(rng, 5, 7)
    assert products(partial(einsum, "nd,dp->np"), X, W) == 3
    assert products(lambda X: einsum("nd,dp->np", X, W), X) == 2
    assert products(lambda W: einsum("nd,dp->np", X, W), W) == 2
    f = partial(einsum, "nd,dp,pq->nq")
    assert products(lambda X: f(X, W, V), X) == 2 + 2               # forward, and dY through the tree to the leaf
    assert products(lambda W: f(X, W, V), W) == 2 + 2
    assert products(lambda V: f(X, W, V), V) in (2 + 1, 2 + 2)      # beside the root of the tree or below


def test_a_tree_computes_as_many_products_as_autodiff(rng):
    """The values inside the tree are computed again, and the compiler sees that they are the same."""
    operands = normal(rng, 8, 3), normal(rng, 3, 5), normal(rng, 5, 7)
    count = {}
    for f in (einsum, jnp.einsum):
        program = partial(forward_and_backward, partial(f, "nd,dp,pq->nq"))
        text = jax.jit(program).lower(operands, normal(rng, 8, 7)).compile().as_text()
        count[f] = text.count(" dot(")
    assert count[einsum] == count[jnp.einsum] == 6


# Use

def test_the_same_object_twice(rng):
    X = normal(rng, 3, 4)
    got, want = (jax.grad(lambda X, f=f: jnp.sum(jnp.sin(f("nd,md->nm", X, X))))(X) for f in (einsum, jnp.einsum))
    assert_close(got, want, 1e-12)


def test_numpy_arrays_and_no_implicit_rank_promotion(rng):
    X, W = np.asarray(normal(rng, 1, 4, 3)), np.asarray(normal(rng, 2, 3, 5))
    with jax.numpy_rank_promotion("raise"):
        got = einsum("...nd,...dp->...np", X, W)
    assert isinstance(got, jax.Array)
    assert_close(got, X @ W, 1e-12)


def test_off_the_diagonal_nothing_is_read_and_zero_is_given():
    X = jnp.full((3, 3), jnp.nan).at[jnp.arange(3), jnp.arange(3)].set(2.0)
    value, dX = jax.value_and_grad(lambda X: einsum("ii,->", X, jnp.array(3.0)))(X)
    assert value == 18
    assert np.array_equal(dX, 3 * np.eye(3))


def test_the_work_of_reading_a_spec_is_done_once(rng):
    X, W = normal(rng, 4, 3), normal(rng, 3, 5)
    first = steps("nd,dp->np", (X.shape, W.shape))
    jax.grad(lambda X: einsum("nd,dp->np", X, W).sum())(X)
    assert steps("nd,dp->np", (X.shape, W.shape)) is first


def test_symbolic_sizes(rng):
    """One exported program for every number of examples."""
    X, W, s = normal(rng, 6, 3, 3), normal(rng, 3, 4), normal(rng, 6)
    n, = jax.export.symbolic_shape("n")
    types = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((n, 3, 3), (3, 4), (n,))]
    gradients = lambda f: jax.grad(lambda *x: jnp.sum(jnp.sin(f("nii,ip,n->np", *x))), (0, 1, 2))
    exported = jax.export.export(jax.jit(gradients(einsum)))(*types)
    assert_close(exported.call(X, W, s), gradients(jnp.einsum)(X, W, s), 1e-12)
