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
# # 10 · Training, on eight devices and in half precision
#
# A training step is a gradient and a subtraction. Put it on eight devices, and the gradient needs a sum that nobody
# wrote; put it in half precision, and sums that everybody wrote go wrong. Adjoints answer both: that of *making copies*
# is a sum, that of a *cast* is the cast back, and a backward pass is linear.
#
# **After it you can**
#
# - write a training loop of pure functions whose every gradient is a spelled adjoint;
# - say why the adjoint of replication is a sum over devices, and where that sum is taken;
# - run one and the same step by `jit` with layouts, by explicit layouts and by `shard_map`;
# - say what must be kept in float32 when layers run in bfloat16, and what is lost otherwise;
# - see float16 gradients underflow, and mend them by loss scaling.
#
# $dA$ is the *cotangent* of $A$. Every claim stands beside an `assert`. The eight devices are simulated: the first
# lines ask for them, and they must come before JAX is imported.

# %%
import os
import textwrap

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adjax import AffineParams, adjoint, affine, any_mode, contract, cross_entropy, norm, relu
from adjax.examples.digits.data import load

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8a8a"  # safe for the colour-blind
DEVICES = 8
assert len(jax.devices()) == DEVICES


def difference(a, b):
    """‖a − b‖/‖b‖ of two pytrees, in float64."""
    flat = lambda tree: np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])
    return np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))


# %% [markdown]
# ## 1 · A network and a step
#
# The digits that come with scikit-learn, 8 × 8 pixels each; two affine maps with a `relu` between them. Parameters are
# pytrees, so a step of gradient descent is one line.

# %%
digits = load(seed=0)
X, y = np.float32(digits.X_train[:1024]), np.int32(digits.y_train[:1024])  # (n, d) and (n,)
order = np.stack([np.random.default_rng(step).choice(1024, 128, replace=False) for step in range(300)])


def init():
    keys = jax.random.split(jax.random.key(0))
    return [AffineParams.init(keys[0], 64, 32), AffineParams.init(keys[1], 32, 10)]


def logits(params, X):
    hidden, last = params
    return affine(last, relu(affine(hidden, X)))


def loss(params, X, y):
    return cross_entropy(logits(params, X), y)


@partial(jax.jit, static_argnames="loss")
def train(params, η, loss=loss):
    """The parameters after one step for each batch, and the losses on the way."""

    def step(params, rows):
        value, gradient = jax.value_and_grad(loss)(params, jnp.asarray(X)[rows], jnp.asarray(y)[rows])
        return jax.tree.map(lambda p, g: p - (η * g).astype(p.dtype), params, gradient), value

    return jax.lax.scan(step, params, order)


trained, losses = train(init(), 0.2)
guess = np.argmax(logits(trained, np.float32(digits.X_test)), 1)
accuracy = np.mean(guess == digits.y_test)
print(f"{accuracy:.1%} of {len(guess)} test images")
assert accuracy > 0.93 and losses[-1] < losses[0] / 10

# %% jupyter={"source_hidden": true}
figure = plt.figure(figsize=(11, 2.8), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(3, 4))
axes = left.subplots()
axes.semilogy(losses, color=BLUE)
axes.set(xlabel="step", ylabel="loss")
wrong = np.flatnonzero(guess != digits.y_test)
for one_axes, i in zip(right.subplots(2, 7).ravel(), [*range(7), *wrong[:7]], strict=True):
    one_axes.imshow(digits.images[i], cmap="gray_r")
    said = f"{guess[i]}, not {digits.y_test[i]}" if i in wrong else f"{guess[i]}"
    one_axes.set_title(said, color=ORANGE if i in wrong else BLUE, fontsize=11, pad=3)
    one_axes.axis("off")
plt.show()

# %% [markdown]
# ## 2 · The adjoint of making copies
#
# On $k$ devices each has its share $X_i$ of the examples and its own copy of $W$. Making copies is a linear map,
# $W \mapsto (W, \dots, W)$, and
#
# $$\langle (W, \dots, W),\; (U_1, \dots, U_k) \rangle = \textstyle\sum_i \langle W, U_i\rangle
#   = \langle W,\; \sum_i U_i \rangle,$$
#
# so **its adjoint is a sum over devices**: a `psum`. Each device computes $X_i^\top dY_i$ from what it has, and
# $dW = \sum_i X_i^\top dY_i$. It is the same sum over examples as ever, $dW = X^\top dY$, in two stages.

