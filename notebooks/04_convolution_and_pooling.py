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
# # 4 · Convolution and pooling are affine maps
#
# $$Y = \sum_k S_k\,X\,W_k + b$$
#
# A convolution is the affine map of notebook 1, once for every tap of its kernel, each time on a shifted copy of the
# image. Shifts are linear and known, so the backward pass is the affine one, tap by tap, with the shifts undone.
# Pooling is simpler still: its matrix holds no parameter at all.
#
# **After it you can**
#
# - draw the matrix of a convolution, and read padding, stride and dilation off it;
# - write down $dW$, $dX$ and $db$ of any convolution from the shapes of three factors;
# - say what a transposed convolution is, what it is not, and where its checkerboards come from;
# - say how the adjoints of average and of maximum pooling differ, and what happens at a tie.
#
# $dA$ is the *cotangent* of $A$. Every claim stands beside an `assert`. All numbers are small integers or fractions of
# powers of two, so **every equality in this notebook is exact.**

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from adjax import affine, avg_pool, conv, conv_transpose, inner, max_pool

random = np.random.default_rng(0)


def integers(*shape):
    """Random integers from −9 to 9, as floats."""
    return jnp.asarray(random.integers(-9, 10, shape), jnp.float32)


def as_matrix(linear, size):
    """The matrix of a linear function of vectors: its j-th column is the image of the j-th unit vector."""
    return np.asarray(jax.vmap(linear, out_axes=1)(jnp.eye(size)))


# %% [markdown]
# ## 1 · Every tap is a diagonal
#
# One dimension, one channel, a kernel of three taps $w_0, w_1, w_2$ (here 1, 2, 3, to tell them apart). Each output is
# the kernel laid over the input at one place, multiplied and summed:
#
# $$y_i = \sum_k w_k\,x_{i + k}.$$
#
# That is a row of a matrix. The next row is the same kernel one place further on. So the matrix has $w_k$ all along its
# $k$-th diagonal: one tap, one diagonal.

# %%
taps = jnp.array([1.0, 2.0, 3.0])


def on_a_line(s, **options):
    """The matrix of a convolution of s places with `taps`."""
    W = taps.reshape(3, 1, 1)                        # (k, c, o), one channel in and out
    return as_matrix(lambda x: conv((W, None), x.reshape(1, s, 1), **options).ravel(), s)


matrices = {
    "VALID": on_a_line(8, padding="VALID"),
    "SAME": on_a_line(8),
    "CIRCULAR": on_a_line(8, padding="CIRCULAR"),
    "stride 2": on_a_line(8, padding=1, stride=2),
    "dilation 2": on_a_line(8, padding="VALID", dilation=2),
}

# a diagonal for every tap, k to the right
assert np.array_equal(matrices["VALID"], sum(w * np.eye(6, 8, k) for k, w in enumerate(taps)))
assert np.array_equal(matrices["SAME"], sum(w * np.eye(8, 8, k - 1) for k, w in enumerate(taps)))     # moved by low = 1
assert np.array_equal(matrices["CIRCULAR"], sum(w * np.roll(np.eye(8), k - 1, 1) for k, w in enumerate(taps)))
assert np.array_equal(matrices["stride 2"], matrices["SAME"][::2])                                    # every other row
assert np.array_equal(matrices["dilation 2"], sum(w * np.eye(4, 8, 2 * k) for k, w in enumerate(taps)))

# %% jupyter={"source_hidden": true}
COLOUR = ["#56b4e9", "#e69f00", "#009e73"]  # of the taps; safe for the colour-blind
BLUE, ORANGE, INK, EMPTY = "#0072b2", "#d55e00", "#222222", "#f2f2f2"


def squares(ax, matrix, colour, label, title, fontsize=9):
    """A square for each entry that is not zero, pale ones for the rest."""
    for (i, j), value in np.ndenumerate(matrix):
        face = colour(value) if value else EMPTY
        ax.add_patch(plt.Rectangle((j, i), 1, 1, facecolor=face, edgecolor="white", linewidth=1.2))
        if value:
            ax.text(j + 0.5, i + 0.53, label(value), ha="center", va="center", fontsize=fontsize, color=INK)
    rows, columns = matrix.shape
    ax.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=12)


def of_tap(value):
    return COLOUR[int(value) - 1]


