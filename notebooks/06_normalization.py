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
# # 6 · Normalization: a projector on the way back
#
# `layer_norm`, `rms_norm` and `batch_norm` take a mean away and divide by a deviation. Their backward pass looks worse
# than it is: it is **the same map as the derivative**, and that map is a projector divided by $\sigma$. Two directions
# are removed, all others pass unharmed.
#
# **After it you can**
#
# - derive the adjoint of a normalization, and see why forward and backward are one map;
# - name the directions that it removes from a gradient, and say what that does to the layer before it;
# - say what $\varepsilon$ changes, and where;
# - count what the backward pass must keep: the input, and one or two numbers a row;
# - see which normalization couples examples, and what that takes on several devices;
# - compute a variance that half precision does not destroy.
#
# $dA$ is the *cotangent* of $A$, $\delta A$ a *tangent*, a small change. Every claim stands beside an `assert`; all
# numbers are float64 but where another dtype is the subject.

# %%
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from adjax import BatchState, any_mode, batch_norm, certify, explain, inner, layer_norm, plot, rms_norm

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8a8a"  # safe for the colour-blind
TINY = 1e-14  # an ε too small to matter, until section 5
BARE = (None, None)  # no scale, no bias: they are the easy part


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def close(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-9)


# %% [markdown]
# ## 1 · The map, and its derivative
#
# One row $x$ with $d$ features:
#
# $$\hat x = \frac{x - \mu}{\sigma}, \qquad \mu = \tfrac1d \mathbf 1^\top x, \qquad
#   \sigma^2 = \tfrac1d \|x - \mu\|^2.$$
#
# What comes out has mean 0 and mean square 1: $\hat x \perp \mathbf 1$, and both have the length $\sqrt d$. Now change
# $x$ by $\delta x$. The mean moves by $\delta\mu = \tfrac1d \mathbf 1^\top \delta x$. The deviation moves by
# $\delta\sigma = \tfrac1d \hat x^\top \delta x$, for $2\sigma\,\delta\sigma = \tfrac2d (x - \mu)^\top (\delta x -
# \mathbf 1\,\delta\mu)$ and $x - \mu \perp \mathbf 1$. So with the quotient rule
#
# $$\delta\hat x = \frac{\delta x - \mathbf 1\,\delta\mu - \hat x\,\delta\sigma}{\sigma} = J\,\delta x, \qquad
#   \boxed{\,J = \frac1\sigma \Big( I - \frac{\mathbf 1 \mathbf 1^\top}{d} - \frac{\hat x \hat x^\top}{d} \Big)\,}$$

# %%
d = 8
x = 3 + 2 * normal(0, d)
one = np.ones(d)
μ, σ = x.mean(), x.std()


@jax.jit
def layer(x):
    return layer_norm(BARE, x, eps=TINY)


x_hat = np.asarray(layer(x))
assert close(x_hat, (x - μ) / σ)
assert close(x_hat @ one, 0) and close(x_hat @ x_hat, d) and one @ one == d

P = np.eye(d) - np.outer(one, one) / d - np.outer(x_hat, x_hat) / d
units = np.eye(d)
J = jax.vmap(lambda v: jax.jvp(layer, (x,), (v,))[1], out_axes=1)(units)  # columns, from tangents
JT = jax.vmap(lambda u: jax.vjp(layer, x)[1](u)[0], out_axes=1)(units)    # columns, from cotangents
assert close(J, P / σ)
assert close(JT, J)

# %% [markdown]
# **$J$ is symmetric**, so $J^\top = J$ and there is nothing to transpose: `jax.jvp` and `jax.vjp` of the bare layer
# are one function. The rule in `adjax/layers/normalization_layer.py` is the boxed formula, read as it stands.