# %%
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 2)))
U = jnp.asarray(np.random.default_rng(2).standard_normal((DEVICES, 3, 2)))
replicate = lambda W: jnp.broadcast_to(W, (DEVICES, *W.shape))
total = lambda U: U.sum(0)

assert np.allclose(adjoint(replicate, W)(U), total(U), rtol=1e-6)
assert np.allclose(adjoint(total, U)(W), replicate(W))  # and the other way round

# %% jupyter={"source_hidden": true}


def draw(axes, title, root, leaf, inward):
    """A value above and one on each device below, joined by arrows."""
    for i in range(DEVICES):
        ends = np.array([[3.5 + (i - 3.5) * (0.25 if inward else 0.05), 1.95], [i, 0.45]])
        start, stop = ends[::-1] if inward else ends
        colour = ORANGE if inward else BLUE
        axes.annotate("", stop, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6})
        axes.text(i, 0, leaf.format(i + 1), ha="center", va="center", fontsize=13,
                  bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": GREY})  # fmt: skip
    axes.text(3.5, 2.4, root, ha="center", va="center", fontsize=15,
              bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "black"})  # fmt: skip
    axes.set_title(title, fontsize=13)
    axes.text(3.5, -0.75, "devices 1 to 8", ha="center", va="center", color=GREY)
    axes.set(xlim=(-0.7, 7.7), ylim=(-1, 3))
    axes.axis("off")


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3), layout="constrained")
draw(left, "forward: copies", "$W$", "$W$", False)
draw(right, "backward: their sum, a psum", r"$dW = \sum_i\, X_i^\mathsf{T}\, dY_i$", "$dW_{}$", True)
plt.show()

# %% [markdown]
# ## 3 · One step, three ways
#
# JAX has three ways to spread a program over devices. In each of them the loss of section 1 is used *as it is*.
#
# 1. **`jit` with layouts.** Say where the arguments lie; the compiler spreads the rest, and finds the sum.
# 2. **Explicit layouts.** The layout is part of every array's type and checked while tracing. Where a summed axis is
#    spread over devices, a product has to say where its result lies; `contract` does so in the rules of adjax.
# 3. **`shard_map`.** You write the program of one device. The types know over which mesh axes a value varies, so a rule
#    must return a $dW$ that does not vary, and take the `psum` itself; `contract` does that too.

# %%
params = init()
value_and_gradient = jax.jit(jax.value_and_grad(loss))
_, expected = value_and_gradient(params, X, y)  # on one device

# 1: layouts as data
mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
spread, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
arguments = jax.device_put(params, everywhere), jax.device_put(X, spread), jax.device_put(y, spread)
_, by_jit = value_and_gradient(*arguments)
program = value_and_gradient.lower(*arguments).compile().as_text()
assert "all-reduce" in program  # the sum that nobody wrote
assert "all-reduce" not in value_and_gradient.lower(params, X, y).compile().as_text()

# 2: layouts as types
explicit = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Explicit,))
with jax.set_mesh(explicit):
    arguments = jax.device_put(params, P()), jax.device_put(X, P("data")), jax.device_put(y, P("data"))
    _, by_types = jax.jit(jax.value_and_grad(loss))(*arguments)
    assert jax.typeof(arguments[1]).sharding.spec == P("data", None)
    assert jax.typeof(by_types[0].W).sharding.spec == P(None, None)


# 3: the program of one device
@jax.jit
@partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
def on_one_device(params, X, y):
    """The mean over devices of their mean losses, differentiated there."""
    return jax.grad(lambda params: jax.lax.pmean(loss(params, X, y), "data"))(params)


by_shard_map = on_one_device(params, X, y)

