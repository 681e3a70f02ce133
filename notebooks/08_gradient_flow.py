# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Gradient flow: vanish, explode, die, and how to mend it
#
# A deep network is a product of maps, and its backward pass is the product of their adjoints *in reverse order*. A
# product of many factors is rarely of size one. This notebook measures what comes back to each layer, says why it is
# too little or too much, and mends it.
#
# **After it you can**
#
# - bound the gradient of any layer by singular values, and say when the bound is reached;
# - explain why $\|dW\|$ looks healthy in a network whose gradients vanish;
# - derive the variance that weights must start with, and check it in a picture;
# - tell small weights from flat activations, dead units and numbers that are none, by one call of
#   `adjax.gradient_flow`.
#
# As everywhere in adjax $dA$ is the *cotangent* of $A$. Every claim stands beside an `assert`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from adjax import AffineParams, affine, gradient_flow, layer_norm, plot

D, N, DEPTH = 64, 128, 16
X = jax.random.normal(jax.random.key(0), (N, D))


def network(variance, depth=DEPTH, seed=1):
    """`depth` layers of D × D, their entries of this variance."""
    keys = jax.random.split(jax.random.key(seed), depth)
    return [AffineParams(jnp.sqrt(variance) * jax.random.normal(k, (D, D)), jnp.zeros(D)) for k in keys]


def loss(params, X, act):
    for layer in params:
        X = act(affine(layer, X))
    return jnp.mean(X**2)


def flow_of(params, act):
    return gradient_flow(lambda params, X: loss(params, X, act), params, X)


# %% [markdown]
# ## 1 · What comes back
#
# Layer $\ell$ computes $Y_\ell = X_{\ell-1} W_\ell + b_\ell$ and $X_\ell = \varphi(Y_\ell)$. Going back,
#
# $$dX_{\ell-1} = dY_\ell\, W_\ell^\top, \qquad dY_{\ell} = \varphi'(Y_{\ell}) \odot dX_{\ell},$$
#
# so with the largest singular value $\sigma_{\max}$ of each matrix
#
# $$\|dY_{\ell}\| \;\le\; \sup|\varphi'| \cdot \sigma_{\max}(W_{\ell+1}) \cdot \|dY_{\ell+1}\|.$$
#
# Sixteen layers whose $\sigma_{\max}$ is 0.2 leave at most $0.2^{15} \approx 3 \cdot 10^{-11}$.

# %%
small = flow_of(network(0.01 / D), jnp.tanh)
print(small)

for earlier, later in zip(small.layers, small.layers[1:], strict=False):
    assert earlier.cotangent <= 1.0001 * later.largest * later.cotangent  # tanh' ≤ 1
first, last = small.layers[0], small.layers[-1]
assert last.cotangent / first.cotangent > 1e10
assert "shrink" in small.verdict[0] and "σ_max(W)" in small.verdict[0]

# %% [markdown]
# ## 2 · Why $\|dW\|$ does not tell
#
# Look at the column ‖dW‖: it is the same in every layer, to a factor of ten, while ‖dY‖ falls by fourteen orders of
# magnitude. For $dW_\ell = X_{\ell-1}^\top dY_\ell$, and what shrinks $dY$ on the way back shrank $X$ on the way
# forth: early layers see a large $X$ and a small $dY$, late ones the reverse. **Watch $dY$, not $dW$.**

# %%
gradients = np.array([layer.gradient for layer in small.layers])
cotangents = np.array([layer.cotangent for layer in small.layers])
assert gradients.max() / gradients.min() < 10
assert cotangents.max() / cotangents.min() > 1e10

axes = plot.flow(small)
plt.show()

# %% [markdown]
# ## 3 · The variance that keeps the size
#
# An entry of $Y = XW$ is a sum of $d$ products. With independent weights of mean 0 and variance $v$ it has variance
# $d\,v\,\overline{x^2}$, so the identity keeps its size at $v = 1/d$. A `relu` halves the mean square of what comes in
# symmetrically, so there it takes $v = 2/d$. Back, $dX = dY W^\top$ is a sum over the *outputs*, and the same count
# holds with the number of outputs for $d$.

# %%
fig, all_axes = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained", sharey=True)
verdicts = {}
for one, (title, variance) in zip(
    all_axes, {"variance 0.5/d": 0.5 / D, "variance 2/d": 2 / D, "variance 8/d": 8 / D}.items(), strict=True
):
    flow = flow_of(network(variance), jax.nn.relu)
    verdicts[title] = flow.verdict
    plot.flow(flow, one)
    one.set_title(title)
plt.show()

assert "shrink" in verdicts["variance 0.5/d"][0]
assert verdicts["variance 2/d"] == ()
assert "grow" in verdicts["variance 8/d"][0]

# %% [markdown]
# ## 4 · Not the matrices: flat activations
#
# The slope of a sigmoid is at most ¼. Matrices that keep the size do not help then: every layer still divides by four
# or more. `gradient_flow` compares $\|dY W^\top\|$ with $\|dY\|$, sees that the matrices are innocent, and says so.
# Normalizing each row does not make a sigmoid steep, but an activation of slope one does.

