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
# # 7 · Losses and masks: what was predicted, less what was true
#
# $$dZ = (P - T)\, dL$$
#
# is the whole backward pass of the cross-entropy of logits $Z$: the predicted probabilities $P$ less the true ones $T$.
# It is hard to write wrong on paper, and easy in floating point, for exponentials overflow, masks divide zero by zero,
# and probabilities near one round to one.
#
# **After it you can**
#
# - derive $dZ = (P - T)\,dL$, and read off where learning stops;
# - compute $\log \sum \exp$ where exponentials overflow and underflow;
# - say what label smoothing and z-loss add to the gradient, and which direction each of them holds fast;
# - mask rows and classes without a NaN, forth and back, a row without anything left included;
# - see why a gradient in bfloat16 must be rounded *after* the subtraction;
# - compute the loss of a large vocabulary without ever holding its logits.
#
# $dA$ is the *cotangent* of $A$. Every claim stands beside an `assert`; all numbers are float64 but where another
# dtype is the subject.

# %%
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from adjax import AffineParams, affine, cross_entropy, linear_cross_entropy, log_softmax, softmax

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8a8a"  # safe for the colour-blind


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def close(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-9)


def loss(Z, label, **options):
    """The cross-entropy of a row of logits and its label, or of several."""
    return cross_entropy(jnp.asarray(Z), jnp.asarray(label), **options)


# %% [markdown]
# ## 1 · A difference of two distributions
#
# With $P = \operatorname{softmax} Z$ and the label $y$ the loss of a row is
#
# $$L = -\log P_y = \operatorname{lse}(Z) - Z_y, \qquad \operatorname{lse}(Z) = \log \textstyle\sum_v \exp Z_v.$$
#
# The derivative of $\operatorname{lse}$ by $Z_v$ is $\exp Z_v / \sum \exp Z = P_v$, that of $Z_y$ is one at $v = y$ and
# zero elsewhere: the row $T$ of a one-hot matrix. Hence $dZ = (P - T)\,dL$.

# %%
Z, y = 2 * normal(0, 5), 2
T = np.eye(5)[y]

L, back = jax.vjp(lambda Z: loss(Z, y), Z)
(dZ,) = back(1.0)
P = np.exp(Z) / np.exp(Z).sum()
assert close(P, softmax(Z))
assert close(L, -np.log(P[y]))
assert close(dZ, P - T)
assert close(back(-3.0)[0], -3 * (P - T))  # linear in dL

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
at = np.arange(5)
axes[0].bar(at, Z, color=GREY)
axes[0].set_title("logits Z")
axes[1].bar(at - 0.2, P, 0.4, color=BLUE, label="P, predicted")
axes[1].bar(at + 0.2, T, 0.4, color=ORANGE, label="T, true")
axes[1].set_title("probabilities")
axes[1].legend()
axes[2].bar(at, dZ, color=[ORANGE if v == y else BLUE for v in at])
axes[2].set_title("dZ = P − T")
for one_axes in axes:
    one_axes.axhline(0, color="black", linewidth=0.8)
    one_axes.set_xlabel("class")
plt.show()

# %% [markdown]
# Three things can be read off the picture on the right.
#
# - **Its bars add up to zero**, for both distributions add up to one. No gradient points along $\mathbf 1$, since
#   adding a constant to all logits changes nothing.
# - **It is never large**: $\|dZ\| \le \sqrt 2$, however wrong the prediction.
# - **It vanishes where $P = T$**, and only there. Where the same input occurs with different labels, the mean gradient
#   vanishes where $P$ is their frequency: the loss teaches frequencies, not winners.

# %%
assert close(dZ.sum(), 0)
assert close(jax.grad(loss)(Z + 7, y), dZ)

wrong = jax.grad(loss)(np.array([50.0, 0.0]), 1)  # as wrong as can be
assert close(np.linalg.norm(wrong), np.sqrt(2))

seen = np.array([0, 0, 0, 1, 2, 2, 2, 2])  # labels of one and the same input, among five classes
frequency = np.bincount(seen, minlength=5) / len(seen)
total = lambda Z: loss(jnp.broadcast_to(Z, (len(seen), 5)), seen)
assert close(jax.grad(total)(Z), P - frequency)