for name, gradient in {"jit": by_jit, "explicit": by_types, "shard_map": by_shard_map}.items():
    print(f"{name:10} differs from one device by {difference(gradient, expected):.0e}")
    assert difference(gradient, expected) < 1e-5

# %% [markdown]
# Not to the last bit: eight partial sums and then their sum round otherwise than one long sum. The partial sums can be
# looked at. Declare the copies different (`pcast`), and no `psum` is due: each device keeps the gradient of its own 128
# images, here of the weights of one hidden feature, as an 8 × 8 image. Their mean is the gradient.

# %%


@jax.jit
@partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))
def its_own(params, X, y):
    params = jax.tree.map(lambda p: jax.lax.pcast(p, "data", to="varying"), params)
    return jax.tree.map(lambda g: g[None], jax.grad(loss)(params, X, y))


own = its_own(params, X, y)
assert own[0].W.shape == (DEVICES, 64, 32)
assert difference(jax.tree.map(lambda g: g.mean(0), own), expected) < 1e-5
spread_of = norm(jax.tree.map(lambda g, e: g[0] - e, own, expected)) / norm(expected)
assert 0.1 < spread_of < 10  # one share of the images says something else

# %% jupyter={"source_hidden": true}
feature = 5
images = [np.asarray(g).reshape(8, 8) for g in (*own[0].W[:, :, feature], expected[0].W[:, feature])]
limit = max(abs(image).max() for image in images[:-1])
figure, axes = plt.subplots(1, 9, figsize=(12, 1.9), layout="constrained")
for i, (one_axes, image) in enumerate(zip(axes, images, strict=True)):
    one_axes.imshow(image, cmap="PuOr", vmin=-limit, vmax=limit)
    one_axes.set_title(f"device {i + 1}" if i < DEVICES else "mean = dW", fontsize=11)
    one_axes.set(xticks=[], yticks=[])
    for side in one_axes.spines.values():
        side.set_linewidth(1 if i < DEVICES else 3)
plt.show()

# %% [markdown]
# **A rule that forgets the sum** has a right forward pass, right gradients on one device, and wrong ones on eight. With
# `shard_map` JAX refuses such a textbook `jax.custom_vjp`, for its $dW$ varies and $W$ does not. Lifted by `any_mode`
# it is right: that types every cotangent like its primal.

# %%


@jax.custom_vjp
def textbook(W, X):
    return X @ W


textbook.defvjp(lambda W, X: (X @ W, (W, X)), lambda kept, dY: (kept[1].T @ dY, dY @ kept[0].T))


def gradient_of(f):
    """dW of Σ sin(X W), with X spread over the devices and W on all of them."""
    f_loss = lambda W, X: jax.lax.psum(jnp.sum(jnp.sin(f(W, X))), "data")
    return jax.shard_map(jax.grad(f_loss), mesh=mesh, in_specs=(P(), P("data")), out_specs=P())


W = params[0].W
try:
    gradient_of(textbook)(W, X)
except ValueError as error:
    print("ValueError:", textwrap.shorten(str(error), 100))
else:
    raise AssertionError("a cotangent that varies was taken for one that does not")
assert difference(gradient_of(any_mode(textbook))(W, X), X.T @ np.cos(X @ W)) < 1e-5

# %% [markdown]
# ## 4 · bfloat16 layers, float32 parameters
#
# `bfloat16` has the range of float32 and 8 significant bits. Layers can live with that; *parameters cannot*. A step
# moves $W$ by $\eta\,dW$. Where that is less than about $2^{-9}$ of $W$, the sum rounds to $W$ itself in bfloat16: the
# step is lost, and so is the next one like it. So one keeps float32 parameters, the *masters*, and casts them at every
# step. The adjoint of a cast is the cast back, so the gradient arrives in float32 by itself.


# %%
def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def mixed(params, X, y):
    """Float32 parameters, bfloat16 layers, a float32 loss."""
    Z = logits(cast(params, jnp.bfloat16), X.astype(jnp.bfloat16))
    return cross_entropy(Z.astype(jnp.float32), y)


def throughout(params, X, y):
    """Whatever dtype the parameters have."""
    return cross_entropy(logits(params, X.astype(params[0].W.dtype)).astype(jnp.float32), y)


