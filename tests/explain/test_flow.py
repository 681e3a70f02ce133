"""`gradient_flow` on networks made to fail in one way each, and on healthy ones, of which it has nothing to say."""

import xml.etree.ElementTree as ElementTree
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjax
from adjax import AffineParams, ConvParams, affine, gradient_flow
from adjax.explain.spectrum import bidiagonalized, singular_values

D, N = 16, 24


def weights(rng, depth=10, scale=1.0, bias=0.0, each=None):
    """Matrices of variance scale²/d; `each` changes some of them."""
    scales = {**dict.fromkeys(range(depth), 1.0), **(each or {})}
    draw = lambda s: jnp.asarray(rng.standard_normal((D, D)) * s * scale / D**0.5, jnp.float32)
    return [AffineParams(draw(scales[i]), jnp.full(D, bias, jnp.float32)) for i in range(depth)]


def stack(params, X, act=jnp.tanh, end=lambda X: jnp.mean(X * X), inside=None):
    """A network of affine layers; `inside` stands after the layer of a number."""
    for i, layer in enumerate(params):
        X = act(affine(layer, X))
        X = inside[i](X) if inside and i in inside else X
    return end(X)


def residual(params, X):
    for layer in params:
        X = X + 0.3 * jnp.tanh(affine(layer, X))
    return jnp.mean(X * X)


def normalized(params, X):
    for layer, scale in params:
        X = adjax.gelu(adjax.layer_norm((scale, None), affine(layer, X)))
    return jnp.mean(X * X)


def images(params, X):
    kernel, last = params
    Y = adjax.relu(adjax.conv(kernel, X.reshape(-1, 4, 4, 1), padding="SAME"))
    return adjax.cross_entropy(affine(last, Y.reshape(len(X), -1)), jnp.arange(len(X)) % 3)


relu, cut = jax.nn.relu, jax.lax.stop_gradient
he = partial(weights, scale=2**0.5)
FAILING = {
    "vanish: small weights": (stack, partial(weights, scale=0.1), ["shrink", "σ_max(W) ≈ 0.", "variance 1/d"]),
    "vanish: sigmoids": (partial(stack, act=jax.nn.sigmoid), weights, ["shrink", "what stands between"]),
    "vanish: one small layer": (stack, partial(weights, each={4: 1e-4}), ["shrink", "mostly at [4].W", "too small"]),
    "vanish: a scale": (partial(stack, inside={5: lambda X: 1e-4 * X}), weights, ["shrink", "what stands between"]),
    "explode: large weights": (partial(stack, act=relu), partial(weights, scale=8.0), ["grow", "σ_max(W) ≈ 1"]),
    "explode: one large layer": (
        partial(stack, act=lambda x: x), partial(weights, depth=5, each={2: 1e5}), ["grow", "mostly at [2].W", "large"]
    ),
    "explode: a scale": (partial(stack, inside={3: lambda X: 1e5 * X}, act=relu), he, ["grow", "what stands between"]),
    "die: a low bias": (partial(stack, act=relu), partial(he, bias=-20.0), ["no gradient comes to [0].W, ..., [9].W"]),
    "die: most of a layer": (
        partial(stack, act=relu, inside={2: lambda X: X.at[:, 4:].set(0)}), he, ["% of the units of [2].W are dead"]
    ),
    "cut off": (partial(stack, inside={3: cut}), weights, ["[3].W (4 layers)", "between [4].W and [3].W"]),
    "NaN in a parameter": (stack, partial(weights, each={3: np.nan}), ["[3].W is not finite: NaN"]),
    "NaN from an operation": (
        partial(stack, inside={6: lambda X: jnp.log(X - 2)}), weights, ["the loss is nan", "from log after [6]."]
    ),
    "overflow": (
        partial(stack, act=lambda x: x), partial(weights, scale=1e8), ["the loss is ", "first value that is not finite"]
    ),
    "NaN in the backward pass": (
        partial(stack, inside={5: lambda X: X + jnp.sqrt(X * 0)}), weights, ["break between [6].W and [5].W", "slope"]
    ),
}  # fmt: skip
HEALTHY = {
    "tanh, variance 1/d": (stack, weights),
    "relu, variance 2/d": (partial(stack, act=relu), he),
    "identity, one layer": (partial(stack, act=lambda x: x), partial(weights, depth=1)),
    "residual": (residual, partial(weights, depth=20)),
    "layer_norm": (normalized, lambda rng: [(p, jnp.ones(D, jnp.float32)) for p in weights(rng, scale=0.05)]),
    "images": (images, lambda rng: (
        ConvParams(jnp.asarray(rng.standard_normal((3, 3, 1, 4)) / 3, jnp.float32), jnp.zeros(4, jnp.float32)),
        AffineParams(jnp.asarray(rng.standard_normal((64, 3)) / 8, jnp.float32), jnp.zeros(3, jnp.float32)),
    )),
}  # fmt: skip


def inputs(rng):
    return jnp.asarray(rng.standard_normal((N, D)), jnp.float32)


@pytest.mark.parametrize("name", FAILING)
def test_what_is_wrong_is_named(name, rng):
    loss, make, words = FAILING[name]
    flow = gradient_flow(loss, make(rng), inputs(rng))
    assert not flow.healthy
    assert all(word in " | ".join(flow.verdict) for word in words), str(flow)


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_a_healthy_network(name, rng):
    loss, make = HEALTHY[name]
    flow = gradient_flow(loss, make(rng), inputs(rng))
    assert flow.healthy and np.isfinite(flow.loss), str(flow)