# %% [markdown]
# The derivative of `softmax` itself is $\delta P = P \odot (\delta Z - \langle P, \delta Z\rangle)$, the matrix
# $\operatorname{diag} P - P P^\top$. It is symmetric, like that of a normalization (notebook 6): forward and backward
# are one map. And as $dZ = P - T$, it is the second derivative of the loss: convex, flat along $\mathbf 1$ alone.

# %%
S = np.diag(P) - np.outer(P, P)
assert close(jax.jit(jax.jacfwd(softmax))(Z), S)  # by tangents
assert close(jax.jit(jax.jacrev(softmax))(Z), S)  # by cotangents
assert close(jax.jit(jax.hessian(loss))(Z, y), S)

eigenvalues = np.linalg.eigvalsh(S)
assert close(eigenvalues[0], 0) and eigenvalues[1] > 1e-3 and close(S @ np.ones(5), 0)

# %% [markdown]
# ## 2 · Exponentials overflow, their logarithm need not
#
# In float32 $e^{89}$ is infinite and $e^{-104}$ is zero (or $e^{-88}$ already, where the smallest numbers are flushed
# to zero), so $\log \sum \exp$ breaks if it is computed as it is written. Taking the largest logit out, $m = \max Z$,
#
# $$\operatorname{lse}(Z) = m + \log \textstyle\sum_v \exp (Z_v - m),$$
#
# every exponent is at most 0 and one of them is 0: the sum lies between 1 and the number of classes. $m$ cancels, so
# it needs no derivative.
#
# The loss does not change when a constant is added to all logits. Here is what floating point makes of that:

# %%
Z32 = np.float32([1.0, 0.0, -1.0])


@jax.jit
@jax.vmap
def both(shift):
    """The loss and its largest slope at shifted logits, naive and stable."""
    naive = lambda Z: jnp.log(jnp.sum(jnp.exp(Z))) - Z[0]
    stable = lambda Z: loss(Z, 0)
    results = (jax.value_and_grad(f)(Z32 + shift) for f in (naive, stable))
    return [(value, jnp.max(jnp.abs(slope))) for value, slope in results]


shifts = np.arange(-130, 131, dtype=np.float32)
(naive, naive_slope), (stable, stable_slope) = both(shifts)
expected = np.log(1 + np.exp(-1) + np.exp(-2))

assert np.allclose(stable, expected, rtol=1e-4) and np.all(np.isfinite(stable_slope))
assert np.all(np.isinf(naive[np.abs(shifts) > 110]))
assert np.all(np.isnan(naive_slope[np.abs(shifts) > 110]))
assert np.max(np.abs(naive[np.abs(shifts) < 80] - expected)) < 1e-4
with np.errstate(over="ignore", under="ignore"):
    assert np.exp(np.float32(89)) == np.inf and np.exp(np.float32(-104)) == 0

figure, axes = plt.subplots(figsize=(7.4, 3), layout="constrained")
axes.plot(shifts, stable, color=BLUE, linewidth=5, alpha=0.4, label="stable")
axes.plot(shifts, np.where(np.isfinite(naive), naive, np.nan), color=ORANGE, label="as written")
for side in (shifts < 0, shifts > 0):
    broken = shifts[side & ~np.isfinite(naive)]
    axes.axvspan(broken.min(), broken.max(), color=ORANGE, alpha=0.15, linewidth=0)
    axes.text(broken.mean(), 0.9, "infinite,\nslope NaN", ha="center", va="center", color=ORANGE)
axes.set(xlabel="constant added to all logits", ylabel="loss", ylim=(-0.2, 1.2), xlim=(-130, 130))
axes.legend(loc="lower center", ncols=2)
plt.show()

# %% [markdown]
# Taking the logarithm of a finished `softmax` fails for the same reason one step later: a probability that has
# underflowed to zero cannot be recovered. `log_softmax` never forms it.

# %%
far = np.array([0.0, 1000.0])
with np.errstate(divide="ignore"):
    assert np.log(np.asarray(softmax(far)))[0] == -np.inf
assert log_softmax(far).tolist() == [-1000.0, 0.0]
assert loss(far, 0) == 1000.0
assert jax.grad(loss)(far, 0).tolist() == [-1.0, 1.0]

