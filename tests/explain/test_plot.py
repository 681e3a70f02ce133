"""Pictures hold what they are made of; axes are taken and returned; matplotlib is imported when one is drawn."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjax
from adjax import AffineParams, derive_adjoint, explain, gradient_flow, plot
from tests.cases import normal

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def network(rng, bias):
    params = [AffineParams(normal(rng, 6, 6), jnp.full(6, b, float)) for b in bias]

    def loss(params, X):
        for layer in params:
            X = jax.nn.relu(adjax.affine(layer, X))
        return jnp.sum(X)

    return gradient_flow(loss, params, normal(rng, 5, 6))


def test_flow(rng):
    of = network(rng, [0.0, 3.0, 0.0])
    axes = plot.flow(of)
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert list(lines["‖dY‖"]) == [layer.cotangent for layer in of.layers]
    assert list(lines["‖Y‖"]) == [layer.activation for layer in of.layers]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["[0].W", "[1].W", "[2].W"]
    axes.figure.canvas.draw()


def test_dead_layers_are_marked(rng):
    axes = plot.flow(network(rng, [0.0, -100.0]), pyplot.figure().add_subplot())
    assert "dead units" in [t.get_text() for t in axes.get_legend().get_texts()]
    assert axes.get_title().startswith("no gradient comes to")


def test_spectrum(rng):
    W = {"a": normal(rng, 4, 3), "kernel": normal(rng, 2, 2, 3, 5), "b": normal(rng, 3)}
    own = pyplot.figure().add_subplot()
    assert plot.spectrum(W, own) is own
    curves = {line.get_label(): line.get_ydata() for line in own.get_lines()}
    assert set(curves) == {"['a']", "['kernel']"}
    np.testing.assert_allclose(curves["['kernel']"], np.linalg.svd(W["kernel"].reshape(12, 5), compute_uv=False))
    with pytest.raises(ValueError, match="no array of two axes"):
        plot.spectrum(W["b"])


def test_shapes():
    of = derive_adjoint("nd,dp->np", n=8, d=3, p=5)
    axes = plot.shapes(of)
    assert [one.get_title() for one in axes] == ["Y = X W", "dX = dY Wᵀ", "dW = Xᵀ dY"]
    words = {t.get_text() for t in axes[2].texts}
    assert words == {"X", "dY", "dW", "n 8", "d 3", "p 5", "Σn", "d", "p"}
    axes[0].figure.canvas.draw()
    own = pyplot.subplots(1, 2)[1]
    returned = plot.shapes(derive_adjoint("nd->d"), own)
    assert list(returned) == list(own) and len(own[1].get_lines()) == 1               # the ring of what is repeated
    with pytest.raises(ValueError, match="3 axes are needed, one for each product, got 2"):
        plot.shapes(of, own)


def test_memory():
    of = explain(adjax.relu, jax.ShapeDtypeStruct((4, 5), jnp.float32))
    axes = plot.memory({"first": of, "second": of})
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        f"{name}, {said}" for name in ("first", "second") for said in ("as written", "plain autodiff")
    ]
    residuals, _ = axes.containers
    assert [bar.get_width() for bar in residuals] == [20, 80, 20, 80]
    assert [t.get_text() for t in plot.memory(of).get_yticklabels()] == ["relu, as written", "relu, plain autodiff"]


def test_importing_the_package_imports_no_matplotlib():
    program = "import sys, adjax; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
