"""`derive_adjoint` against `jax.vjp`, against the products that it names, and as a reader sees it."""

import itertools
import math
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import derive_adjoint

pytestmark = pytest.mark.shared

MATRICES = ["nd,dp->np", "dn,dp->np", "nd,pd->np", "dn,pd->pn", "bnd,bdp->bnp", "btgd,bsgd->bgts"]
FORMS = [*MATRICES[:4], "i,j->ij", "i,j->ji", "i,i->", "ij,j->i", "j,ij->i", "ji,j->i", ",ij->ji", "ij,->ij", "i,ij->j"]


def value(spec, factors, sizes):
    """An einsum by its definition: a sum over all letters. Letters of the output may repeat, or be its own."""
    inputs, output = spec.split("->")
    terms, letters = inputs.split(","), "".join(dict.fromkeys(spec.replace(",", "").replace("->", "")))
    out = np.zeros([sizes[c] for c in output])
    for numbers in itertools.product(*(range(sizes[c]) for c in letters)):
        at = dict(zip(letters, numbers, strict=True))
        index = lambda term, at=at: tuple(at[c] for c in term)
        out[index(output)] += math.prod(x[index(term)] for term, x in zip(terms, factors, strict=True))
    return out


def random_spec(rng):
    """One to three operands of up to three axes; letters may repeat in a term, and any may be summed."""
    terms = ["".join(rng.choice(list("ijkl"), rng.integers(0, 4))) for _ in range(rng.integers(1, 4))]
    letters = sorted(set("".join(terms)))
    output = "".join(rng.permutation([c for c in letters if rng.random() < 0.6]))
    return f"{','.join(terms)}->{output}"


@pytest.mark.parametrize("part", range(8))
def test_200_random_specs_against_jax(part):
    rng = np.random.default_rng(part)
    for _ in range(25):
        spec = random_spec(rng)
        sizes = {c: int(rng.integers(1, 4)) for c in sorted(set(spec) - set(",->"))}
        of = derive_adjoint(spec, **sizes)
        operands = [rng.standard_normal(t.shape) for t in of.forward.factors]
        Y, back = jax.vjp(lambda *xs, spec=spec: jnp.einsum(spec, *xs), *operands)
        dY = rng.standard_normal(Y.shape)
        for i, (adjoint, want) in enumerate(zip(of.adjoints, back(jnp.asarray(dY)), strict=True)):
            given = [*operands[:i], dY, *operands[i + 1 :]]
            np.testing.assert_allclose(value(adjoint.spec, given, sizes), want, atol=1e-12, err_msg=f"{spec}, {i}")


@pytest.mark.parametrize("spec", FORMS)
def test_the_matrix_form_is_the_product(spec, rng):
    """Vectors are columns."""
    of = derive_adjoint(spec)
    for product in (of.forward, *of.adjoints):
        if product.form == product.formula:                         # Σ_ij X_ij W_ij is no product of matrices
            assert product.result.term == "" and len(product.factors[0].term) == 2
            continue
        factors = {t.name: rng.standard_normal(t.shape) for t in product.factors}
        columns = {name: x.reshape(x.shape[0] if x.ndim else 1, -1) for name, x in factors.items()}
        name, _, form = product.form.partition(" = ")
        a, b = (columns[f.rstrip("ᵀ")].T if f.endswith("ᵀ") else columns[f] for f in form.split(" "))
        got = a * b if 1 in (a.size, b.size) else a @ b
        want = value(product.spec, list(factors.values()), of.sizes)
        assert name == product.result.name
        np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-12, err_msg=product.form)


@pytest.mark.parametrize("spec", MATRICES)
@pytest.mark.parametrize("equal", [False, True])
def test_the_letters_leave_one_product_whatever_the_sizes(spec, equal):
    letters = set(spec) - set(",->")
    of = derive_adjoint(spec, **(dict.fromkeys(letters, 4) if equal else {}))
    for adjoint in of.adjoints:
        assert len(adjoint.candidates) == 8
        (right,) = [c for c in adjoint.candidates if c.right]
        assert adjoint.form == f"{adjoint.result.name} = {right.form}"
        fits = [c for c in adjoint.candidates if c.fits]
        assert fits == list(adjoint.candidates) if equal else fits == [right]