# %% [markdown]
# ## 3 · Label smoothing and z-loss
#
# **Label smoothing** replaces $T$ by $T' = (1 - \varepsilon)\,T + \varepsilon/V$. The gradient is $P - T'$, and now it
# vanishes at finite logits; with one-hot labels $P = T$ takes an infinite margin, and the logits grow for ever.
#
# **z-loss** adds $\zeta \operatorname{lse}^2$, and $2\zeta \operatorname{lse} \cdot P$ to the gradient, whose entries
# then add up to $2\zeta \operatorname{lse}$. It acts along the one direction in which the loss is indifferent, and
# draws $\operatorname{lse}$ towards zero, where exponentials are harmless.

# %%
ε, ζ, V = 0.1, 0.02, 5
lse = np.log(np.exp(Z).sum())
smooth = (1 - ε) * T + ε / V
assert close(jax.grad(lambda Z: loss(Z, y, label_smoothing=ε))(Z), P - smooth)

dZ_z = jax.grad(lambda Z: loss(Z, y, z_loss=ζ))(Z)
assert close(dZ_z, P - T + 2 * ζ * lse * P)
assert close(dZ_z.sum(), 2 * ζ * lse)

# %%
OPTIONS = {"plain": {}, "label smoothing 0.1": {"label_smoothing": ε}, "z-loss 0.02": {"z_loss": ζ}}


def descend(options, start, steps=400):
    """Margin and lse over steps of gradient descent on the logits of one row."""

    def step(Z, _):
        margin = Z[y] - jnp.mean(jnp.delete(Z, y))
        return Z - jax.grad(lambda Z: loss(Z, y, **options))(Z), (margin, jax.nn.logsumexp(Z))

    return jax.jit(lambda Z: jax.lax.scan(step, Z, None, steps)[1])(start)


runs = {name: descend(options, np.full(V, 2.0)) for name, options in OPTIONS.items()}
margin = np.log((1 - ε + ε / V) / (ε / V))  # where P = T'
assert np.allclose(runs["label smoothing 0.1"][0][-1], margin, rtol=1e-3)
assert runs["plain"][0][-1] > 1.5 * margin and np.all(np.diff(runs["plain"][0]) > 0)
assert runs["plain"][1][-1] > runs["plain"][1][0]
assert 0 < runs["z-loss 0.02"][1][-1] < runs["z-loss 0.02"][1][0] / 4

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for (name, (margins, sums)), colour, style in zip(runs.items(), (GREY, BLUE, ORANGE), ("-", "--", "-."), strict=True):
    axes[0].plot(margins, style, color=colour, label=name, linewidth=2)
    axes[1].plot(sums, style, color=colour, label=name, linewidth=2)
axes[0].axhline(margin, color="black", linewidth=0.8)
axes[0].text(400, margin - 0.1, "P = T'", ha="right", va="top")
axes[1].axhline(0, color="black", linewidth=0.8)
axes[0].set(xlabel="step", ylabel="margin of the true class")
axes[1].set(xlabel="step", ylabel="lse")
axes[0].legend(loc="lower right")
plt.show()

# %% [markdown]
# ## 4 · Rows that do not count
#
# Padding has no label. Leaving such rows out means that they add nothing to the sum, are not counted in the mean, and
# get the gradient zero, *whatever they hold*. Multiplying by a mask does not do that: $0 \cdot \mathrm{NaN}$ is NaN,
# and where no row counts, the mean is $0/0$.

# %%
rows, labels = normal(1, 6, 4), np.array([2, 0, -100, 1, -100, 3])
rows[2], rows[4] = np.nan, np.inf  # what nobody should look at
counts = labels != -100


@jax.jit
@jax.value_and_grad
def multiplied(rows, weights):
    """The mean loss of the rows that count, with weights 0 and 1, and its gradient."""
    each = loss(rows, np.maximum(labels, 0), reduction="none")
    return jnp.sum(weights * each) / jnp.sum(weights)


@jax.jit
@jax.value_and_grad
def left_out(rows, counts):
    """The same, with a boolean mask."""
    return loss(rows, labels, where=counts)


nobody = np.zeros(6, bool)
for f, dtype in ((multiplied, float), (left_out, bool)):
    for name, which in (("some", counts), ("none", nobody)):
        value, slope = f(rows, which.astype(dtype))
        print(f"{f.__name__:10}  {name} count: loss {value:.3f}, NaN in {np.isnan(slope).any(1).sum()} rows of dZ")

