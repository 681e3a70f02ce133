"""The worked example: the issue's numbers, a verdict that can fail, and text for every kind of output."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import AffineParams
from adjax.examples import worked_example
from adjax.examples.terminal import ESCAPE, Terminal
from adjax.examples.worked_example import compute, plain, probe, render

EXPECTED = {"W": [[2, 2], [2, 2]], "X": [[3, 2], [3, 2], [3, 2]], "b": [3, 3]}


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_values_are_the_known_ones():
    example = compute()
    np.testing.assert_array_equal(example.Y, [[2.5, -1], [-0.5, 1], [1.5, 2]])
    np.testing.assert_array_equal(example.dY, np.ones((3, 2)))
    assert [gradient.argument for gradient in example.gradients] == list(EXPECTED)
    for gradient in example.gradients:
        for value in (gradient.spelled, gradient.vjp, gradient.transposed):
            np.testing.assert_array_equal(value, EXPECTED[gradient.argument])
        assert gradient.Jv_u == gradient.v_JTu
        assert gradient.disagreements == ()
    assert example.agrees


@pytest.mark.parametrize("seed", range(1, 6))
def test_inner_products_agree_for_every_draw(seed):
    first, other = compute(), compute(seed=seed)
    assert other.agrees
    assert [g.Jv_u for g in other.gradients] != [g.Jv_u for g in first.gradients]


def test_probes_are_signed_integers_without_zero():
    v = np.asarray(probe(np.random.default_rng(0), jnp.zeros((40, 50))))
    assert set(np.unique(v)) == {*range(-9, 0), *range(1, 10)}


def planted(**wrong):
    """An affine layer whose backward rule is right but for the named gradients."""

    @jax.custom_vjp
    def layer(params, X):
        return plain(*params, X)

    def bwd(residuals, dY):
        W, X = residuals
        right = {"W": X.T @ dY, "b": dY.sum(0), "X": dY @ W.T}
        of = {name: wrong[name](right[name], dY) if name in wrong else right[name] for name in right}
        return AffineParams(of["W"], of["b"]), of["X"]

    layer.defvjp(lambda params, X: (layer.fun(params, X), (params.W, X)), bwd)
    return layer


PLANTS = {
    "factor": ("W", lambda dW, dY: 1.0005 * dW, {"jax.vjp", "jax.linear_transpose", "the adjoint of J"}),
    "one entry": ("X", lambda dX, dY: dX.at[1, 0].add(1), {"jax.vjp", "jax.linear_transpose", "the adjoint of J"}),
    "mean for sum": ("b", lambda db, dY: dY.mean(0), {"jax.vjp", "jax.linear_transpose", "the adjoint of J"}),
    "not a number": ("b", lambda db, dY: db * jnp.nan, {"jax.vjp", "jax.linear_transpose", "the adjoint of J"}),
    "right for ones only": ("b", lambda db, dY: (dY * dY).sum(0), {"the adjoint of J"}),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_wrong_rule_is_seen(plant):
    name, rule, complaints = PLANTS[plant]
    example = compute(planted(**{name: rule}))
    assert not example.agrees
    assert {g.argument: set(g.disagreements) for g in example.gradients if g.disagreements} == {name: complaints}


def test_exit_status_is_the_verdict(monkeypatch, capsys):
    assert worked_example.main() == 0
    assert "3 of 3 gradients agree" in capsys.readouterr().out
    name, rule, _ = PLANTS["right for ones only"]
    monkeypatch.setattr(worked_example, "compute", lambda: compute(planted(**{name: rule})))
    assert worked_example.main() == 1
    out = capsys.readouterr().out
    assert "✗ spelled is not the adjoint of J" in out
    assert "✗ 2 of 3 gradients agree" in out


def test_text_shows_shapes_values_and_products_in_80_columns():
    text = render(compute(), Terminal(io.StringIO()))
    for line in ("(d,n)(n,p) → (d,p)    (2,3)(3,2) → (2,2)", "(n,p)(p,d) → (n,d)", "(n,p) → (p)", "[ -0.5   1 ]"):
        assert line in text
    for product in ("⟨J v, u⟩", "⟨v, Jᵀ u⟩", "difference"):
        assert text.count(product) >= 3
    assert max(map(len, text.splitlines())) <= 80
    assert not ESCAPE.search(text)


def test_colour_on_a_terminal_only_and_never_with_no_color(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    example, plain_text = compute(), render(compute(), Terminal(io.StringIO()))
    coloured = render(example, Terminal(Screen()))
    assert "\x1b[32m✓" in coloured
    assert ESCAPE.sub("", coloured) == plain_text
    monkeypatch.setenv("NO_COLOR", "1")
    assert render(example, Terminal(Screen())) == plain_text
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert render(example, Terminal(Screen())) == plain_text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_symbols_only_where_the_encoding_carries_them(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal = Terminal(stream)
    terminal.print(render(compute(), terminal))
    text = stream.buffer.getvalue().decode("ascii")
    assert "dW = X^T dY    (d,n)(n,p) -> (d,p)" in text
    assert "<v, J^T u>" in text
    assert max(map(len, text.splitlines())) <= 80