# %% jupyter={"source_hidden": true}
panels = {"$I$": np.eye(d), r"$-\;\mathbf{1}\mathbf{1}^\mathsf{T}/d$": -np.outer(one, one) / d,
          r"$-\;\hat x\hat x^\mathsf{T}/d$": -np.outer(x_hat, x_hat) / d, r"$=\;\sigma J$": σ * J}  # fmt: skip
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
    for one_axes, (title, matrix) in zip(axes, panels.items(), strict=True):
        image = one_axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        one_axes.set_title(title, fontsize=20)
        one_axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-1, 0, 1])
    plt.show()

# %% [markdown]
# ## 2 · A projector
#
# $P = \sigma J$ takes a vector apart and keeps all but two of its components, those along $\mathbf 1$ and along
# $\hat x$. Its own square, its own transpose: an orthogonal projector, of rank $d - 2$.

# %%
assert close(P @ P, P)
assert close(P.T, P)
assert close(np.linalg.eigvalsh(P), [0.0, 0.0] + [1.0] * (d - 2))

dy = normal(1, d)
(dx,) = jax.vjp(layer, x)[1](dy)
lost = (dy @ one) ** 2 / d + (dy @ x_hat) ** 2 / d
assert close(dx, P @ dy / σ)
assert close(dy @ dy, σ**2 * (dx @ dx) + lost)  # Pythagoras: what passes, and what is removed

# %% [markdown]
# With three features it can be drawn. Taking the mean away is looking along $\mathbf 1$ at a plane; dividing by the
# deviation moves every point of that plane onto a circle of radius $\sqrt 3$. On the way back *every* point gets the
# same cotangent here (grey). What reaches $x$ (orange) has lost its radial part, for no step along the radius can
# change $\hat x$; and it is short where $\sigma$ is large.

# %% jupyter={"source_hidden": true}
PLANE = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt(np.array([[2.0], [6.0]]))  # two units, both ⊥ 1
assert close(PLANE @ PLANE.T, np.eye(2)) and close(PLANE @ np.ones(3), 0)

cloud = 1.0 + 1.3 * normal(5, 30, 3)
before, after = (cloud - cloud.mean(1, keepdims=True)) @ PLANE.T, np.asarray(layer(cloud)) @ PLANE.T
assert close(np.linalg.norm(after, axis=1), np.sqrt(3))

angles = np.arange(12) * np.pi / 6 + 0.1
ring = np.stack([np.cos(angles), np.sin(angles)], 1)
places = np.concatenate([1.6 * ring, 3.2 * ring])
same = np.broadcast_to(np.array([0.9, 0.45]), places.shape)
(reached,) = jax.vjp(layer, places @ PLANE)[1](same @ PLANE)
assert close(reached @ np.ones(3), 0)
reached = np.asarray(reached) @ PLANE.T
assert close((reached * places).sum(1), 0)  # tangential
assert close(np.linalg.norm(reached[:12], axis=1), 2 * np.linalg.norm(reached[12:], axis=1))  # σ twice as large

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
for one_axes, title in ((left, r"forward: $x \mapsto \hat x$"), (right, r"backward: $dy \mapsto dx$")):
    one_axes.add_patch(plt.Circle((0, 0), np.sqrt(3), fill=False, color=GREY, linewidth=1))
    one_axes.plot(0, 0, "+", color=GREY, markersize=12)
    one_axes.set(aspect="equal", xlim=(-4.3, 4.3), ylim=(-4.9, 3.9), xticks=[], yticks=[])
    one_axes.set_title(title, fontsize=15)
for start, stop in zip(before, after, strict=True):
    left.plot(*zip(start, stop, strict=True), color=GREY, linewidth=0.8)