# %%
flat = flow_of(network(1 / D), jax.nn.sigmoid)
print(*flat.verdict)
assert "not by the matrices" in flat.verdict[0]
for earlier, later in zip(flat.layers, flat.layers[1:], strict=False):
    assert earlier.cotangent <= 0.2501 * later.largest * later.cotangent  # sigmoid' ≤ 1/4

assert flow_of(network(1 / D), jnp.tanh).healthy

# %% [markdown]
# Where weights are too small, normalizing does help: the adjoint of `layer_norm` divides by the deviation of its input,
# so what the matrix took away comes back.

# %%


def normalized(params, X):
    for layer in params:
        X = jnp.tanh(layer_norm((None, None), affine(layer, X)))
    return jnp.mean(X**2)


mended = gradient_flow(normalized, network(0.01 / D), X)
assert not small.healthy and mended.healthy

# %% [markdown]
# ## 5 · The spectrum
#
# One number for each matrix is not all: a random square matrix has singular values from about $2\sqrt{dv}$ down to
# almost nothing, so most directions shrink even where the norm is kept. An orthogonal matrix has all of them equal,
# and then the bound of section 1 is an equation for the identity: nothing vanishes at any depth.

# %%
gauss = np.asarray(network(1 / D)[0].W)
orthogonal = np.linalg.qr(gauss)[0]
plot.spectrum({"gaussian, variance 1/d": gauss, "orthogonal": orthogonal})
plt.show()

assert 1.6 < np.linalg.norm(gauss, 2) < 2.2
assert np.allclose(np.linalg.svd(orthogonal, compute_uv=False), 1, atol=1e-5)

turned = [AffineParams(jnp.asarray(orthogonal), jnp.zeros(D))] * 1 + [
    AffineParams(jnp.asarray(np.linalg.qr(np.asarray(p.W))[0]), p.b) for p in network(1 / D)[1:]
]
kept = flow_of(turned, lambda x: x)
assert np.allclose([layer.cotangent for layer in kept.layers], kept.layers[-1].cotangent, rtol=1e-3)

# %% [markdown]
# ## 6 · Dead, and not a number
#
# A `relu` whose input is negative for the whole batch passes nothing, forth or back. And where a value is no number
# the verdict names the first operation that made one, or, where only the backward pass breaks, between which layers.

# %%
params = network(2 / D)
params[7] = params[7]._replace(b=jnp.where(jnp.arange(D) < 56, -100.0, 0.0))
dead = flow_of(params, jax.nn.relu)
print(*dead.verdict, sep="\n")
assert any("[7].W are dead" in line for line in dead.verdict)


def broken(params, X):
    for i, layer in enumerate(params):
        X = jnp.tanh(affine(layer, X))
        X = jnp.log(X) if i == 5 else X
    return jnp.mean(X**2)


print(*gradient_flow(broken, network(1 / D), X).verdict)
assert "from log after [5]" in gradient_flow(broken, network(1 / D), X).verdict[0]

# %% [markdown]
# ## 7 · Exercises
#
# **1.** Add the input of each layer to its output, $X_\ell = X_{\ell-1} + \varphi(Y_\ell)$. Show that the network with
# variance $0.01/d$ no longer vanishes, and say why in terms of the adjoint.
#
# <details>
# <summary>Solution</summary>
#
# The adjoint of $x \mapsto x + f(x)$ is $dX = dY + \text{(adjoint of } f)\,dY$: whatever $f$ does, $dY$ itself arrives.
#
# </details>
#
# **2.** One layer of a healthy `tanh` network is multiplied by $10^{-5}$. Which layer does the verdict name, and which
# layers have small $\|dY\|$?
#
# <details>
# <summary>Solution</summary>
#
# It names that layer; all layers *before* it are starved, for $dY$ passes through it on the way back to them.
#
# </details>
#
# **3.** In a linear network of orthogonal matrices times $s$, how does $\|dW_\ell\|$ depend on $\ell$?
#
# <details>
# <summary>Solution</summary>
#
# Not at all: $\|X_{\ell-1}\|$ has $\ell-1$ factors $s$, $\|dY_\ell\|$ has $L-\ell$, together always $L-1$.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all three solutions.

# %% jupyter={"source_hidden": true}


def residual(params, X):
    for layer in params:
        X = X + jnp.tanh(affine(layer, X))
    return jnp.mean(X**2)


assert gradient_flow(residual, network(0.01 / D), X).healthy

params = network(1 / D)
params[9] = params[9]._replace(W=1e-5 * params[9].W)
starved = flow_of(params, jnp.tanh)
assert "mostly at [9].W" in starved.verdict[0]
assert max(layer.cotangent for layer in starved.layers[:9]) < 1e-3 * starved.layers[9].cotangent

scaled = [AffineParams(0.5 * p.W, p.b) for p in turned]
slopes = np.array([layer.gradient for layer in flow_of(scaled, lambda x: x).layers])
assert slopes.max() / slopes.min() < 3 and flow_of(scaled, lambda x: x).layers[0].cotangent < 1e-3 * last.norm
print("all three hold")

# %% [markdown]
# ## In one breath
#
# What comes back to a layer is a product of adjoints: matrices by their singular values, activations by their slopes.
# Keep each factor near one: variance $1/d$ or $2/d$, activations of slope one, normalization or a way around. And watch
# $dY$, for $dW = X^\top dY$ hides it.