def tap_name(value):
    return f"$w_{int(value) - 1}$"


with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 5, figsize=(13, 2.9), dpi=110, layout="constrained")
    for ax, (title, matrix) in zip(subplots, matrices.items(), strict=True):
        squares(ax, matrix, of_tap, tap_name, "{}\n{} × {}".format(title, *matrix.shape))
        ax.set_anchor("N")
    plt.show()

# %% [markdown]
# Read the options off the pictures. *Padding* moves the diagonals: "SAME" starts one to the left, and what hangs over
# the edge multiplies zeros; "CIRCULAR" wraps it around. *Stride* drops rows. *Dilation* spreads the diagonals. Weight
# sharing is what makes them diagonals at all: a dense layer of this size has 64 free numbers, "SAME" has 3.
#
# ## 2 · Shift, multiply, sum
#
# Take the diagonals apart. $S_k$ is the matrix with a one wherever $w_k$ stands: row $i$ of $S_k X$ is what tap $k$
# sees from position $i$. With $c$ channels in and $o$ out each tap holds not a number but a matrix $W_k[c, o]$, and
#
# $$Y = \sum_k S_k\,X\,W_k, \qquad (t, o) = (t, s)\,(s, c)\,(c, o).$$
#
# $S_k$ works on *places*, from the left; $W_k$ on *channels*, from the right. They do not meet, except through $X$.


# %%
def shifts(s, k, *, stride=1, dilation=1, low=0, high=0):
    """S[k, t, s]: a one where tap k of the kernel, laid at place i, sees place j."""
    t = (s + low + high - (k - 1) * dilation - 1) // stride + 1
    tap, i, j = np.ogrid[:k, :t, :s]
    return jnp.asarray(stride * i + dilation * tap - low == j, jnp.float32)


s, k, c, o = 9, 3, 2, 4
X, W, b = integers(s, c), integers(k, c, o), integers(o)

for options in (
    {}, {"low": 1, "high": 1}, {"low": 2}, {"stride": 2}, {"dilation": 3}, {"stride": 3, "dilation": 2, "high": 2}
):
    S = shifts(s, k, **options)
    low, high = options.get("low", 0), options.get("high", 0)
    asked = {name: options[name] for name in ("stride", "dilation") if name in options}
    Y = sum(S[tap] @ X @ W[tap] for tap in range(k)) + b                              # (t, s)(s, c)(c, o) -> (t, o)
    assert jnp.array_equal(Y, conv((W, b), X, padding=[(low, high)], **asked))
    assert set(S.ravel().tolist()) == {0, 1} and S.sum(axis=2).max() == 1             # one entry in a row, or none

# %% [markdown]
# Two dimensions change nothing: a tap is a pair, and $S_k$ shifts both ways. As one sum of nine matrix products:

# %%
image, kernel = integers(6, 7, 2), integers(3, 3, 2, 4)
down, right = shifts(6, 3), shifts(7, 3)
Y = sum(
    jnp.einsum("is,jt,stc,co->ijo", down[p], right[q], image, kernel[p, q])
    for p, q in itertools.product(range(3), repeat=2)
)
assert jnp.array_equal(Y, conv((kernel, None), image, padding="VALID"))

# %% [markdown]
# ## 3 · The adjoint, from shapes
#
# Three factors a tap, and the cotangent $dY[t, o]$. Take one factor out of $\langle S_k X W_k, dY\rangle$; what is left
# has its shape, and there is one way to write it:
#
# | take out | left over | shapes |
# |---|---|---|
# | $W_k$ | $dW_k = (S_k X)^\top dY$ | $(c, s)(s, t)(t, o) = (c, o)$ |
# | $X$ | $dX = \sum_k S_k^\top\, dY\, W_k^\top$ | $(s, t)(t, o)(o, c) = (s, c)$ |
# | $b$ | $db = \mathbf 1^\top dY$ | $(1, t)(t, o) = (1, o)$ |
#
# Why a sum over $k$ in $dX$ and none in $dW_k$? Because $X$ is used by every tap and $W_k$ by one. A value that is used
# three times is blamed three times.

# %%
S = shifts(s, k, stride=2, low=1, high=1)
run = lambda params, X: conv(params, X, stride=2, padding=1)
Y, back = jax.vjp(run, (W, b), X)
dY = integers(*Y.shape)
(dW, db), dX = back(dY)