left.plot(*before.T, "o", color=GREY, markersize=5, label="x, seen along 1")
left.plot(*after.T, "o", color=BLUE, markersize=6, label="x̂")
arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005}
right.plot(*places.T, "o", color="black", markersize=3)
right.quiver(*places.T, *same.T, color="0.75", label="dy, everywhere the same", **arrows)
right.quiver(*places.T, *reached.T, color=ORANGE, label="dx", **arrows)
left.legend(loc="lower right")
right.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## 3 · What it removes, and why it had to
#
# Adding a constant to the row changes nothing, nor does multiplying it by $a > 0$. A gradient cannot point where
# nothing changes, so $dx$ is orthogonal to $\mathbf 1$ and to $x$, *whatever the loss*. And because $\hat x$ is the
# same at $ax$ while $\sigma$ is $a$ times as large, the gradient there is $a$ times smaller.

# %%
for a, c in ((2.0, 0.0), (0.1, 5.0), (30.0, -4.0)):
    assert close(layer(a * x + c), layer(x))
    (there,) = jax.vjp(layer, a * x + c)[1](dy)
    assert close(there, dx / a)

assert close(dx @ one, 0)
assert close(dx @ x, 0)

# %% [markdown]
# `rms_norm` divides by the root of the mean square and takes no mean away: it removes $\hat x$ alone, and only
# scaling leaves it unchanged.

# %%


@jax.jit
def rms(x):
    return rms_norm(BARE, x, eps=TINY)


y = rms(x)
(dx_rms,) = jax.vjp(rms, x)[1](dy)
m = np.sqrt(np.mean(x**2))
assert close(dx_rms, (dy - y * (y @ dy) / d) / m)
assert close(dx_rms @ x, 0) and abs(dx_rms @ one) > 0.1
assert close(rms(7 * x), y) and not close(rms(x + 1), y)

# %% [markdown]
# **The layer before it.** In $\mathrm{layer\_norm}(XW)$ the size of $W$ does not matter, so by the same argument
# $\langle W, dW\rangle = 0$. Every step of gradient descent is orthogonal to $W$, and by Pythagoras
#
# $$\|W - \eta\,dW\|^2 = \|W\|^2 + \eta^2 \|dW\|^2:$$
#
# **the norm can only grow**, and as it grows $dW$ shrinks. A learning rate that is too large slows itself down. Weight
# decay before a normalization does not make the function simpler, for the function does not change; it keeps the steps
# from shrinking.

# %%
X, W0, target = normal(2, 32, 6), normal(3, 6, 4), layer(normal(4, 32, 4))


@jax.jit
def loss(W):
    return jnp.mean((layer(X @ W) - target) ** 2)


@jax.jit
def descend(η, W, foretold):
    """‖W‖² before every step, what Pythagoras foretells, and ⟨W, dW⟩."""

    def step(carry, _):
        W, foretold = carry
        dW = jax.grad(loss)(W)
        return (W - η * dW, foretold + η**2 * jnp.sum(dW**2)), (jnp.sum(W**2), foretold, inner(W, dW))

    return jax.lax.scan(step, (W, foretold), None, 61)[1]


assert close(jax.grad(loss)(5 * W0), jax.grad(loss)(W0) / 5)
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for η, colour in ((100.0, ORANGE), (30.0, GREEN), (10.0, BLUE)):
    squares, foretold, products = descend(η, W0, jnp.sum(W0**2))
    assert close(squares, foretold) and np.all(np.diff(squares) >= 0) and close(products, 0)
    axes.plot(squares, color=colour, label=f"η = {η:g}")
    axes.plot(np.arange(0, 61, 6), foretold[::6], "o", color=colour, markersize=5)
axes.plot([], [], "ko", markersize=5, label="foretold")
axes.set(xlabel="step", ylabel="‖W‖²", yscale="log")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## 4 · Scale and bias
#
# $Y = \mathrm{scale} \odot \hat X + \mathrm{bias}$ is linear in both, and each row $\hat x$ gets the cotangent
# $g = \mathrm{scale} \odot dy$. That is the whole backward pass of `layer_norm`:
#
# $$d\mathrm{scale} = \sum_n dY \odot \hat X, \qquad d\mathrm{bias} = \sum_n dY, \qquad
#   dx = \frac1\sigma \Big( g - \overline{g} - \hat x\,\overline{\hat x \odot g} \Big)$$
#
# with a bar for the mean over the row.