value, slope = left_out(rows, counts)
alone, slope_alone = jax.jit(jax.value_and_grad(loss))(rows[counts], labels[counts])
assert close(value, alone) and close(slope[counts], slope_alone)      # as if the others were not there
assert np.all(slope[~counts] == 0)
assert close(loss(rows, labels, ignore_label=-100), value)            # the same, said by the labels
value, slope = left_out(rows, nobody)
assert value == 0 and np.all(slope == 0)

for rows_, which in ((rows, counts), (normal(1, 6, 4), nobody)):
    value, slope = multiplied(rows_, which.astype(float))
    assert np.isnan(value) and np.isnan(slope).any()

# %% [markdown]
# **`where` has a trap.** $\operatorname{where}(m, f(x), 0)$ takes the value that was asked for, yet its adjoint sends
# a zero cotangent into $f$, and $f'(x) \cdot 0$ is NaN where the slope is infinite. The value is right and the gradient
# is not. A spelled rule puts the `where` *last*, behind the product.

# %%


def entropy(p):
    return jnp.where(p > 0, p * jnp.log(p), 0.0)


assert entropy(0.0) == 0
assert np.isnan(jax.grad(entropy)(0.0))

# %% [markdown]
# ## 5 · Classes that do not count
#
# In attention a mask takes entries out of a row of a softmax, and some rows lose all of theirs: here a sentence of six
# words is preceded by two of padding, and each word may look back at words, itself included. The first two rows have
# nothing left.
#
# - Filling with $-\infty$ computes $\exp(-\infty - (-\infty))$: NaN.
# - Filling with $-10^9$ makes all entries of such a row equal: a mean over exactly what is forbidden.
# - `softmax(..., where=mask)` gives zeros, and zero gradient: nothing asked, nothing answered.

# %%
t = np.arange(8)
mask = (t[None, :] <= t[:, None]) & (t >= 2)[None, :]  # (query, key)
scores, value = 2 * normal(2, 8, 8), normal(3, 8, 4)

ways = {
    "filled with −∞": lambda S: jax.nn.softmax(jnp.where(mask, S, -jnp.inf)),
    "filled with −10⁹": lambda S: jax.nn.softmax(jnp.where(mask, S, -1e9)),
    "softmax(where=mask)": lambda S: softmax(S, where=mask),
}
A = {name: np.asarray(way(scores)) for name, way in ways.items()}
infinite, large, ours = A.values()

assert np.all(np.isnan(infinite[:2]))
assert close(large[:2], 1 / 8)
assert np.all(ours[:2] == 0) and np.all(ours[~mask] == 0)
assert close(ours[2:], infinite[2:]) and close(ours[2:], large[2:])  # elsewhere all three agree

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
colours = plt.get_cmap("cividis").copy()
colours.set_bad(ORANGE)
for one_axes, (name, matrix) in zip(axes, A.items(), strict=True):
    image = one_axes.imshow(matrix, cmap=colours, vmin=0, vmax=1)
    one_axes.set_title(name)
    one_axes.set(xlabel="key", ylabel="query")
axes[0].text(3.5, 0.5, "NaN", ha="center", va="center", fontsize=14)
axes[1].text(3.5, 0.5, "1/8 each", ha="center", va="center", fontsize=14, color="white")
axes[2].text(3.5, 0.5, "0", ha="center", va="center", fontsize=14, color="white")
figure.colorbar(image, ax=axes, shrink=0.8)
plt.show()

# %% [markdown]
# A row of NaN that no loss looks at is not harmless. In $O = AV$ the values get $dV = A^\top dO$, a sum over *all*
# queries: $\mathrm{NaN} \cdot 0$ reaches every value, and from there every parameter before it.

# %%
dO = np.where((t >= 2)[:, None], normal(4, 8, 4), 0)  # the loss looks at words alone


def pulled(way):
    """dS and dV of O = A V."""
    return jax.jit(lambda S, V: jax.vjp(lambda S, V: way(S) @ V, S, V)[1](dO))(scores, value)


dS, dV = {}, {}
for name, way in ways.items():
    dS[name], dV[name] = pulled(way)
infinite, large, ours = dV.values()
assert np.all(np.isnan(infinite))
assert np.all(np.isfinite(ours)) and close(ours, large)
assert np.all(dS["softmax(where=mask)"][~mask] == 0)