assert jnp.array_equal(dW, jnp.stack([(S[tap] @ X).T @ dY for tap in range(k)]))      # (c, t)(t, o) -> (c, o), k times
assert jnp.array_equal(dX, sum(S[tap].T @ dY @ W[tap].T for tap in range(k)))         # (s, t)(t, o)(o, c) -> (s, c)
assert jnp.array_equal(db, dY.sum(axis=0))                                            # (t, o) -> (o,)

δW, δX = integers(*W.shape), integers(*X.shape)
there = inner(jax.jvp(run, ((W, b), X), ((δW, 0 * b), δX))[1], dY)
assert there == inner(δW, dW) + inner(δX, dX) != 0    # ⟨J v, u⟩ = ⟨v, Jᵀ u⟩

# %% [markdown]
# The same as a picture, in the manner of notebook 1: a disc for each array, a line for each axis. The pairing $\sum_k
# \langle S_k X W_k, dY\rangle$ is a ring, $t, s, c, o$, with one line across it: $k$, which joins a shift to its
# matrix. Take a disc out, and the ends left open are the axes of its gradient.

# %%
whole = {"S": "kts", "X": "sc", "W": "kco", "dY": "to"}
values = {"S": S, "X": X, "W": W, "dY": dY}
for removed, expected in {"W": dW, "X": dX}.items():
    left = [name for name in whole if name != removed]
    spec = ",".join(whole[name] for name in left) + "->" + whole[removed]
    print(f"without {removed}: {spec}")
    assert jnp.array_equal(jnp.einsum(spec, *(values[name] for name in left)), expected)

# %% jupyter={"source_hidden": true}
PLACE = {"S": (0, 0), "X": (0, 1), "W": (1, 1), "dY": (1, 0)}
AXES = {"t": ("S", "dY"), "s": ("S", "X"), "c": ("X", "W"), "o": ("W", "dY"), "k": ("S", "W")}
SHADE = {"t": ORANGE, "s": "#009e73", "c": "#cc79a7", "o": "#e69f00", "k": BLUE}
BESIDE = {"t": (0, -0.15), "s": (-0.13, 0), "c": (0, 0.14), "o": (0.14, 0), "k": (-0.1, 0.1)}
RADIUS = 0.2


def draw_ring(ax, removed, title, below):
    """Discs joined by axes; the disc taken out is an empty place, and the lines that led to it end there."""
    for axis, ends in AXES.items():
        points = [np.array(PLACE[end], float) for end in ends]
        towards = (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
        for at, (end, sign) in enumerate(zip(ends, (1, -1), strict=True)):
            if end == removed:
                points[at] = points[at] + sign * RADIUS * towards
                ax.plot(*points[at], "o", color=SHADE[axis], markersize=9, zorder=4)
        ax.plot(*zip(*points, strict=True), color=SHADE[axis], linewidth=5, solid_capstyle="round", zorder=1)
        middle = (np.array(PLACE[ends[0]]) + np.array(PLACE[ends[1]])) / 2 + BESIDE[axis]
        ax.text(*middle, f"${axis}$", color=SHADE[axis], fontsize=19, ha="center", va="center")
    for name, place in PLACE.items():
        gone = name == removed
        style = {"facecolor": "white", "edgecolor": "#8a8a8a", "linestyle": (0, (2, 2))} if gone else {"color": INK}
        ax.add_patch(plt.Circle(place, RADIUS, linewidth=1.4, zorder=3, **style))
        colour = "#8a8a8a" if gone else "white"
        ax.text(*place, f"${name}$", color=colour, fontsize=17, ha="center", va="center", zorder=5)
    ax.set_title(title, fontsize=16, color=INK, pad=8)
    ax.text(0.5, -0.4, below, fontsize=12, color=INK, ha="center", va="center")
    ax.set(xlim=(-0.35, 1.35), ylim=(-0.5, 1.25), aspect="equal")
    ax.axis("off")


with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 3, figsize=(11.2, 3.9), dpi=110, layout="constrained")
    draw_ring(subplots[0], None, r"$\sum_k\,\langle S_k X W_k,\ dY\rangle$", "nothing open: a number")
    draw_ring(subplots[1], "W", r"$dW_k = (S_k X)^\mathsf{T}\,dY$", "open ends $k, c, o$")
    draw_ring(subplots[2], "X", r"$dX = \sum_k S_k^\mathsf{T}\,dY\,W_k^\mathsf{T}$", "open ends $s, c$")
    plt.show()