# %%
rows, scale, bias, dY = 3 + 2 * normal(6, 5, d), normal(7, d), normal(8, d), normal(9, 5, d)
(dscale, dbias), dX = jax.vjp(lambda params, X: layer_norm(params, X, eps=TINY), (scale, bias), rows)[1](dY)

hats, g = layer(rows), scale * dY
assert close(dscale, (dY * hats).sum(0))  # (n, d) -> (d,)
assert close(dbias, dY.sum(0))            # (n, d) -> (d,)
bar = lambda t: t.mean(1, keepdims=True)  # (n, d) -> (n, 1)
assert close(dX, (g - bar(g) - hats * bar(hats * g)) / rows.std(1, keepdims=True))

# %% [markdown]
# ## 5 · What $\varepsilon$ changes
#
# A constant row has $\sigma = 0$. So one divides by $\sqrt{\sigma^2 + \varepsilon}$, and then $\hat x$ is a little
# shorter than $\sqrt d$, and the direction of $\hat x$ no longer lost altogether. Of a tangent
#
# - along $\mathbf 1$ nothing passes, as before;
# - across both directions it passes times $(\sigma^2 + \varepsilon)^{-1/2}$, which stops growing at
#   $1/\sqrt\varepsilon$;
# - along $\hat x$ it passes times $\varepsilon\,(\sigma^2 + \varepsilon)^{-3/2}$: nothing while $\sigma^2 \gg
#   \varepsilon$, and as much as across where $\sigma^2 \ll \varepsilon$. Down there the layer is a mere
#   multiplication.
#
# Even so the gain is large: at $\varepsilon = 10^{-5}$ a nearly constant row has its gradient multiplied by up to 316.

# %%
ε = 1e-5
centred, across = x - μ, P @ normal(10, d)


@jax.jit
@jax.vmap
def gains(size):
    """How much of a tangent comes through along and across a row of this deviation."""
    at = 1 + size * centred / σ
    push = lambda v: jax.jvp(lambda x: layer_norm(BARE, x, eps=ε), (at,), (v,))[1]
    return push(centred) @ centred / (centred @ centred), push(across) @ across / (across @ across), push(one)


sizes = np.logspace(-5, 1, 61)
along_x, across_x, along_1 = gains(sizes)
assert np.allclose(along_x, ε * (sizes**2 + ε) ** -1.5, rtol=1e-5, atol=1e-9)
assert np.allclose(across_x, (sizes**2 + ε) ** -0.5, rtol=1e-6)
assert close(along_1, 0)
assert 316 < across_x.max() < 316.3

figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.loglog(sizes, across_x, color=BLUE, label="across")
axes.loglog(sizes, along_x, "--", color=ORANGE, label="along x̂")
axes.axvline(ε**0.5, color=GREY, linewidth=1)
axes.text(1.15 * ε**0.5, 1e-8, "σ = √ε", color=GREY)
axes.set(xlabel="σ", ylabel="gain", ylim=(3e-9, 2e3))
axes.legend()
plt.show()

# %% [markdown]
# ## 6 · What must be kept
#
# $J$ is made of $x$, $\mu$ and $1/\sigma$: the input, which the layer before has in memory anyway, and two numbers a
# row. Autodiff, not knowing that $J$ is symmetric, keeps what its own steps need: several arrays as large as $x$.

# %%
N, D = 256, 128
f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
of_layer = explain(layer_norm, (f32(D), f32(D)), f32(N, D))
of_rms = explain(rms_norm, (f32(D), None), f32(N, D))
for explained in (of_layer, of_rms):
    for kept in explained.residuals:
        print(f"{explained.name:12} {kept.origin:12} {kept.shape}")