# %% [markdown]
# ## 6 · Saturated probabilities in bfloat16
#
# A model that is right with $P_y = 0.999$ has the slope $P_y - 1 = -0.001$ at its true class. `bfloat16` has 8
# significant bits: just below one its numbers are $2^{-8}$ apart, so $P_y$ rounds to 1 and **the slope to 0**. The
# small difference itself is representable, as precisely as any number; but it must be taken *before* rounding. This has
# been a bug in real libraries, unseen by tests whose logits are all near zero.

# %%
margins = jnp.arange(0, 14, 0.125, dtype=jnp.bfloat16)  # these are exact in bfloat16
logits = jnp.stack([margins, *jnp.zeros((9, len(margins)), jnp.bfloat16)], 1)  # ten classes
first = np.zeros(len(margins), int)


@jax.jit
def early(logits):
    """P, rounded, less T."""
    return softmax(logits) - jax.nn.one_hot(first, 10, dtype=logits.dtype)


@jax.jit
def late(logits):
    """The rule of cross_entropy, which rounds last."""
    return jax.grad(lambda Z: loss(Z, first, reduction="sum"))(logits)


exact = np.asarray(late(logits.astype(jnp.float64)))
slopes = {f.__name__: np.asarray(f(logits).astype(jnp.float64)) for f in (early, late)}
assert early(logits).dtype == late(logits).dtype == jnp.bfloat16
assert np.all(abs(slopes["late"] - exact) <= 2**-8 * abs(exact) + 2**-20)  # float32 inside, rounded once at the end

saturated = exact[:, 0] > -(2**-9)
assert np.any(saturated) and np.all(slopes["early"][saturated, 0] == 0)  # an error of 100 %
assert np.all(slopes["early"][saturated, 1:] > 0)                        # while the others are still pushed down

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
floor = 1e-6
axes.semilogy(margins, -exact[:, 0], color="0.75", linewidth=6, label="exact")
axes.semilogy(margins, -slopes["late"][:, 0], color=BLUE, label="rounded last")
axes.semilogy(margins, np.maximum(-slopes["early"][:, 0], floor), "--", color=ORANGE, label="P rounded first")
axes.text(11.5, 1.6 * floor, "exactly zero", color=ORANGE, ha="center")
axes.set(xlabel="margin of the true class", ylabel="size of its slope, 1 − P", ylim=(0.8 * floor, 1.5))
axes.legend()
plt.show()

# %% [markdown]
# Where the true class is no longer pulled up while the others are pushed down, all logits drift: the gradient has a
# component along $\mathbf 1$ that does not belong there.

# %%
drift = {name: abs(of.sum(1)) for name, of in slopes.items()}
assert np.all(drift["early"][saturated] > 0.9 * abs(exact[saturated, 0]))
assert np.all(drift["late"] < 0.01 * abs(exact[:, 0]) + 2**-20)

# %% [markdown]
# ## 7 · A large vocabulary
#
# With $n$ rows, $V$ classes and $d$ features the logits $Z = XW$ are the largest array of a language model by far:
# $nV$ numbers, and $dZ$ as many again. But a row's loss needs only that row, and its gradients $dX = dZ\,W^\top$ and
# $dW = X^\top dZ$ are sums over blocks. `linear_cross_entropy` goes through $Z$ block by block and forgets each one.
#
# How can it, before it knows $dL$? The sum of the losses is one number, so $dL$ is one number: the gradients for
# $dL = 1$ are computed on the way *forth*, and the backward pass multiplies.

# %%
X, W, words = normal(5, 7, 4), normal(6, 4, 11), np.arange(7)
params = AffineParams(W, normal(7, 11))


def whole(params, X, labels):
    return cross_entropy(affine(params, X), labels)


def in_blocks(params, X, labels):
    return linear_cross_entropy(params, X, labels)


expected, got = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, X, words) for f in (whole, in_blocks))
assert all(jax.tree.leaves(jax.tree.map(close, got, expected)))

# %% [markdown]
# How much memory, the compiled programs say; nothing of this size is run. As long as all logits fit into one block the
# two are alike; from then on one of them stops growing.

# %%
WORDS, FEATURES = 32_768, 32
lengths = 4 ** np.arange(3, 7)


def temporaries(f, n):
    """Bytes that loss and gradients need besides arguments and results."""
    f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    of = AffineParams(f32(FEATURES, WORDS), None), f32(n, FEATURES), jax.ShapeDtypeStruct((n,), jnp.int32)
    compiled = jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(*of).compile()
    return compiled.memory_analysis().temp_size_in_bytes


