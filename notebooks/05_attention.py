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
# # 5 · Attention and its adjoint, in linear memory
#
# $$O = A\,V, \qquad A = \operatorname{softmax}\!\big(Q K^\top\!/\sqrt d\,\big)$$
#
# Two matrix products with a softmax between them. The adjoint of each is known; put together in reverse order they are
# the backward pass. The trouble is $A$: it has an entry for every query and every key, and autodiff keeps it. This
# notebook writes the adjoint down, and then never holds $A$.
#
# **After it you can**
#
# - derive $dV$, $dQ$, $dK$ from shapes, and the one step that is not a matrix product, softmax's;
# - say which queries blame which keys, from a picture of the mask;
# - take a softmax over keys that arrive block by block, exactly;
# - write attention with its backward pass in forty lines, in memory that grows as the length, measure it, and get
#   forward mode for nothing.
#
# $dA$ is the *cotangent* of $A$. Letters: $t$ queries, $s$ keys, $d$ and $e$ features. Every claim stands beside an
# `assert`; numbers are float64, except where memory is measured.

# %%
from functools import partial

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from adjax import any_mode, attention, inner

BLUE, ORANGE, GREEN, INK = "#0072b2", "#d55e00", "#009e73", "#222222"  # safe for the colour-blind
close = partial(np.allclose, rtol=1e-12, atol=1e-12)
reverse = lambda f: lambda Q, K, V, dO: jax.vjp(f, Q, K, V)[1](dO)       # (dQ, dK, dV) as a program


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def softmax(S):
    """Row by row: positive, and of sum one."""
    P = jnp.exp(S - S.max(axis=1, keepdims=True))
    return P / P.sum(axis=1, keepdims=True)


@jax.jit
def plain(Q, K, V, seen=True):
    """O[t, e], by its definition; `seen[t, s]` says which keys a query may see."""
    S = Q @ K.T / jnp.sqrt(Q.shape[1])               # (t, d)(d, s) -> (t, s)
    A = softmax(jnp.where(seen, S, -jnp.inf))        # (t, s)
    return A @ V                                     # (t, s)(s, e) -> (t, e)


@partial(jax.jit, static_argnames=("causal", "window"))
def one_head(Q, K, V, **options):
    """`adjax.attention` of one example and one head."""
    return attention(Q[None, :, None], K[None, :, None], V[None, :, None], **options)[0, :, 0]


t, s, d, e = 6, 8, 3, 4
Q, K, V, dO = normal(0, t, d), normal(1, s, d), normal(2, s, e), normal(3, t, e)
assert close(one_head(Q, K, V), plain(Q, K, V))

# %% [markdown]
# ## 1 · A weighted mean, and who sees whom
#
# Row $i$ of $A$ is positive and sums to one: query $i$ returns a *mean* of the values, weighed by how well its keys
# fit. A mask takes keys away from a query: their score is $-\infty$, their weight 0, and the rest sums to one as
# before.
#
# To see $A$, average something that shows the weights: with $V = I$ the output *is* $A$.

# %%
n = 12
q, k = normal(4, n, d), normal(5, n, d)
i, j = np.ogrid[:n, :n]
patterns = {
    "all": ({}, np.full((n, n), True)),
    "causal": ({"causal": True}, j <= i),
    "window 3": ({"window": 3}, abs(i - j) < 3),
    "causal, window 3": ({"causal": True, "window": 3}, (j <= i) & (abs(i - j) < 3)),
}
weights = {name: np.asarray(one_head(q, k, jnp.eye(n), **options)) for name, (options, _) in patterns.items()}

for name, A in weights.items():
    seen = patterns[name][1]
    assert close(A, plain(q, k, jnp.eye(n), seen))
    assert close(A.sum(axis=1), 1) and np.array_equal(A > 0, seen)       # zero where it may not look, exactly

options, seen = patterns["causal, window 3"]
third = jnp.zeros((n, n)).at[3].set(1)               # a cotangent for the output of query 3 alone
dV = jax.jit(reverse(partial(one_head, **options)))(q, k, jnp.eye(n), third)[2]
assert np.array_equal(dV[:, 0] != 0, seen[3])        # reaches the values that it sees, no others