# %% [markdown]
# ## 4 · `conv_transpose` is the adjoint
#
# The map $dY \mapsto \sum_k S_k^\top dY\,W_k^\top$ is a layer of its own, the *transposed convolution*. Where a
# convolution gathers what lies under the kernel, its transpose **stamps** the kernel, times $y_i$, onto each place, and
# adds where stamps overlap: the rows of the one matrix are the columns of the other.

# %%
Wt = taps.reshape(3, 1, 1)
options = {"stride": 2, "padding": "VALID"}
gathers = as_matrix(lambda x: conv((Wt, None), x.reshape(9, 1), **options).ravel(), 9)            # (4, 9)
stamps = as_matrix(lambda y: conv_transpose((Wt, None), y.reshape(4, 1), **options).ravel(), 4)   # (9, 4)
assert np.array_equal(stamps, gathers.T)

# with channels, and any options: dX of conv is conv_transpose, and dY of conv_transpose is conv
assert jnp.array_equal(dX, conv_transpose((W, None), dY, stride=2, padding=1))
up = lambda y: conv_transpose((W, None), y, stride=2, padding=1)
assert jnp.array_equal(jax.vjp(up, dY)[1](X)[0], run((W, None), X))

# %% jupyter={"source_hidden": true}
coverage = np.asarray(conv_transpose((jnp.ones((3, 1, 1)), None), jnp.ones((4, 1)), **options)).ravel()
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11.2, 3.9), dpi=110, layout="constrained", gridspec_kw={"width_ratios": (9, 4.5, 9)}
    )
    squares(left, gathers, of_tap, tap_name, "conv, stride 2: each row gathers", 11)
    squares(middle, stamps, of_tap, tap_name, "conv_transpose:\neach column stamps", 11)
    for at in range(4):
        places = np.arange(2 * at, 2 * at + 3)
        right.bar(places, 1, bottom=(stamps[places, :at] > 0).sum(axis=1), color=COLOUR, edgecolor="white", width=0.9)
    right.set(xticks=range(9), yticks=[0, 1, 2], xlabel="place", ylabel="stamps on it", ylim=(0, 2.4))
    right.set_title("how many stamps fall on each place", fontsize=12)
    right.spines[["top", "right"]].set_visible(False)
    plt.show()

# %% [markdown]
# Three taps, two places apart: every other place is stamped twice. That is the *checkerboard* of images made by
# transposed convolutions, and of gradients of strided ones. Kernels whose size is a multiple of the stride do not have
# it.
#
# And an adjoint is not an inverse: it brings back the *shape*, not the values.

# %%
assert coverage.tolist() == [1, 1, 2, 1, 2, 1, 2, 1, 1]
even = conv_transpose((jnp.ones((4, 1, 1)), None), jnp.ones((4, 1)), **options).ravel()
assert even.tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]                                # only the border is covered once
assert not np.array_equal(gathers @ stamps, np.eye(4)) and (gathers @ stamps).shape == (4, 4)

# %% [markdown]
# ## 5 · Average pooling: a fixed matrix
#
# A window that moves by its own size, and in each the mean: a convolution whose kernel is $1/m$ in every channel for
# itself. Nothing to learn, nothing to remember: the derivative is the map itself, the adjoint gives every element of a
# window the same share,
#
# $$Y = A X, \qquad dX = A^\top dY.$$

# %%
average = lambda x: avg_pool(x.reshape(-1, 1), (2,)).ravel()
A = as_matrix(average, 8)
assert np.array_equal(A, np.kron(np.eye(4), [0.5, 0.5]))

x, z, u = integers(8), integers(8), integers(4)
for at in (x, z):                                                                     # the same adjoint everywhere
    assert jnp.array_equal(jax.vjp(average, at)[1](u)[0], A.T @ u)
assert jnp.array_equal(jax.jvp(average, (x,), (z,))[1], average(z))                   # its own derivative

# %% [markdown]
# ## 6 · Maximum pooling: a matrix that looks first
#
# The maximum picks one element of each window. Picking is linear, so with $P(x)$ the matrix that has a one where the
# maximum stands,
#
# $$y = P(x)\,x.$$
#
# Near $x$ nothing changes its mind, and $P$ stays as it is: the derivative is $P(x)$, and the adjoint $P(x)^\top$ sends
# each cotangent back to the element that won, all of it. The others get nothing.