assert [kept.shape for kept in of_layer.residuals] == [(D,), (N, D), (N, 1), (N, 1)]  # scale, x, μ, 1/σ
assert [kept.shape for kept in of_rms.residuals] == [(D,), (N, D), (N, 1)]            # scale, x, 1/m
for explained in (of_layer, of_rms):
    assert sum(kept.shape == (N, D) for kept in explained.plain_residuals) >= 2
    assert explained.plain_cost.residual_bytes > 1.9 * explained.cost.residual_bytes
figure, axes = plt.subplots(figsize=(9.6, 2.6), layout="constrained")
plot.memory({"layer_norm": of_layer, "rms_norm": of_rms}, axes)
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## 7 · Batch statistics couple examples
#
# `batch_norm` is the same map along the other axis: mean and deviation of a *channel* over the batch. So its
# derivative is the same projector, and of each channel's gradient it removes the mean over the examples and the part
# along $\hat x$. But now **each example's output depends on all others.** The derivative of all outputs by all inputs
# shows it: one block for each pair of examples.

# %%
n, c = 5, 4
batch = 2 * normal(56, n, c) + 1
state = BatchState(batch.mean(0), batch.var(0))


@jax.jit
def over_batch(X):
    return batch_norm(BARE, X, BatchState.init(X.shape[-1]), train=True, eps=TINY)[0]


@jax.jit
def with_given(X):
    return batch_norm(BARE, X, state, train=False, eps=TINY)[0]


assert close(over_batch(batch), layer(batch.T).T)  # the same map along the other axis
assert close(over_batch(batch), with_given(batch))

derivatives = {}
for f in (layer, over_batch, with_given):
    derivative = np.asarray(jax.jacobian(f)(batch))               # (n, c, n, c)
    coupled = np.abs(derivative).max((1, 3)) > 1e-9               # (n, n): whether example j moves example i
    matrix = derivative.reshape(n * c, n * c)
    assert close(matrix, matrix.T)                                # symmetric, all three
    derivatives[f.__name__] = matrix, coupled

assert np.array_equal(derivatives["layer"][1], np.eye(n, dtype=bool))
assert np.all(derivatives["over_batch"][1])
assert np.array_equal(derivatives["with_given"][1], np.eye(n, dtype=bool))

(dX,) = jax.vjp(over_batch, batch)[1](normal(12, n, c))
assert close(dX.sum(0), 0) and close((dX * batch).sum(0), 0)

# %% jupyter={"source_hidden": true}
titles = {"layer": "layer_norm", "over_batch": "batch_norm, training", "with_given": "batch_norm, given statistics"}
figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for one_axes, (name, title) in zip(axes, titles.items(), strict=True):
    matrix = derivatives[name][0]
    one_axes.imshow(matrix, cmap="RdBu_r", vmin=-np.abs(matrix).max(), vmax=np.abs(matrix).max())
    for edge in range(1, n):
        one_axes.axhline(edge * c - 0.5, color=GREY, linewidth=1)
        one_axes.axvline(edge * c - 0.5, color=GREY, linewidth=1)
    middles = np.arange(n) * c + (c - 1) / 2
    one_axes.set_xticks(middles, [f"x{i + 1}" for i in range(n)])
    one_axes.set_yticks(middles, [f"y{i + 1}" for i in range(n)])
    one_axes.tick_params(length=0)
    one_axes.set_title(title)
plt.show()

# %% [markdown]
# Three things follow.
#
# 1. There is no gradient *of one example*: `vmap` over examples of a network with batch statistics computes something
#    else, statistics of batches of one.
# 2. In use, the statistics must be given, or an answer would depend on who else asks: `train=False`.
# 3. On several devices the sums have to go over all of them, forth **and back**. `axis_name` says so; a `vmap` with a
#    named axis plays the devices.

# %%
alone = jax.vmap(lambda x: over_batch(x[None])[0])(batch)
assert close(alone, 0)  # a batch of one is its own mean

big, dbig = normal(13, 6, c), normal(14, 6, c)
whole, back = jax.vjp(over_batch, big)