# %% jupyter={"source_hidden": true}
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 4, figsize=(12.4, 3.5), dpi=110, layout="constrained")
    for ax, (name, A) in zip(subplots, weights.items(), strict=True):
        seen = patterns[name][1]
        drawn = ax.imshow(np.where(seen, A, np.nan), cmap="cividis", vmin=0, vmax=0.5)
        ax.set_facecolor("#e4e4e4")
        ax.set(xticks=[], yticks=[], xlabel="keys")
        ax.set_title(name, fontsize=13)
    subplots[0].set_ylabel("queries")
    figure.colorbar(drawn, ax=subplots, label="weight (grey: not seen)", shrink=0.85, extend="max")
    plt.show()

# %% [markdown]
# ## 2 · The adjoint, last step first
#
# Forward there are three steps, backward their adjoints in reverse order. Two are matrix products, and shapes decide:
#
# | forward | adjoint | shapes |
# |---|---|---|
# | $O = A V$ | $dV = A^\top dO$ | $(s, t)(t, e) = (s, e)$ |
# | | $dA = dO\,V^\top$ | $(t, e)(e, s) = (t, s)$ |
# | $A = \operatorname{softmax} S$ | $dS = A \odot \big(dA - (A \odot dA)\,\mathbf 1\mathbf 1^\top\big)$ | $(t, s)$ |
# | $S = Q K^\top\!/\sqrt d$ | $dQ = dS\,K/\sqrt d$ | $(t, s)(s, d) = (t, d)$ |
# | | $dK = dS^\top Q/\sqrt d$ | $(s, t)(t, d) = (s, d)$ |
#
# The middle one works on each row by itself. With $a = e^{x}/\sum e^{x}$ a change of the scores moves the weights by
#
# $$\delta a_j = a_j\,\delta x_j - a_j \textstyle\sum_l a_l\,\delta x_l, \qquad
#   \delta a = (\operatorname{diag} a - a a^\top)\,\delta x:$$
#
# what a score gains, minus what everyone gains *on average*, for the weights must still sum to one. The matrix is
# **symmetric**, so the adjoint is the same formula once more: $dS = A \odot (dA - \text{its mean under } A)$.


# %%
@jax.jit
def backward(Q, K, V, dO):
    """The five lines of the table."""
    scale = 1 / jnp.sqrt(Q.shape[1])
    A = softmax(scale * Q @ K.T)                             # (t, d)(d, s) -> (t, s)
    dV = A.T @ dO                                            # (s, t)(t, e) -> (s, e)
    dA = dO @ V.T                                            # (t, e)(e, s) -> (t, s)
    dS = A * (dA - (A * dA).sum(axis=1, keepdims=True))      #                 (t, s)
    dQ = scale * dS @ K                                      # (t, s)(s, d) -> (t, d)
    dK = scale * dS.T @ Q                                    # (s, t)(t, d) -> (s, d)
    return dQ, dK, dV


for function in (plain, one_head):                           # autodiff of the definition; the rule of adjax
    for ours, theirs in zip(backward(Q, K, V, dO), jax.jit(reverse(function))(Q, K, V, dO), strict=True):
        assert close(ours, theirs)

tangents = normal(6, t, d), normal(7, s, d), normal(8, s, e)
there = inner(jax.jvp(plain, (Q, K, V), tangents)[1], dO)
assert close(there, inner(tangents, backward(Q, K, V, dO)))  # ⟨J v, u⟩ = ⟨v, Jᵀ u⟩

# %% [markdown]
# What does the middle matrix let through? Where all weights are equal, every difference of scores. Where one weight is
# almost 1, almost nothing: such a query has made up its mind, and no gradient reaches $Q$ and $K$ through it any more.
# Only $dV$ still flows.

# %%
scores = {"undecided": np.zeros(5), "leaning": np.array([0, 0, 2.0, 1, 0]), "decided": np.array([0, 0, 6.0, 1, 0])}
jacobians = {}
for name, x in scores.items():
    a = np.exp(x) / np.exp(x).sum()
    jacobians[name] = M = np.diag(a) - np.outer(a, a)
    assert close(jax.jacobian(jax.nn.softmax)(x), M) and close(M, M.T)   # symmetric: its own adjoint
    assert close(M @ np.ones(5), 0)                                      # raising all scores alike changes nothing
    assert np.linalg.eigvalsh(M)[0] > -1e-12 and np.linalg.norm(M, 2) <= 0.5