# %%
largest = lambda x: max_pool(x.reshape(-1, 1), (2,)).ravel()


def selection(x):
    """P(x), column by column: forward mode."""
    return as_matrix(lambda v: jax.jvp(largest, (x,), (v,))[1], x.size)


first, second = jnp.array([3.0, 1, 4, 1, 5, 9, 2, 6]), jnp.array([2.0, 7, 1, 8, 2, 8, 1, 8])
tied = jnp.array([5.0, 5, 0, 0, 1, 3, 7, 7])

for at in (first, second, tied):
    P = selection(at)
    assert np.array_equal(P @ at, largest(at))                                        # it picks the maxima
    assert set(P.ravel()) == {0, 1} and (P.sum(axis=1) == 1).all()                    # one of each window
    assert np.array_equal(as_matrix(lambda u, at=at: jax.vjp(largest, at)[1](u)[0], 4), P.T)
assert not np.array_equal(selection(first), selection(second))                        # it depends on x
assert not jnp.array_equal(largest(first + second), largest(first) + largest(second))  # so the whole is not linear

# %% jupyter={"source_hidden": true}
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 4, figsize=(13, 2.4), dpi=110, layout="constrained")
    squares(subplots[0], A, lambda _: COLOUR[0], lambda _: "½", "average, any $x$", 11)
    titled = {r"maximum at $x$": first, r"maximum at another $x$": second, "maximum where two are tied": tied}
    for ax, (title, at) in zip(subplots[1:], titled.items(), strict=True):
        squares(ax, selection(at), lambda _: COLOUR[1], lambda _: "1", title, 11)
        ax.set_xticks(np.arange(8) + 0.5, [f"{value:g}" for value in at])
        ax.set_yticks(np.arange(4) + 0.5, [f"{value:g}" for value in largest(at)])
        ax.tick_params(length=0, labelsize=11)
        ax.set_xlabel("$x$", fontsize=13)
    subplots[0].set_xlabel(" ", fontsize=13)
    subplots[1].set_ylabel("$y$", fontsize=13, rotation=0, labelpad=12)
    plt.show()

# %% [markdown]
# **At a tie** there is no derivative: $\max(x_1, x_2)$ has a kink there, slope 0 on one side and 1 on the other. A rule
# must still say something. `max_pool` says: *the first one won*, so $P$ keeps a single one in each row. `jnp.max` says:
# *share it*. Either is a fair choice, and in each the backward pass is the transpose of the forward one. What would be
# wrong is to give both winners all of it.

# %%
pair = jnp.array([5.0, 5.0])
one_winner = jax.grad(lambda x: max_pool(x.reshape(2, 1), (2,))[0, 0])(pair)
shared = jax.grad(jnp.max)(pair)
assert one_winner.tolist() == [1, 0] and shared.tolist() == [0.5, 0.5]
assert one_winner.sum() == shared.sum() == 1         # raise both by δ, and the maximum rises by δ

# %% [markdown]
# In an image: the same cotangent $dY$, spread by the average and sent home by the maximum. The right picture has one
# coloured element in each window, at the place where $x$ is largest.

# %%
rows, columns = np.mgrid[:8, :8]
picture = jnp.asarray(np.round(16 * np.exp(-((rows - 2.6) ** 2 + (columns - 4.3) ** 2) / 12)), jnp.float32)[..., None]
cotangent = jnp.asarray([[2.0, -1, 1, 3], [1, 3, -2, 1], [-3, 1, 2, -1], [1, -2, 1, 2]])[..., None]
by_average = jax.vjp(lambda x: avg_pool(x, (2, 2)), picture)[1](cotangent)[0]
by_maximum = jax.vjp(lambda x: max_pool(x, (2, 2)), picture)[1](cotangent)[0]

assert jnp.array_equal(by_average, jnp.repeat(jnp.repeat(cotangent, 2, 0), 2, 1) / 4)
assert (by_maximum != 0).sum() == 16
assert jnp.array_equal(by_average.sum(), cotangent.sum()) and jnp.array_equal(by_maximum.sum(), cotangent.sum())