bytes_of = {f.__name__: np.array([temporaries(f, n) for n in lengths]) for f in (whole, in_blocks)}
logit_bytes = 4 * lengths * WORDS
assert np.isclose(bytes_of["in_blocks"][0], bytes_of["whole"][0], rtol=0.01)
assert np.all(bytes_of["whole"] >= logit_bytes)                      # grows with n V,
assert bytes_of["in_blocks"][-1] < 1.1 * bytes_of["in_blocks"][-2]   # and this stays where it is
assert bytes_of["in_blocks"][-1] < bytes_of["whole"][-1] / 10

# %% jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(7.4, 3.4), layout="constrained")
axes.loglog(lengths, logit_bytes / 2**20, color="0.75", linewidth=6, label="the logits alone", base=2)
axes.loglog(lengths, bytes_of["whole"] / 2**20, "o-", color=ORANGE, label="affine, then cross_entropy", base=2)
axes.loglog(lengths, bytes_of["in_blocks"] / 2**20, "s-", color=BLUE, label="linear_cross_entropy", base=2)
axes.set_xticks(lengths, [str(n) for n in lengths])
ticks = 2 ** np.arange(3, 12, 2)
axes.set_yticks(ticks, [str(n) for n in ticks])
axes.set(xlabel="rows", ylabel="MiB of temporaries")
axes.legend()
plt.show()

# %% [markdown]
# ## 8 · Exercises
#
# **1.** Two classes. Write $dZ$ in terms of the difference $z = Z_1 - Z_0$ and the sigmoid.
#
# <details>
# <summary>Solution</summary>
#
# $P_1 = e^{Z_1}/(e^{Z_0} + e^{Z_1}) = \sigma(z)$. With the label $y \in \{0, 1\}$ it is $dZ_1 = \sigma(z) - y$ and
# $dZ_0 = -dZ_1$: the slope of logistic regression.
#
# </details>
#
# **2.** The labels are distributions $q$ that need not add up to one. What are $dZ$ and $dq$?
#
# <details>
# <summary>Solution</summary>
#
# $L = \operatorname{lse} \sum q - \langle q, Z\rangle$, so $dZ = P \sum q - q$ and
# $dq = \operatorname{lse} - Z = -\log P$.
#
# </details>
#
# **3.** Mend `entropy` of section 4 without a rule of its own.
#
# <details>
# <summary>Solution</summary>
#
# Keep the logarithm itself away from zero: an inner `where` gives it a harmless argument in the cases that the outer
# one throws away.
#
# ```python
# def mended(p):
#     return jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)
# ```
#
# </details>
#
# **4.** Float32 rounds too: $P_y - 1$ loses its digits at margins of 17 and more. Find a form of it that loses none.
#
# <details>
# <summary>Solution</summary>
#
# $P_y - 1 = -\sum_{v \ne y} P_v$: a sum of small numbers of one sign.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
# 1: two classes
pair = np.array([0.3, -1.1])
σ = 1 / (1 + np.exp(pair[0] - pair[1]))
for label in (0, 1):
    assert close(jax.grad(loss)(pair, label), [label - σ, σ - label])

# 2: distributions that do not add up
q = np.array([0.5, 0.0, 1.2, 0.1, 0.4])
slope_Z, slope_q = jax.grad(loss, argnums=(0, 1))(Z, q)
assert close(slope_Z, P * q.sum() - q)
assert close(slope_q, -np.log(P))


# 3: two times where
def mended(p):
    return jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)


assert mended(0.0) == 0 and jax.grad(mended)(0.0) == 0
assert close(jax.grad(mended)(0.3), jax.grad(entropy)(0.3))

# 4: no cancellation
certain = np.float32([20.0, 0.0, 0.0])
p = np.asarray(softmax(certain))
truth = np.exp(-20.0) * 2 / (1 + 2 * np.exp(-20.0))
assert p.dtype == np.float32 and p[0] - 1 == 0
assert np.isclose(p[1:].sum(), truth, rtol=1e-6)
print("all four hold")

# %% [markdown]
# ## In one breath
#
# The gradient of the cross-entropy is what was predicted less what was true. Take the maximum out before you
# exponentiate, subtract before you round, put `where` last, and let go of each block of logits before the next.