through = {name: np.linalg.norm(M, 2) for name, M in jacobians.items()}
assert through["decided"] < through["undecided"] / 10
assert close(jacobians["undecided"], (np.eye(5) - 1 / 5) / 5)            # what differs from the mean, a fifth of it

# %% jupyter={"source_hidden": true}
figure, subplots = plt.subplots(1, 3, figsize=(10.5, 3.6), dpi=110, layout="constrained")
for ax, (name, M) in zip(subplots, jacobians.items(), strict=True):
    drawn = ax.imshow(M, cmap="PuOr", vmin=-0.4, vmax=0.4)
    for (row, column), value in np.ndenumerate(M):
        label = f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00")
        ax.text(column, row, label, ha="center", va="center", fontsize=9, color=INK)
    largest = np.exp(scores[name]).max() / np.exp(scores[name]).sum()
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{name}: largest weight {largest:.3f}", fontsize=12)
    ax.spines[:].set_visible(False)
figure.colorbar(drawn, ax=subplots, shrink=0.85, label=r"diag$(a) - a a^\mathsf{T}$")
plt.show()

# %% [markdown]
# ## 3 · A softmax over keys that arrive in blocks
#
# $S$, $A$, $dA$ and $dS$ all have $t \times s$ entries. None of them is wanted: only means under $A$ are. A mean can be
# taken as the keys arrive. Keep three things for each query: the highest score so far, the total of $e^{\text{score} -
# \text{highest}}$, and the sum of values weighed so. When a higher score comes, what was kept is scaled down to the new
# highest.
#
# $$m' = \max(m, \max S), \qquad
#   \ell' = e^{m - m'}\ell + \textstyle\sum e^{S - m'}, \qquad
#   N' = e^{m - m'} N + e^{S - m'}\,V.$$
#
# At every moment $N/\ell$ is *exactly* the attention over the keys so far.


# %%
@jax.jit
def look(Q, so_far, block):
    """One more block of keys and values."""
    (top, total, sums), (k, v) = so_far, block
    S = Q @ k.T / jnp.sqrt(Q.shape[1])                       # (t, d)(d, block) -> (t, block)
    highest = jnp.maximum(top, S.max(axis=1, keepdims=True))
    old, P = jnp.exp(top - highest), jnp.exp(S - highest)    # (t, 1), (t, block)
    return highest, old * total + P.sum(axis=1, keepdims=True), old * sums + P @ v


def nothing_yet(Q, V):
    t, e = Q.shape[0], V.shape[1]
    return jnp.full((t, 1), -jnp.inf, Q.dtype), jnp.zeros((t, 1), Q.dtype), jnp.zeros((t, e), Q.dtype)


one, keys, values = 3 * normal(9, 1, d), normal(10, 32, d), normal(11, 32, 1)
seen_so_far = [nothing_yet(one, values)]
for at in range(0, 32, 4):
    seen_so_far.append(look(one, seen_so_far[-1], (keys[at : at + 4], values[at : at + 4])))
    top, total, sums = seen_so_far[-1]
    assert close(sums / total, plain(one, keys, values, np.arange(32) < at + 4))
assert close(sums / total, plain(one, keys, values))