def on_devices(X, axis_name):
    """Three devices with two examples each."""
    f = lambda x: batch_norm(BARE, x, BatchState.init(c), train=True, eps=TINY, axis_name=axis_name)[0]
    return jax.vmap(f, axis_name="device")(X.reshape(3, 2, c)).reshape(6, c)


@jax.jit
def pulled(dY):
    """Y with statistics over all devices, and dX."""
    Y, back = jax.vjp(lambda X: on_devices(X, "device"), big)
    return Y, back(dY)[0]


together, dbig_together = pulled(dbig)
assert close(together, whole) and close(dbig_together, back(dbig)[0])
assert not np.allclose(on_devices(big, None), whole, atol=0.1)  # each with its own statistics

# %% [markdown]
# ## 8 · In half precision
#
# `bfloat16` has 8 significant bits. The textbook's shortcut $\sigma^2 = \overline{x^2} - \overline x^2$ subtracts two
# numbers that are nearly equal where $|\mu| \gg \sigma$, and each of them was rounded. From $\mu = 16\,\sigma$ on
# nothing is left of the variance. Float32 postpones this to thousands of $\sigma$; it does not mend it. What does:
# float32 *and* subtracting the mean before squaring.


# %%
@jax.jit
def shortcut(x):
    """In the dtype of x."""
    return jnp.mean(x * x) - jnp.mean(x) ** 2


@jax.jit
def of_layer_norm(x):
    """The variance that layer_norm divided by: its result has the mean square true / used."""
    y = layer_norm(BARE, x, eps=TINY).astype(jnp.float64)
    return x.astype(jnp.float64).var() / jnp.mean(y**2)


def error(variance, dtype, offset):
    """Relative, against the variance in float64 of the very same, rounded, numbers."""
    x = jnp.asarray(normal(15, 4096) + offset, dtype)
    return abs(float(variance(x)) / np.asarray(x, np.float64).var() - 1)


offsets = {jnp.bfloat16: 2.0 ** np.arange(-2, 9), jnp.float32: 2.0 ** np.arange(-2, 13)}
errors = {
    (f, dtype): np.array([error(f, dtype, offset) for offset in of_dtype])
    for f in (shortcut, of_layer_norm) for dtype, of_dtype in offsets.items()
}  # fmt: skip
assert np.all(errors[shortcut, jnp.bfloat16][offsets[jnp.bfloat16] >= 16] > 0.5)
assert errors[shortcut, jnp.float32][-1] > 0.1
assert np.all(errors[of_layer_norm, jnp.bfloat16] < 2**-8)  # its result is bfloat16, with half an ulp of 2⁻⁹
assert np.all(errors[of_layer_norm, jnp.float32] < 1e-6)

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
for f, colour, said in ((shortcut, ORANGE, "mean of squares − square of mean"), (of_layer_norm, BLUE, "layer_norm")):
    for dtype, style in ((jnp.bfloat16, "o-"), (jnp.float32, "s--")):
        line = np.clip(errors[f, dtype], 1e-9, 1)
        label = f"{said}, {jnp.dtype(dtype).name}"
        axes.loglog(offsets[dtype], line, style, color=colour, markersize=5, label=label)
axes.set(xlabel="μ/σ", ylabel="relative error of the variance", ylim=(3e-10, 2))
axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, fontsize=9)
plt.show()

# %% [markdown]
# The two curves of `layer_norm` are no more than the rounding of its own result. Where the shortcut finds a variance
# of zero, the row is divided by $\sqrt\varepsilon$ instead of $\sigma$; $\hat x$, of size one, comes out hundreds of
# times too large. The statistics, and all that lies between, belong in float32, and the way back likewise.