def test_the_matrix_form_of_one_operand():
    specs = ("i->i", "ij->ij", "ij->ji", "ii->i", "ijk->kji", "->")
    forms = {spec: derive_adjoint(spec).forward.form for spec in specs}
    assert forms == {
        "i->i": "Y = X", "ij->ij": "Y = X", "ij->ji": "Y = Xᵀ", "ii->i": "Y[i] = X[i i]",
        "ijk->kji": "Y[k j i] = X[i j k]", "->": "Y = X",
    }  # fmt: skip


def test_what_is_no_product_of_two_matrices_has_no_candidates():
    for spec in ("ii->", "nd->d", "i,j->ij", "ab,bc,cd->ad", "abc,cd->abd", "ij,ij->ij"):
        assert not any(adjoint.candidates for adjoint in derive_adjoint(spec).adjoints), spec


def test_flops_are_those_of_the_path():
    chain = derive_adjoint("ab,bc,cd->ad", a=2, b=30, c=40, d=50)
    assert chain.forward.flops == 2 * (2 * 30 * 40 + 2 * 40 * 50)
    assert derive_adjoint("i,j->ij", i=3, j=4).forward.flops == 12
    assert [p.flops for p in derive_adjoint("ii->", i=3).adjoints] == [0]


def test_text():
    said = str(derive_adjoint("nd,dp->np", n=8, d=3, p=5))
    assert max(map(len, said.splitlines())) <= 80
    for line in (
        'Y = X W    "nd,dp->np"',
        'dW = Xᵀ dY    "nd,np->dp"',
        "  dW[d p] = Σ_n X[n d] dY[n p]",
        "  n is summed: X and dY have it, W has not",
        "    X dY     (8, 3) (8, 5)  3 ≠ 8    d meets n",
        "    Xᵀ dY    (3, 8) (8, 5)  (3, 5)   (d, p): dW",
        "  By size 2 of 8 can be formed and 1 has the shape of W; the letters leave one.",
    ):
        assert line in said.splitlines(), line
    assert "i is on the diagonal of X, zero elsewhere" in str(derive_adjoint("ii->"))
    assert "A is repeated: X alone has it" in str(derive_adjoint("...d->d"))
    assert "dQ = dY K for each b, h" in str(derive_adjoint("bhtd,bhsd->bhts", names=("Q", "K")))


@pytest.mark.parametrize("spec", [*MATRICES, "ii->", "nd->d", "ab,bc,cd->ad", "->", "...ij->...ji"])
def test_html_is_well_formed_and_every_axis_is_drawn(spec):
    of = derive_adjoint(spec, names=[f"<{i}>" for i in range(spec.count(",") + 1)])
    root = ElementTree.fromstring(of._repr_html_())
    pictures = list(root.iter("{http://www.w3.org/2000/svg}svg"))
    assert len(pictures) == 1 + len(of.adjoints)
    for picture, product in zip(pictures, (of.forward, *of.adjoints), strict=True):
        words = [t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")]
        for factor in product.factors:
            assert factor.name in words
            assert all(f"{c} {n}" in words for c, n in zip(factor.term, factor.shape, strict=True))
        assert all(c in words for c in product.result.term)
        summed = set("".join(f.term for f in product.factors)) - set(product.result.term)
        assert {w for w in words if w.startswith("Σ")} == {f"Σ{c}" for c in summed}


@pytest.mark.parametrize(("error", "message", "spec", "options"), [
    (TypeError, "spec must be a string like 'nd,dp->np', got int", 3, {}),
    (ValueError, "'->' stands once", "a->b->c", {}),
    (ValueError, "has no axis 'x': its letters are n, d", "nd->n", {"x": 3}),
    (TypeError, "the size of axis n must be an integer, got 2.5", "nd->n", {"n": 2.5}),
    (ValueError, "the size of axis n must not be negative, got -1", "nd->n", {"n": -1}),
    (ValueError, r"names must be 2 different ones, one an operand, got \['A'\]", "nd,dp->np", {"names": ["A"]}),
])  # fmt: skip
def test_bad_input(error, message, spec, options):
    with pytest.raises(error, match=message):
        derive_adjoint(spec, **options)