# %% jupyter={"source_hidden": true}
panels = {"$x$": picture, "$dY$": cotangent, "$dX$, average": by_average, "$dX$, maximum": by_maximum}
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 4, figsize=(12, 3.1), dpi=110, layout="constrained")
    for ax, (title, values) in zip(subplots, panels.items(), strict=True):
        signed = title != "$x$"
        scale = {"cmap": "PuOr", "vmin": -3.5, "vmax": 3.5} if signed else {"cmap": "Greys", "vmin": -2, "vmax": 22}
        ax.imshow(values[..., 0], extent=(0, 8, 8, 0), **scale)
        ax.set_xticks(range(0, 9, 2), [])
        ax.set_yticks(range(0, 9, 2), [])
        ax.grid(color=INK, linewidth=1)
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=14)
        if not signed:
            for (i, j), value in np.ndenumerate(np.asarray(values[..., 0])):
                ax.text(j + 0.5, i + 0.53, f"{value:.0f}", ha="center", va="center", fontsize=8)
    plt.show()

# %% [markdown]
# ## 7 · Exercises
#
# **1.** A kernel of one tap, `W[1, 1, c, o]`, over an image. Which layer is it?
#
# <details>
# <summary>Solution</summary>
#
# $S_0$ is the identity, so $Y = XW_0 + b$: the affine map, applied at every place.
#
# </details>
#
# **2.** A convolution of stride 2 is one of stride 1 followed by $D$, which keeps every other place. What does its
# adjoint do first?
#
# <details>
# <summary>Solution</summary>
#
# $(DC)^\top = C^\top D^\top$: first $D^\top$, which puts a zero between any two places, then the adjoint of stride 1.
#
# </details>
#
# **3.** The transpose of a circular convolution is again a circular convolution. With which kernel? (Transpose the
# third matrix of section 1.)
#
# <details>
# <summary>Solution</summary>
#
# The kernel backwards: a diagonal $k$ to the right becomes one $k$ to the left. (Circular convolutions are what the
# Fourier transform makes diagonal, and a flipped kernel has the complex conjugate spectrum, as an adjoint should.)
#
# </details>
#
# **4.** Windows of 3 that move by 1: in how many windows can one element win? Give an $x$ for which all of $dY$ goes to
# one element.
#
# <details>
# <summary>Solution</summary>
#
# In three, as the number of ones in a column of $P(x)$ is at most the number of windows that see it. Five elements with
# the largest in the middle make three windows, and it wins them all: $dx$ there is the sum of $dY$.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
# 1: one tap
W1 = integers(1, 1, 2, 4)
assert jnp.array_equal(conv((W1, b), image), affine((W1[0, 0], b), image))

# 2: zeros between, then stride 1
steps = lambda stride: (lambda x: conv((W, None), x, stride=stride, padding="VALID"))
u = integers(4, o)                                   # of 9 places, stride 2 leaves 4
apart = jnp.zeros((7, o)).at[::2].set(u)             # Dᵀ
assert jnp.array_equal(jax.vjp(steps(2), X)[1](u)[0], jax.vjp(steps(1), X)[1](apart)[0])

# 3: the kernel backwards
flipped = taps[::-1].reshape(3, 1, 1)
backwards = as_matrix(lambda x: conv((flipped, None), x.reshape(8, 1), padding="CIRCULAR").ravel(), 8)
assert np.array_equal(backwards, matrices["CIRCULAR"].T)
spectrum = np.fft.fft(matrices["CIRCULAR"][:, 0])
F = np.fft.fft(np.eye(8))
assert np.allclose(F @ matrices["CIRCULAR"] @ np.linalg.inv(F), np.diag(spectrum))

# 4: one element wins three times
alone = jnp.array([1.0, 2, 9, 2, 1])
sliding = lambda x: max_pool(x.reshape(5, 1), (3,), stride=1).ravel()
assert jax.vjp(sliding, alone)[1](jnp.array([1.0, 2, 4]))[0].tolist() == [0, 0, 7, 0, 0]
print("all four hold")

# %% [markdown]
# ## In one breath
#
# A convolution shifts places from the left and mixes channels from the right; its adjoint shifts back and mixes back,
# and adds up what was used more than once. Average pooling is a matrix, maximum pooling a matrix that looks first;
# their adjoints share alike, or give all to the winner.