# %%
x_half = jnp.asarray(normal(15, 4096) + 64, jnp.bfloat16)
spoiled = (x_half - x_half.mean()) / jnp.sqrt(shortcut(x_half) + 1e-5)
exact, back = jax.vjp(lambda x: layer_norm(BARE, x), x_half.astype(jnp.float64))
result, back_half = jax.vjp(lambda x: layer_norm(BARE, x), x_half)
sizes = [float(jnp.mean(x_hat.astype(float) ** 2)) for x_hat in (result, spoiled)]
print("mean square of x̂: {:.3f}, by the shortcut {:.0f}".format(*sizes))
assert abs(sizes[0] - 1) < 0.01 and sizes[1] > 1e4
assert jnp.all(abs(result - exact) <= 2**-8 * abs(exact) + 1e-6)  # one rounding

dy_half = jnp.asarray(normal(16, 4096), jnp.bfloat16)
got, expected = back_half(dy_half)[0], back(dy_half.astype(jnp.float64))[0]
assert got.dtype == jnp.bfloat16
assert jnp.all(abs(got - expected) <= 2**-8 * abs(expected) + 1e-6)

# %% [markdown]
# ## 9 · Exercises
#
# **1.** Into how many dimensions does `rms_norm` map the tangents of a row? What is $x/\|x\|$ to it?
#
# <details>
# <summary>Solution</summary>
#
# Only $\hat x$ is removed: $d - 1$. And $\mathrm{rms\_norm}(x) = \sqrt d\; x/\|x\|$.
#
# </details>
#
# **2.** Normalize twice. What is the derivative of the second time, and of both together?
#
# <details>
# <summary>Solution</summary>
#
# The second time changes nothing, yet its derivative is not the identity: at $\hat x$, with $\sigma = 1$, it is $P$.
# Together $P \cdot \tfrac1\sigma P = \tfrac1\sigma P$, for $P^2 = P$.
#
# </details>
#
# **3.** Why has a convolution or affine map before `batch_norm` no bias? Answer with its gradient.
#
# <details>
# <summary>Solution</summary>
#
# $db = \sum_n dX$, the component along $\mathbf 1$, which the projector removes: $db = 0$, always.
#
# </details>
#
# **4.** Write the rule of the bare `layer_norm` so that it keeps its *output* and $1/\sigma$, not its input, and
# certify it. When is that the better choice?
#
# <details>
# <summary>Solution</summary>
#
# $J$ is made of $\hat x$ and $1/\sigma$, so the two are enough. It is better where the next layer keeps its input,
# which is this output, and nobody else needs $x$. In half precision $\hat x$ has been rounded, and $dx$ inherits that.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
# 1: one direction
assert np.linalg.matrix_rank(jax.jacobian(rms)(x)) == d - 1
assert close(rms(x), np.sqrt(d) * x / np.linalg.norm(x))

# 2: twice
assert close(layer(layer(x)), layer(x))
assert close(jax.jacobian(layer)(x_hat), P)
assert close(jax.jacobian(lambda x: layer(layer(x)))(x), P / σ)

# 3: a bias without a gradient
assert close(jax.grad(lambda b: jnp.sum(jnp.sin(over_batch(big + b))))(jnp.ones(c)), 0)


# 4: from the output
@any_mode
@jax.custom_vjp
def normalize(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def normalize_fwd(x):
    y = normalize.fun(x)
    return y, (y, 1 / x.std(-1, keepdims=True))  # (n, d), (n, 1)


def normalize_bwd(residuals, dy):
    y, r = residuals
    mean = lambda t: t.mean(-1, keepdims=True)   # (n, d) -> (n, 1)
    return (r * (dy - mean(dy) - y * mean(y * dy)),)


normalize.defvjp(normalize_fwd, normalize_bwd)
certificate = certify(normalize, rows, contexts=[], laws=["linear", "adjoint"])
assert certificate.ok, certificate
print("all four hold")

# %% [markdown]
# ## In one breath
#
# Normalizing looks along $\mathbf 1$ and moves a point onto a sphere; its derivative projects onto the sphere's
# tangents and divides by $\sigma$. Being symmetric, it is its own backward pass: where no step changes anything, no
# gradient points.