η = 0.02
_, in_float32 = train(init(), η)
_, with_masters = train(init(), η, loss=mixed)
_, without = train(cast(init(), jnp.bfloat16), η, loss=throughout)

gradient = jax.jit(jax.grad(mixed))(init(), X, y)
assert gradient[0].W.dtype == jnp.float32
lost = [
    np.mean((W - (η * dW).astype(jnp.bfloat16) == W) & (dW != 0))
    for W, dW in ((W.astype(jnp.bfloat16), dW) for (W, _), (dW, _) in zip(init(), gradient, strict=True))
]
print("steps lost in bfloat16: {:.0%} of the first W, {:.0%} of the last".format(*lost))
assert min(lost) > 0.2

ends = [np.mean(np.float64(run[-50:])) for run in (in_float32, with_masters, without)]
assert abs(ends[1] / ends[0] - 1) < 0.02  # as good as float32
assert ends[2] > 1.15 * ends[0]           # and this has stalled

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(7.4, 3.2), layout="constrained")
smooth = lambda run: np.convolve(np.float64(run), np.ones(15) / 15, "valid")
axes.plot(smooth(in_float32), color="0.75", linewidth=6, label="float32")
axes.plot(smooth(with_masters), color=BLUE, label="bfloat16 layers, float32 parameters")
axes.plot(smooth(without), "--", color=ORANGE, label="bfloat16 parameters")
axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# ## 5 · Sums in bfloat16
#
# What holds for steps holds for every long sum: at 256 the spacing of bfloat16 is 2, so $256 + 1$ rounds to 256, and a
# sum of ones never gets beyond. $dW = \sum_n x_n\,dy_n^\top$ is such a sum, over all examples (and devices, and
# micro-batches); where its terms have one sign, a bfloat16 accumulator all but stops. Factors in bfloat16 and **sums in
# float32** cost next to nothing, for a product of two numbers of 8 bits is exact in float32. `contract` does that, and
# rounds once.


# %%
def running(terms, dtype):
    """The partial sums of `terms[n, ...]`, one term after the other in this dtype."""

    def add(total, term):
        total = total + term.astype(dtype)
        return total, total

    return jax.lax.scan(add, jnp.zeros(terms.shape[1:], dtype), terms)[1]


assert running(jnp.ones(1000), jnp.bfloat16)[-1] == 256

N = 4096
rng = np.random.default_rng(3)
x, dy = (jnp.asarray(rng.uniform(0.5, 1.5, (N, k)), jnp.bfloat16) for k in (3, 2))
products = x.astype(jnp.float32)[:, :, None] * dy.astype(jnp.float32)[:, None, :]  # (n, d, p), exact
assert np.array_equal(products, np.float64(x)[:, :, None] * np.float64(dy)[:, None, :])
exact = np.cumsum(np.float64(products), 0)
sums = {dtype: np.float64(running(products, dtype)) for dtype in (jnp.bfloat16, jnp.float32)}

dW = contract("nd,np->dp", x, dy, like=jnp.zeros((3, 2), jnp.bfloat16))
assert np.all(abs(sums[jnp.bfloat16][-1] / exact[-1] - 1) > 0.8)  # four fifths are missing
assert np.all(abs(sums[jnp.float32][-1] / exact[-1] - 1) < 1e-4)
assert dW.dtype == jnp.bfloat16 and np.all(abs(np.float64(dW) / exact[-1] - 1) <= 2**-8)

# %% jupyter={"source_hidden": true}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
n = np.arange(1, N + 1)
left.plot(n, exact[:, 0, 0], color="0.75", linewidth=6, label="exact")
for dtype, colour, style in ((jnp.float32, BLUE, "-"), (jnp.bfloat16, ORANGE, "--")):
    name = f"summed in {jnp.dtype(dtype).name}"
    left.plot(n, sums[dtype][:, 0, 0], style, color=colour, label=name)
    errors = np.abs(sums[dtype] / exact - 1).max((1, 2))
    at = 2 ** np.arange(13) - 1
    right.loglog(n[at], np.maximum(errors[at], 1e-9), "o" + style, color=colour, markersize=5, label=name)