# %% jupyter={"source_hidden": true}
x = np.arange(32)
score = np.asarray(one @ keys.T)[0] / np.sqrt(d)
ends = 4 * np.arange(1, 9)
tops, totals, means = (np.array([np.asarray(f(*kept)).item() for kept in seen_so_far[1:]]) for f in (
    lambda top, total, sums: top, lambda top, total, sums: total, lambda top, total, sums: sums / total
))
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(3, 1, figsize=(9, 6), dpi=110, layout="constrained", sharex=True)
    subplots[0].vlines(x, 0, score, color="0.6", linewidth=2)
    subplots[0].plot(x, score, "o", color="0.45", markersize=4, label="score of each key")
    subplots[0].step(ends - 4, tops, where="post", color=ORANGE, linewidth=2.2, label="highest so far, $m$")
    subplots[0].hlines(tops[-1], ends[-1] - 4, ends[-1], color=ORANGE, linewidth=2.2)
    subplots[0].set(ylabel="score", ylim=(-12, 7))
    subplots[1].bar(ends - 2, totals, width=3.6, color=BLUE)
    subplots[1].set_ylabel(r"total $\ell$")
    subplots[2].bar(ends - 2, means, width=3.6, color=GREEN)
    whole = float(plain(one, keys, values)[0, 0])
    subplots[2].axhline(whole, color=INK, linewidth=1.4, linestyle="--", label="attention to all keys")
    subplots[2].set(ylim=(0, 1.4), ylabel=r"$N/\ell$", xlabel="key", xlim=(-1, 32.5), xticks=range(0, 33, 4))
    for ax in subplots:
        for end in ends:
            ax.axvline(end - 0.15, color="0.85", linewidth=0.8, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
    subplots[0].legend(loc="lower right", ncols=2, fontsize=10)
    subplots[2].legend(loc="upper right", fontsize=10)
    plt.show()

# %% [markdown]
# ## 4 · The backward pass in blocks
#
# Keep $Q, K, V, O$ and the two numbers of each row, $m$ and $\ell$. With these any block of $A$ can be made again,
# $A = e^{S - m}/\ell$, and every line of the adjoint works block by block, but for one: the mean $\sum_s A\,dA$ runs
# over *all* keys. It is known beforehand. A mean under $A$ of $dA = dO\,V^\top$ is $dO$ against the mean of $V$:
#
# $$\sum_s A_{ts}\,dA_{ts} = \sum_s A_{ts} \sum_e dO_{te} V_{se} = \sum_e dO_{te}\,O_{te}.$$
#
# With `look` it is forty lines, the five of the table among them:


# %%
def blocked(size):
    """Attention in blocks of so many keys, with a rule of its own, in every mode."""
    cut = lambda x: x.reshape(-1, size, x.shape[1])          # (s, d) -> (blocks, size, d)
    paste = lambda x: x.reshape(-1, x.shape[2])              # and back

    @any_mode
    @jax.custom_vjp
    def blocks(Q, K, V):
        return fwd(Q, K, V)[0]

    def fwd(Q, K, V):
        step = lambda so_far, block: (look(Q, so_far, block), None)
        (top, total, sums), _ = jax.lax.scan(step, nothing_yet(Q, V), (cut(K), cut(V)))
        O = sums / total
        return O, (Q, K, V, O, top, total)

    def bwd(residuals, dO):
        Q, K, V, O, top, total = residuals
        scale = 1 / np.sqrt(Q.shape[1]).astype(Q.dtype)
        mean = (dO * O).sum(axis=1, keepdims=True)                   #                 (t, 1), Σ_s A dA

        @jax.checkpoint                                              # in any mode, A is made again and not kept
        def step(dQ, block):
            k, v = block
            A = jnp.exp(scale * Q @ k.T - top) / total               # (t, d)(d, s) -> (t, s), s of this block
            dV = A.T @ dO                                            # (s, t)(t, e) -> (s, e)
            dA = dO @ v.T                                            # (t, e)(e, s) -> (t, s)
            dS = A * (dA - mean)                                     #                 (t, s)
            dK = scale * dS.T @ Q                                    # (s, t)(t, d) -> (s, d)
            return dQ + scale * dS @ k, (dK, dV)                     # (t, s)(s, d) -> (t, d)

        dQ, (dK, dV) = jax.lax.scan(step, jnp.zeros_like(Q), (cut(K), cut(V)))
        return dQ, paste(dK), paste(dV)

    blocks.defvjp(fwd, bwd)
    return blocks


A, dA = one_head(Q, K, jnp.eye(s)), dO @ V.T
assert close((A * dA).sum(axis=1), (dO * plain(Q, K, V)).sum(axis=1))    # the mean, known beforehand

for size in (1, 4):
    assert close(jax.jit(blocked(size))(Q, K, V), plain(Q, K, V))
    for ours, theirs in zip(jax.jit(reverse(blocked(size)))(Q, K, V, dO), backward(Q, K, V, dO), strict=True):
        assert close(ours, theirs)

# %% [markdown]
# `adjax.attention` does the same the other way around: blocks of *queries*, each with all the keys that it may see.
# Then the mean is at hand in every block, no digit of it is lost, and nothing need be rescaled. Under `causal` or a
# window a block passes over most keys that none of its queries sees.
#
# ## 5 · Measured
#
# The compiler plans the memory of a program before it runs, and says so: `memory_analysis` lists the bytes of its
# temporaries, beside arguments and results. Forward and backward of one head with 64 features, in float32, for longer
# and longer inputs (none of them is run here):


# %%
def temporaries(program, length):
    """Its bytes, as the compiler plans them."""
    matrix = jax.ShapeDtypeStruct((length, 64), jnp.float32)
    return jax.jit(program).lower(*[matrix] * 4).compile().memory_analysis().temp_size_in_bytes


lengths = np.array([1024, 2048, 4096, 8192])
programs = {"autodiff": plain, "forty lines, blocks of 128 keys": blocked(128), "adjax.attention": one_head}
measured = {name: np.array([temporaries(reverse(f), length) for length in lengths]) for name, f in programs.items()}
for name, sizes in measured.items():
    print(f"{name:32}", "  ".join(f"{size / 2**20:6.1f}" for size in sizes), " MiB")

autodiff, forty, ours = measured.values()
assert 3.9 < autodiff[-1] / autodiff[-2] < 4.1               # twice the length, four times the memory
assert 1.9 < forty[-1] / forty[-2] < 2.1                     # twice
assert ours[-1] / ours[-2] < 2.1                             # twice at most: a block of fixed size, and rows
assert autodiff[-1] > 20 * max(forty[-1], ours[-1])

# %% jupyter={"source_hidden": true}
MARK = {"autodiff": (ORANGE, "s"), "forty lines, blocks of 128 keys": (BLUE, "o"), "adjax.attention": (GREEN, "^")}
figure, ax = plt.subplots(figsize=(7.6, 4), dpi=110, layout="constrained")
for name, sizes in measured.items():
    colour, marker = MARK[name]
    ax.loglog(lengths, sizes / 2**20, marker=marker, color=colour, linewidth=2, markersize=7, label=name, base=2)
for power, start, said in ((2, autodiff[1] / 3.2, "∝ length²"), (1, forty[1] / 2.6, "∝ length")):
    guide = start / 2**20 * (lengths[1:] / lengths[1]) ** power
    ax.loglog(lengths[1:], guide, color="0.5", linestyle="--", linewidth=1.2, base=2)
    ax.text(lengths[2], guide[1] / 1.35, said, color="0.35", fontsize=11, ha="left", va="top")
ax.set_xticks(lengths, [str(length) for length in lengths])
ax.set_yticks(2.0 ** np.arange(-1, 11, 2), [f"{2.0**power:g}" for power in np.arange(-1, 11, 2)])
ax.set(xlabel="length of queries and keys", ylabel="temporaries, MiB")
ax.grid(alpha=0.3)
ax.legend(fontsize=10)
plt.show()

# %% [markdown]
# ## 6 · Forward mode
#
# Forward the product rule says, with $\delta S = (\delta Q\,K^\top + Q\,\delta K^\top)/\sqrt d$,
#
# $$\delta O = A\,\delta V + \delta A\,V, \qquad \delta A = A \odot (\delta S - \text{its mean under } A).$$
#
# Nobody wrote it into the forty lines. But the backward rule is linear in $dO$, and `any_mode` turns it around
# (notebook 2): $\delta O = \mathrm{bwd}^\top(\delta Q, \delta K, \delta V)$. The transpose of a scan over blocks is a
# scan over the same blocks, and `jax.checkpoint` has each block of $A$ made again there, where it would be kept
# otherwise. So forward mode needs no $A$ either.


# %%
def tangent(Q, K, V, δQ, δK, δV):
    """The product rule."""
    scale = 1 / jnp.sqrt(Q.shape[1])
    A = softmax(scale * Q @ K.T)                             # (t, s)
    δS = scale * (δQ @ K.T + Q @ δK.T)                       # (t, s)
    δA = A * (δS - (A * δS).sum(axis=1, keepdims=True))      # (t, s)
    return A @ δV + δA @ V                                   # (t, e)


for function in (blocked(2), one_head):
    pushed = jax.jit(lambda *tangents, f=function: jax.jvp(f, (Q, K, V), tangents)[1])(*tangents)
    assert close(pushed, tangent(Q, K, V, *tangents))


def forth(function):
    """Forward mode, one tangent for all three."""
    return lambda Q, K, V, δ: jax.jvp(function, (Q, K, V), (δ, δ, δ))[1]


for name, function in programs.items():
    half, full = (temporaries(forth(function), length) for length in (2048, 4096))
    print(f"{name:32}  {half / 2**20:6.1f}  {full / 2**20:6.1f}  MiB at lengths 2048 and 4096")
    assert full > 3.9 * half if name == "autodiff" else full < 2.1 * half

# %% [markdown]
# ## 7 · Exercises
#
# **1.** Adding a number to all scores of a row changes nothing. What does that say of the rows of $dS$? And of
# $\sum_s dK_s$?
#
# <details>
# <summary>Solution</summary>
#
# Each row of $dS$ sums to zero: $\sum_s A\,dA - \sum_s A \cdot \text{mean} = 0$. Hence
# $\sum_s dK_s = \sum_t (\sum_s dS_{ts})\,Q_t/\sqrt d = 0$: moving all keys alike changes every row of scores by a
# constant.
#
# </details>
#
# **2.** Under `causal` the first query sees one key. What are $O_0$, $dQ_0$, and who blames the last key?
#
# <details>
# <summary>Solution</summary>
#
# The mean of one value: $O_0 = V_0$, whatever $Q_0$ is, so $dQ_0 = 0$. The last key is seen by the last query alone, so
# $dV_{-1} = A_{-1,-1}\,dO_{-1}$.
#
# </details>
#
# **3.** Two heads of queries share one head of keys and values. What are $dK$ and $dV$?
#
# <details>
# <summary>Solution</summary>
#
# The sum over both heads: what is used twice is blamed twice, the adjoint of copying.
#
# </details>
#
# **4.** The scores get a bias, $S = QK^\top\!/\sqrt d + B$. Find $dB$. What becomes of it, and of the memory, if $B$ is
# the same for all queries?
#
# <details>
# <summary>Solution</summary>
#
# $dB = dS$, and it has $t \times s$ entries because $B$ has them. A bias $b_s$ for all queries was copied $t$ times, so
# $db = \sum_t dS$, which the blocks can add up as they go.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
# 1: sums that vanish
dS = A * (dA - (A * dA).sum(axis=1, keepdims=True))
assert close(dS.sum(axis=1), 0) and close(backward(Q, K, V, dO)[1].sum(axis=0), 0)

# 2: the first query and the last key
square = normal(12, 8, d), K, V
u = normal(13, 8, e)
causal = partial(one_head, causal=True)
dQ, _, dV = jax.jit(reverse(causal))(*square, u)
last = softmax(square[0][-1:] @ K.T / jnp.sqrt(d))[0, -1]
assert close(causal(*square)[0], V[0]) and close(dQ[0], 0) and close(dV[-1], last * u[-1])

# 3: shared keys
two, u = normal(14, 1, t, 2, d), normal(15, 1, t, 2, e)
shared = jax.jit(reverse(attention))(two, K[None, :, None], V[None, :, None], u)
each = [backward(two[0, :, h], K, V, u[0, :, h]) for h in range(2)]
assert close(shared[1][0, :, 0], each[0][1] + each[1][1]) and close(shared[2][0, :, 0], each[0][2] + each[1][2])

# 4: a bias
by_bias = jax.jit(jax.grad(lambda B: inner(one_head(Q, K, V, bias=B), dO)))
dB, db = by_bias(jnp.zeros((t, s))), by_bias(jnp.zeros((1, s)))
assert close(dB, dS) and close(db[0], dS.sum(axis=0))
print("all four hold")

# %% [markdown]
# ## In one breath
#
# Attention is a mean under $A$; its adjoint takes means back to values, and differences from the mean back to scores.
# All of it can be done for a few keys at a time, so $A$ need never exist, and since backward is one linear program,
# forward mode comes with it, in the same memory.