def test_the_figures(rng):
    """Against their definitions."""
    params, X = weights(rng, depth=3), inputs(rng)
    flow = gradient_flow(stack, params, X)
    value, gradients = jax.value_and_grad(stack)(params, X)
    np.testing.assert_allclose(flow.loss, value, rtol=1e-6)
    assert [layer.name for layer in flow.layers] == ["[0].W", "[1].W", "[2].W"]
    product = 1.0
    for layer, (W, _), (dW, _) in zip(flow.layers, params, gradients, strict=True):
        sigma = np.linalg.svd(np.asarray(W, np.float64), compute_uv=False)
        product *= sigma[0]
        want = (np.linalg.norm(W), np.linalg.norm(dW), np.linalg.norm(dW) / np.linalg.norm(W), sigma[0], sigma[-1])
        np.testing.assert_allclose(layer[2:7], want, rtol=1e-5)
        np.testing.assert_allclose((layer.condition, layer.product), (sigma[0] / sigma[-1], product), rtol=1e-5)
    Y = affine(params[2], jnp.tanh(affine(params[1], jnp.tanh(affine(params[0], X)))))
    dY = 2 * jnp.tanh(Y) * (1 - jnp.tanh(Y) ** 2) / Y.size
    last = flow.layers[2]
    norm = np.linalg.norm
    np.testing.assert_allclose((last.activation, last.cotangent), (norm(Y - params[2].b), norm(dY)), rtol=1e-5)
    np.testing.assert_allclose(last.gain, norm(dY @ params[2].W.T) / norm(dY), rtol=1e-5)


def test_layers_inside_jit_and_shared_and_embedded(rng):
    """A compiled loss; a matrix used twice is one layer, at its first use; a table is a layer."""
    table, W = (jnp.asarray(rng.standard_normal(s) / 4, jnp.float32) for s in ((7, D), (D, D)))

    @jax.jit
    def loss(params, ids):
        X = jnp.tanh(adjax.embed(params["table"], ids) @ params["W"])
        return jnp.mean((X @ params["W"]) ** 2)

    flow = gradient_flow(loss, {"table": table, "W": W}, jnp.array([1, 2, 5]))
    assert [layer.name for layer in flow.layers] == ["['table']", "['W']"] and flow.healthy, str(flow)


def test_singular_values_of_large_matrices(rng):
    """σ_max to rounding where it stands out; σ_min from above."""
    W = rng.standard_normal((60, 90))
    W += 20 * np.outer(rng.standard_normal(60), rng.standard_normal(90)) / 9
    exact = np.linalg.svd(W, compute_uv=False)
    few = bidiagonalized(lambda v: W @ v, lambda u: W.T @ u, W.shape, 20)
    np.testing.assert_allclose(few[0], exact[0], rtol=1e-9)
    assert exact[-1] <= few[-1] <= exact[0]
    all_steps = bidiagonalized(lambda v: W @ v, lambda u: W.T @ u, W.shape, 60)
    np.testing.assert_allclose(all_steps, exact, rtol=1e-8)
    low_rank = np.outer(np.arange(5.0), np.ones(4))
    values = bidiagonalized(lambda v: low_rank @ v, lambda u: low_rank.T @ u, (5, 4), 4)
    np.testing.assert_allclose(values[0], np.linalg.norm(low_rank), rtol=1e-9)
    assert singular_values(np.zeros((0, 3))) == (0.0, 0.0)
    assert np.isnan(singular_values(np.full((2, 2), np.nan))).all()


def test_text_and_html(rng):
    flow = gradient_flow(stack, weights(rng, scale=0.1), inputs(rng))
    lines = str(flow).splitlines()
    assert lines[1].split()[:2] == ["layer", "shape"] and lines[-1] == flow.verdict[0] and len(lines) == 13
    assert "[9].W" in [cell.text for cell in ElementTree.fromstring(flow._repr_html_()).iter("td")]
    assert "gradients flow" in str(gradient_flow(stack, weights(rng), inputs(rng)))


@pytest.mark.parametrize(("error", "message", "loss", "params"), [
    (TypeError, "the loss must return a real floating scalar", lambda p: p["W"], {"W": jnp.ones((2, 2), jnp.float32)}),
    (ValueError, "no parameter has two axes", lambda p: jnp.sum(p), jnp.ones(3, jnp.float32)),
    (TypeError, "no argument has a floating or complex leaf", lambda p: p, 3),
])  # fmt: skip
def test_bad_input(error, message, loss, params):
    with pytest.raises(error, match=f"gradient_flow: {message}"):
        gradient_flow(loss, params)


def test_probes_report_beside_the_layers(rng):
    """Inside a scan too, where the layers are one: the reports of its steps add up, forward and back."""
    W = jnp.asarray(rng.standard_normal((3, D, D)) / D**0.5, jnp.float32)
    X = jnp.asarray(rng.standard_normal((N, D)), jnp.float32)

    def loss(W, X):
        step = lambda X, W: (adjax.probe("h", adjax.relu(X @ W)), None)
        return jnp.mean(jax.lax.scan(step, X, W)[0])

    flow = gradient_flow(loss, W, X)
    assert flow.probes["h"].value.entries == flow.probes["h"].cotangent.entries == 3 * N * D
    assert 0 < flow.probes["h"].value.zeros < 3 * N * D
    assert str(flow.probes) in str(flow) and "cotangent" in flow._repr_html_()
    bare = gradient_flow(partial(stack), weights(rng, depth=2), X)
    assert not bare.probes and "cotangent" not in str(bare)