right.axhline(2**-9, color=GREY, linewidth=1)
right.text(2, 0.7 * 2**-9, "rounding to bfloat16", color=GREY, va="top")
left.set(xlabel="terms", ylabel="sum")
right.set(xlabel="terms", ylabel="largest relative error", ylim=(5e-10, 3))
left.legend()
plt.show()

# %% [markdown]
# ## 6 · float16: gradients that underflow
#
# `float16` is finer, with 11 bits, but it ends at $6 \cdot 10^{-8}$ below and 65504 above. Cotangents are small. Let
# this batch be one of 1024 whose losses are to be averaged: the logits' cotangents are $(P - T)/2^{20}$, and most of
# them are below what float16 holds.
#
# The remedy is linearity once more. **A backward pass is linear in its cotangent**: multiply the loss by $s$ and every
# cotangent comes out times $s$; divide the gradient by $s$ in float32 at the end. A power of two changes no digit.

# %%
limits = jnp.finfo(jnp.float16)
assert 5.9e-8 < float(limits.smallest_subnormal) < 6e-8 and limits.max == 65504

MICRO = 1024  # micro-batches of 1024 rows: a mean over 2²⁰


@partial(jax.jit, static_argnames="dtype")
def gradient_at(scale, dtype):
    """The gradient of the trained network with layers in this dtype, at this loss scale."""

    def scaled(params):
        Z = logits(cast(params, dtype), jnp.asarray(X, dtype))
        return scale * (cross_entropy(Z.astype(jnp.float32), y) / MICRO)

    return jax.tree.map(lambda g: g / scale, jax.grad(scaled)(trained))


wanted = gradient_at(1.0, jnp.float32)
same = jax.tree.map(lambda a, b: np.array_equal(a, b), gradient_at(2.0**10, jnp.float32), wanted)
assert all(jax.tree.leaves(same))  # to the last bit

scales = 2.0 ** np.arange(0, 41, 4)
errors = [difference(gradient_at(scale, jnp.float16), wanted) for scale in scales]
ok = np.isfinite(errors)
assert errors[0] > 10 * errors[3] and errors[3] < 0.01
assert not ok[-1]  # too much of it overflows

dZ = jax.jit(jax.grad(lambda Z: cross_entropy(Z, y) / MICRO))(logits(trained, X))
sizes = np.log2(np.abs(np.float64(dZ)))
small = np.mean(sizes < -25)
print(f"{small:.0%} of dZ round to zero in float16, at the scale 2^12 {np.mean(sizes + 12 < -25):.0%}")
assert small > 0.5 and np.mean(np.float16(dZ) == 0) > 0.5
assert np.mean(sizes + 12 < -25) < small / 2

# %% jupyter={"source_hidden": true}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
bins = np.arange(-60, 4, 2)
left.axvspan(-24, 16, color=GREEN, alpha=0.15, linewidth=0)
left.text(4, 0.95, "float16", color=GREEN, ha="center", va="top", transform=left.get_xaxis_transform())
left.hist(sizes.ravel(), bins, color=ORANGE, alpha=0.8, label="dZ")
left.hist(sizes.ravel() + 12, bins, histtype="step", color=BLUE, linewidth=2, label="times $2^{12}$")
left.set(xlabel="$\\log_2 |dZ|$", ylabel="entries", xlim=(-60, 17))
left.legend(loc="upper left")
right.loglog(scales[ok], np.array(errors)[ok], "o-", color=BLUE, base=2)
right.axvspan(scales[ok][-1] * 4, 2.0**42, color=ORANGE, alpha=0.2, linewidth=0)
right.text(2.0**40.7, 0.5, "overflow", color=ORANGE, rotation=90, ha="center", va="center",
           transform=right.get_xaxis_transform())  # fmt: skip
right.set(xlabel="loss scale", ylabel="relative error of the gradient", xlim=(0.5, 2.0**42))
plt.show()

# %% [markdown]
# A scale that is too large gives an infinity, which is easy to see: skip that step, halve the scale, and go on. One
# that is too small loses gradients in silence. `bfloat16` has the exponents of float32 and needs no scale at all.

# %%
fine = [difference(gradient_at(scale, jnp.bfloat16), gradient_at(1.0, jnp.bfloat16)) for scale in (2.0**12, 2.0**40)]
assert max(fine) == 0

# %% [markdown]
# ## 7 · Exercises
#
# **1.** Each device holds a slice of $W$, and all slices are gathered before use (`all_gather`). What is the adjoint of
# gathering?
#
# <details>
# <summary>Solution</summary>
#
# Every device gets every slice, so slice $i$ gets the cotangents of all devices: their sum, each device keeping its own
# slice. That is `psum_scatter`, a reduce-scatter. With it parameters and gradients can stay split between uses.
#
# </details>
#
# **2.** Each device gets another number of examples. Why is `pmean` of the mean losses wrong, and what is right?
#
# <details>
# <summary>Solution</summary>
#
# It weighs examples of small shares more. Sum the losses, `psum` the sums and the counts, and divide.
#
# </details>
#
# **3.** How long is the longest sum of ones in float16? And in float32?
#
# <details>
# <summary>Solution</summary>
#
# Where the spacing becomes 2: at $2^{11} = 2048$ and at $2^{24} = 16\,777\,216$.
#
# </details>
#
# **4.** Without masters, round each step at random: up or down, with the probabilities that make the mean right. Does
# $W$ still stall?
#
# <details>
# <summary>Solution</summary>
#
# No: a step of a tenth of the spacing is taken every tenth time. Add a random number between zero and one spacing, and
# round down: sixteen random bits added to the sixteen bits that are cut off.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
# 1: gathering and its adjoint
gather = lambda slices: jnp.broadcast_to(slices, (DEVICES, *slices.shape))  # (k, s) -> (device, k, s)
cotangents = jnp.asarray(rng.standard_normal((DEVICES, DEVICES, 3)))
assert np.allclose(adjoint(gather, cotangents[0])(cotangents), cotangents.sum(0), rtol=1e-5)


@jax.jit
@partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P("data"))
def gathered_back(slices, U):
    """The adjoint of all_gather, on the devices themselves."""
    return jax.vjp(lambda s: jax.lax.all_gather(s, "data"), slices[0])[1](U[0])[0][None]


assert np.allclose(gathered_back(cotangents[0], cotangents), cotangents.sum(0), rtol=1e-5)

# 2: shares of different sizes
each = np.asarray(cross_entropy(logits(params, X[:100]), y[:100], reduction="none"))
shares = np.split(each, [10, 40])
assert not np.isclose(np.mean([share.mean() for share in shares]), each.mean(), rtol=1e-3)
assert np.isclose(sum(share.sum() for share in shares) / sum(map(len, shares)), each.mean(), rtol=1e-5)

# 3: where a sum of ones stops
assert running(jnp.ones(3000), jnp.float16)[-1] == 2048
assert np.float32(2**24) + np.float32(1) == np.float32(2**24) and np.float32(2**24 - 1) + np.float32(1) == 2**24


# 4: rounding at random
def randomly_rounded(key, x):
    """To bfloat16: the sixteen bits that are cut off decide how probably it goes up."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(jnp.bfloat16)


def step_at_random(w, key):
    return randomly_rounded(key, w.astype(jnp.float32) + jnp.float32(2**-12)), None


start = jnp.ones(200, jnp.bfloat16)
end = np.float64(jax.lax.scan(step_at_random, start, jax.random.split(jax.random.key(1), 1024))[0])
assert np.all(start + jnp.bfloat16(2**-12) == start)  # rounded to nearest it stalls at once
assert abs(end.mean() - 1.25) < 0.01                  # 1024 steps of 2⁻¹²
print("all four hold")

# %% [markdown]
# ## In one breath
#
# The adjoint of copying is summing, so data parallelism is one `psum`, and the types of a program can say where. Keep
# in half precision what is multiplied, in float32 what is summed: parameters, gradients, statistics. And scale a loss
# as you like, for whatever comes back is linear in it.
