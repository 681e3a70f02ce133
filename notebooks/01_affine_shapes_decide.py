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
# # 1 · The affine map: shapes decide
#
# $$Y = XW + b$$
#
# is the most used line of deep learning. Its backward pass is three lines,
#
# $$dW = X^\top dY, \qquad dX = dY\,W^\top, \qquad db = \textstyle\sum_n dY,$$
#
# and nobody need remember them: the shapes decide. This notebook finds them, draws them, proves them, and makes them
# work in every mode of differentiation.
#
# **After it you can**
#
# - write down the gradient of a matrix product from the shapes of its factors, and say what shapes cannot tell;
# - read a gradient off a picture: take the argument out, and what is left is its gradient;
# - test a backward rule with two inner products, without knowing the right answer;
# - say what `jax.jvp`, `jax.vjp` and `jax.linear_transpose` compute, and why they must agree;
# - give a `jax.custom_vjp` the forward mode that it lacks.
#
# $dA$ always means the *cotangent* of $A$, the derivative of the loss with respect to each entry of $A$; $\delta A$
# means a *tangent*, a small change of $A$. Every claim below stands beside an `assert`.

# %%
import itertools
import textwrap

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

from adjax import AffineParams, affine, any_mode, inner, transpose

# %% [markdown]
# ## 1 · The example
#
# $n = 3$ examples, $d = 2$ features in, $p = 2$ features out, and the plainest of losses, $L = \sum Y$. All numbers
# are small multiples of ½, which float32 adds and multiplies without rounding, so **every equality in this notebook
# is exact.**

# %%
X = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # (n, d)
W = jnp.array([[2.0, 1.0], [-1.0, 3.0]])             # (d, p)
b = jnp.array([0.5, -2.0])                           # (p,)
params = AffineParams(W, b)


def loss(params, X):
    return affine(params, X).sum()


Y = affine(params, X)                                # (n, p)
dY = jax.grad(jnp.sum)(Y)                            # (n, p), all ones: L moves by as much as any entry of Y does
(dW, db), dX = jax.grad(loss, argnums=(0, 1))(params, X)

for name, value in {"Y": Y, "dY": dY, "dW": dW, "dX": dX, "db": db}.items():
    print(f"{name:2} = {value.tolist()}")

assert jnp.array_equal(Y, X @ W + b)
assert jnp.array_equal(dY, jnp.ones((3, 2)))

# %% [markdown]
# ## 2 · Three gradients from shapes alone
#
# Two facts are enough.
#
# 1. **Shape.** $L$ has one derivative for each entry of $W$, so $dW$ has the axes of $W$: $(d, p)$.
# 2. **Degree.** $W \mapsto XW$ is linear, so its derivative depends on $X$ and not on $W$. Doubling $X$ doubles the
#    effect of $W$, and doubling $dY$ doubles all that follows from it. So $dW$ holds $X$ once, $dY$ once, and no $W$.
#
# By the same reasoning $dX$ is made of $W$ and $dY$. And $b$ is the row of weights of one more feature that is always
# 1, $Y = XW + \mathbf 1 b^\top$, so $db$ is made of the column $\mathbf 1$ and $dY$.
#
# The second fact, checked:


# %%
def pull(W, X, b, dY):
    """(dW, dX, db) by the backward rule that `affine` spells."""
    (dW, db), dX = jax.vjp(affine, AffineParams(W, b), X)[1](dY)
    return dW, dX, db


dW, dX, db = pull(W, X, b, dY)

assert jnp.array_equal(pull(-7 * W, X, b, dY)[0], dW)     # dW does not depend on W,
assert jnp.array_equal(pull(W, 2 * X, b, dY)[0], 2 * dW)  # is linear in X
assert jnp.array_equal(pull(W, X, b, 2 * dY)[0], 2 * dW)  # and linear in dY
assert jnp.array_equal(pull(W, -7 * X, b, dY)[1], dX)     # dX does not depend on X
assert jnp.array_equal(pull(2 * W, X, b, dY)[1], 2 * dX)  # and is linear in W

# %% [markdown]
# Two matrices, either first, each transposed or not: eight products. A product exists only where the two axes in the
# middle are the same axis; the two outside are its shape. The machine writes down all eight, three times.

# %%
AXES = {"X": "nd", "W": "dp", "dY": "np", "1": "n1", "b": "1p"}  # b is a row; its axis 1 is the constant feature


def axes(factor):
    """The two axes of a factor such as X or Xᵀ."""
    letters = AXES[factor.removesuffix("ᵀ")]
    return letters[::-1] if factor.endswith("ᵀ") else letters


def products(A, B):
    """Every product of two matrices, in either order, each transposed or not."""
    for first, second in ((A, B), (B, A)):
        for s, t in itertools.product(("", "ᵀ"), repeat=2):
            yield first + s, second + t


def product_axes(left, right):
    """The axes of a product, or None where the axes in the middle are not the same."""
    (rows, middle), (other, columns) = axes(left), axes(right)
    return rows + columns if middle == other else None


found = {}
for argument, factor in {"W": "X", "X": "W", "b": "1"}.items():
    print("d{} has the axes ({},{}) and is made of {} and dY".format(argument, *AXES[argument], factor))
    for left, right in products(factor, "dY"):
        shape = product_axes(left, right)
        result = "→ ({},{})".format(*shape) if shape else f"  {axes(left)[1]} does not meet {axes(right)[0]}"
        mark = "  ✓" if shape == AXES[argument] else ""
        print("    {:3} {:4} ({},{})({},{}) {}{}".format(left, right, *axes(left), *axes(right), result, mark))
    print()

    exist = [pair for pair in products(factor, "dY") if product_axes(*pair)]
    fit = [pair for pair in exist if product_axes(*pair) == AXES[argument]]
    assert len(exist) == 2 and len(fit) == 1  # the shapes leave no choice
    found[argument] = fit[0]

# %% [markdown]
# Of eight products two exist, and they are each other's transposes; one has the right shape. Evaluated, the three
# that were found are the gradients that JAX computes without any rule of ours:

# %%
VALUES = {"X": X, "W": W, "dY": dY, "1": jnp.ones((len(X), 1))}


def evaluate(pair, values=VALUES):
    """The product of two factors given by name."""
    left, right = (values[f.removesuffix("ᵀ")].T if f.endswith("ᵀ") else values[f] for f in pair)
    return left @ right


def plain(W, X, b):
    """Y = X W + b, left to autodiff."""
    return X @ W + b


by_autodiff = dict(zip("WXb", jax.vjp(plain, W, X, b)[1](dY), strict=True))
by_rule = dict(zip("WXb", pull(W, X, b, dY), strict=True))

for argument, pair in found.items():
    value = evaluate(pair).reshape(by_autodiff[argument].shape)  # the row (1, p) is the vector (p,)
    print(f"d{argument} = {' '.join(pair):5} = {value.tolist()}")
    assert jnp.array_equal(value, by_autodiff[argument])
    assert jnp.array_equal(value, by_rule[argument])

# %% [markdown]
# **Letters decide, numbers may not.** Here $d = p = 2$. To someone who compares sizes instead of axes, two products
# fit $dW$; and since $dY$ is all ones, both even have the right *value*. Only a cotangent that is not all ones tells
# them apart. Test backward rules with sizes that differ and cotangents that vary.

# %%
SIZES = {"n": 3, "d": 2, "p": 2, "1": 1}


def sizes(letters):
    return [SIZES[letter] for letter in letters]


look_right = [
    (left, right)
    for left, right in products("X", "dY")
    if sizes(axes(left)[1] + axes(left)[0] + axes(right)[1]) == sizes(axes(right)[0] + "dp")
]
print("sizes alone admit", " and ".join(" ".join(pair) for pair in look_right))
assert look_right == [("Xᵀ", "dY"), ("dYᵀ", "X")]

right, wrong = look_right
assert jnp.array_equal(evaluate(right), evaluate(wrong))              # dY = 1 does not see the difference

varied = VALUES | {"dY": jnp.array([[1.0, -2.0], [3.0, 0.0], [-1.0, 5.0]])}
assert not jnp.array_equal(evaluate(right, varied), evaluate(wrong, varied))
assert jnp.array_equal(evaluate(right, varied), pull(W, X, b, varied["dY"])[0])

# %% [markdown]
# ## 3 · Why it is no accident: axes are lines that meet
#
# Draw a matrix as a disc with one line for each axis, and join the lines that are summed over. The pairing
#
# $$\langle XW, dY\rangle = \sum_{n,d,p} X_{nd}\,W_{dp}\,dY_{np}$$
#
# is a closed triangle: every axis is summed, no end is open, it is a number. It is linear in each disc, so its
# derivative with respect to one disc is **what is left when that disc is taken out**, and the ends left open are the
# axes of the disc that was there. The gradient *had* to have that shape.

# %% jupyter={"source_hidden": true}
COLOUR = {"n": "#0072B2", "d": "#D55E00", "p": "#009E73"}  # a palette safe for the colour-blind
INK, PALE, RADIUS = "#222222", "#8a8a8a", 0.25
PLACE = {"dY": (0.5, 0.92), "X": (0.0, 0.0), "W": (1.0, 0.0), "1": (0.0, 0.0), "b": (1.0, 0.0)}
SIDE = {"n": (-0.15, 0.05), "d": (0.0, -0.13), "p": (0.15, 0.05)}  # where the letter stands beside its line


def draw_network(ax, edges, removed, title, below):
    """Discs joined by axes; the disc taken out is an empty place, and the lines that led to it end there."""
    for axis, ends in edges.items():
        start, stop = (np.array(PLACE[end]) for end in ends)
        towards = (stop - start) / np.linalg.norm(stop - start)
        for end, sign in zip(ends, (1, -1), strict=True):
            if end == removed:  # an open end stops at the rim
                rim = np.array(PLACE[end]) + sign * RADIUS * towards
                start, stop = (rim, stop) if sign == 1 else (start, rim)
                ax.plot(*rim, "o", color=COLOUR[axis], markersize=9, zorder=4)
        ax.plot(*zip(start, stop, strict=True), color=COLOUR[axis], linewidth=5, solid_capstyle="round", zorder=1)
        middle = (np.array(PLACE[ends[0]]) + np.array(PLACE[ends[1]])) / 2 + SIDE[axis]
        ax.text(*middle, f"${axis}$", color=COLOUR[axis], fontsize=20, ha="center", va="center")
    for name in {end: None for ends in edges.values() for end in ends}:
        gone = name == removed
        style = {"facecolor": "white", "edgecolor": PALE, "linestyle": (0, (2, 2))} if gone else {"color": INK}
        ax.add_patch(plt.Circle(PLACE[name], RADIUS, linewidth=1.4, zorder=3, **style))
        label = r"$\mathbf{1}$" if name == "1" else f"${name}$"
        ax.text(*PLACE[name], label, color=PALE if gone else "white", fontsize=18, ha="center", va="center", zorder=5)
    ax.set_title(title, fontsize=18, color=INK, pad=10)
    ax.text(0.5, -0.5, below, fontsize=12, color=INK, ha="center", va="center")
    ax.set(xlim=(-0.4, 1.4), ylim=(-0.66, 1.22), aspect="equal")
    ax.axis("off")


triangle = {"n": ("X", "dY"), "d": ("X", "W"), "p": ("W", "dY")}
panels = [
    (triangle, None, r"$\langle XW, dY\rangle$", "nothing open: a number"),
    (triangle, "W", r"$dW = X^\mathsf{T}\,dY$", "open ends $d, p$"),
    (triangle, "X", r"$dX = dY\,W^\mathsf{T}$", "open ends $n, d$"),
    ({"n": ("1", "dY"), "p": ("b", "dY")}, "b", r"$db = \mathbf{1}^\mathsf{T}\,dY$", "open end $p$"),
]
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 4, figsize=(12, 3.6), dpi=110)
    for ax, panel in zip(subplots, panels, strict=True):
        draw_network(ax, *panel)
    figure.tight_layout(w_pad=1.5)
    plt.show()

# %% [markdown]
# `einsum` writes the same pictures as text. Taking a disc out moves its letters behind the arrow; that is all there
# is to the adjoint of an einsum. (Take $dY$ out, and what is left is $XW$.)

# %%
triangle = {"X": X, "W": W, "dY": varied["dY"]}


def pairing(*discs):
    """⟨XW, dY⟩, a number."""
    return jnp.einsum("nd,dp,np->", *discs)


for position, removed in enumerate(triangle):
    left = [name for name in triangle if name != removed]
    spec = ",".join(AXES[name] for name in left) + "->" + AXES[removed]
    print(f"without {removed:2}  {spec}")
    derivative = jax.grad(pairing, argnums=position)(*triangle.values())
    assert jnp.array_equal(jnp.einsum(spec, *(triangle[name] for name in left)), derivative)

# %% [markdown]
# ## 4 · What shapes cannot tell, an inner product can
#
# Shapes accept $3\,X^\top dY$ as gladly as $X^\top dY$. What fixes the factor is the *definition* of a transpose.
# With $\langle A, B\rangle = \sum_{ij} A_{ij} B_{ij}$, the transpose of a linear map $J$ is the one map $J^\top$ for
# which
#
# $$\langle J v,\, u\rangle = \langle v,\, J^\top u\rangle \qquad\text{for all } v, u.$$
#
# For the affine map each of the three takes one line:
#
# $$
# \begin{aligned}
# \langle X\,\delta W,\; dY\rangle
#     &= \textstyle\sum_{ndp} X_{nd}\,\delta W_{dp}\,dY_{np} = \langle \delta W,\; X^\top dY\rangle \\
# \langle \delta X\,W,\; dY\rangle
#     &= \textstyle\sum_{ndp} \delta X_{nd}\,W_{dp}\,dY_{np} = \langle \delta X,\; dY\,W^\top\rangle \\
# \langle \mathbf 1\,\delta b^\top,\; dY\rangle
#     &= \textstyle\sum_{np} \delta b_{p}\,dY_{np} = \langle \delta b,\; dY^\top \mathbf 1\rangle
# \end{aligned}
# $$
#
# The identity is also the best test of a backward rule: it needs no reference and no small step, and one random pair
# $(v, u)$ is all but certain to expose a wrong rule. Three different sizes; signed integers, so that nothing rounds:


# %%
random = np.random.default_rng(0)


def integers(*shape):
    """Random integers from −9 to 9, as floats."""
    return jnp.asarray(random.integers(-9, 10, shape), jnp.float32)


n, d, p = 7, 5, 3
point = {"W": integers(d, p), "X": integers(n, d), "b": integers(p)}
u = integers(n, p)
cotangents = dict(zip("WXb", pull(*point.values(), u), strict=True))  # Jᵀu: the rule that affine spells

print("       ⟨J v, u⟩   ⟨v, Jᵀu⟩   difference")
for name, at in point.items():
    v = integers(*at.shape)
    Jv = jax.jvp(lambda x, name=name: plain(**point | {name: x}), (at,), (v,))[1]  # J: autodiff of the plain function
    there, back = inner(Jv, u), inner(v, cotangents[name])
    print(f"in {name}   {there:8.0f}   {back:8.0f}   {there - back:10.0f}")
    assert there == back != 0
    assert there != inner(v, 3 * cotangents[name])  # right shape, wrong factor: seen

# %% [markdown]
# ## 5 · One linear map, seen three ways
#
# Fix $X$ and look at $f(W) = XW$ alone. JAX offers three views of it.
#
# | | takes | gives | because |
# |---|---|---|---|
# | `jax.jvp` | a tangent $\delta W$ | $J\,\delta W = X\,\delta W$ | a linear map is its own derivative |
# | `jax.vjp` | a cotangent $dY$ | $J^\top dY = X^\top dY$ | reverse mode is the transpose of forward mode |
# | `jax.linear_transpose` | a cotangent $dY$ | $f^\top dY = X^\top dY$ | $f$ is linear: nothing to differentiate |
#
# They must agree, for there is only one transpose: if $\langle v, Au\rangle = \langle v, Bu\rangle$ for all $v$ and
# $u$, then $A = B$. To see it, feed each view the unit vectors and collect the answers as columns. Flattened row by
# row, $\operatorname{vec}(XW) = (X \otimes I_p)\operatorname{vec} W$.


# %%
def as_matrix(linear, like):
    """The matrix of a linear map: its j-th column is the image of the j-th unit vector."""
    units = jnp.eye(like.size).reshape(like.size, *like.shape)
    return jax.vmap(lambda unit: linear(unit).ravel(), out_axes=1)(units)


def f(W):
    """X W: affine without b."""
    return affine((W, None), X)


pushed = as_matrix(lambda v: jax.jvp(f, (W,), (v,))[1], W)           # (n·p, d·p)
pulled = as_matrix(lambda u: jax.vjp(f, W)[1](u)[0], Y)              # (d·p, n·p)
transposed = as_matrix(lambda u: jax.linear_transpose(f, W)(u)[0], Y)

print(f"jvp {pushed.shape}   vjp {pulled.shape}   linear_transpose {transposed.shape}")
assert jnp.array_equal(pushed, jnp.kron(X, jnp.eye(2)))
assert jnp.array_equal(pushed.T, pulled)
assert jnp.array_equal(pulled, transposed)
assert jnp.array_equal(jax.jvp(f, (W,), (varied["dY"][:2],))[1], f(varied["dY"][:2]))  # its own derivative

# %% [markdown]
# With its bias the map is affine, not linear: $0 \mapsto b$. It has a derivative, whose transpose is the same
# $X^\top$, but no transpose of its own. `jax.linear_transpose` drops the offset in silence; `adjax.transpose` objects.

# %%
dropped = jax.linear_transpose(lambda W: affine((W, b), X), W)(dY)[0]
assert jnp.array_equal(dropped, X.T @ dY)

try:
    transpose(lambda W: affine((W, b), X), W)
except TypeError as error:
    print("TypeError:", error)
else:
    raise AssertionError("an affine map was taken for a linear one")

# %% [markdown]
# ## 6 · The derivative and its transpose, in full
#
# Flatten all three arguments into one vector of $4 + 6 + 2 = 12$ numbers, and $Y$ into one of 6. The derivative at
# $(W, b, X)$ is a $6 \times 12$ matrix of three blocks,
#
# $$J = \big[\; X \otimes I_p \;\big|\; \mathbf 1_n \otimes I_p \;\big|\; I_n \otimes W^\top \;\big].$$
#
# The left picture is built by `jax.jvp` from tangents, the right one by `jax.vjp` from cotangents. Nothing is
# transposed by hand, and yet one is the mirror image of the other: *that* is what a backward pass is.

# %%
flat, unflatten = ravel_pytree((params, X))                          # W, then b, then X


def flat_affine(theta):
    return affine(*unflatten(theta)).ravel()


J = as_matrix(lambda v: jax.jvp(flat_affine, (flat,), (v,))[1], flat)
JT = as_matrix(lambda u: jax.vjp(flat_affine, flat)[1](u)[0], Y.ravel())

blocks = [jnp.kron(X, jnp.eye(2)), jnp.kron(jnp.ones((3, 1)), jnp.eye(2)), jnp.kron(jnp.eye(3), W.T)]
assert J.shape == (6, 12) and JT.shape == (12, 6)
assert jnp.array_equal(J, jnp.concatenate(blocks, axis=1))
assert jnp.array_equal(JT, J.T)

# %% jupyter={"source_hidden": true}
CELL, GAP = 0.43, 0.4  # the side of a square in inches, and the space between blocks in squares
MAP, SCALE = plt.get_cmap("RdBu_r"), plt.Normalize(-3.6, 3.6)
BLOCKS = {"W": (2, 2), "b": (2,), "X": (3, 2)}
FORWARD = [r"$X\otimes I_p$", r"$\mathbf{1}_n\otimes I_p$", r"$I_n\otimes W^\mathsf{T}$"]
BACKWARD = [r"$dW = X^\mathsf{T}\,dY$", r"$db = \mathbf{1}^\mathsf{T}\,dY$", r"$dX = dY\,W^\mathsf{T}$"]


def entries(letter, *shape):
    """The names of an array's entries, row by row: W₁₁, W₁₂, ..."""
    return [f"${letter}_{{{''.join(str(i + 1) for i in index)}}}$" for index in np.ndindex(*shape)]


blocks = [entries(letter, *shape) for letter, shape in BLOCKS.items()]
inputs, outputs = list(itertools.chain(*blocks)), entries("Y", 3, 2)
along_inputs = np.arange(12) + GAP * np.repeat([0, 1, 2], [len(block) for block in blocks])
along_outputs = np.arange(6)
coupled = np.hstack([np.kron(np.ones((3, 3)), np.eye(2)), np.kron(np.eye(3), np.ones((2, 2)))]) > 0


def draw_matrix(figure, corner, matrix, coupled, x, y):
    """A square for each entry, pale and empty where no argument could make it other than 0."""
    width, height = CELL * (x[-1] + 1), CELL * (y[-1] + 1)
    inches = np.array([corner[0], corner[1] - height, width, height])
    ax = figure.add_axes(inches / np.tile(figure.get_size_inches(), 2))
    for (i, j), value in np.ndenumerate(np.asarray(matrix)):
        face = MAP(SCALE(value)) if coupled[i, j] else "#f4f4f4"
        ax.add_patch(plt.Rectangle((x[j], y[i]), 1, 1, facecolor=face, edgecolor="white", linewidth=2))
        if coupled[i, j]:
            ink = "white" if abs(value) > 2.5 else INK
            ax.text(x[j] + 0.5, y[i] + 0.52, f"${value:g}$", color=ink, ha="center", va="center", fontsize=13)
    ax.set(xlim=(0, x[-1] + 1), ylim=(y[-1] + 1, 0), xticks=x + 0.5, yticks=y + 0.5)
    ax.tick_params(length=0, labelsize=13, pad=5)
    ax.spines[:].set_visible(False)
    return ax


with plt.rc_context({"mathtext.fontset": "cm"}):
    figure = plt.figure(figsize=(11.6, 7.2), dpi=110)
    left = draw_matrix(figure, (0.85, 6.2), J, coupled, along_inputs, along_outputs)
    right = draw_matrix(figure, (7.4, 6.2), JT, coupled.T, along_outputs, along_inputs)
    left.set(xticklabels=inputs, yticklabels=outputs)
    right.set(xticklabels=outputs, yticklabels=inputs)
    left.set_xlabel(r"tangents $\delta W,\ \delta b,\ \delta X$: 4 + 2 + 6 = 12", fontsize=11, labelpad=8)
    left.set_ylabel(r"tangent $\delta Y$: 6", fontsize=11, labelpad=8)
    right.set_xlabel("cotangent $dY$: 6", fontsize=11, labelpad=8)
    right.set_ylabel(r"cotangents $dW,\ db,\ dX$: 12", fontsize=11, labelpad=8)
    left.text(along_inputs[-1] / 2 + 0.5, -1.55, "$J$, column by column with jax.jvp", ha="center", fontsize=14)
    right.text(3, -1.55, r"$J^\mathsf{T}$, column by column with jax.vjp", ha="center", fontsize=14)

    stops = np.cumsum([len(block) for block in blocks])
    for stop, block, above, beside in zip(stops, blocks, FORWARD, BACKWARD, strict=True):
        first, last = along_inputs[stop - len(block)] + 0.08, along_inputs[stop - 1] + 0.92
        left.plot([first, last], [-0.22, -0.22], color=INK, linewidth=1.2, clip_on=False)
        left.text((first + last) / 2, -0.42, above, ha="center", va="bottom", fontsize=14)
        right.plot([6.22, 6.22], [first, last], color=INK, linewidth=1.2, clip_on=False)
        right.text(6.45, (first + last) / 2, beside, ha="left", va="center", fontsize=14)

    place = left.inset_axes([0.25, -0.62, 0.5, 0.05])
    bar = figure.colorbar(plt.cm.ScalarMappable(SCALE, MAP), cax=place, orientation="horizontal", ticks=range(-3, 4))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.set_label("value of the entry (an empty square is 0 whatever $W$, $b$, $X$)", fontsize=11, labelpad=8)
    plt.show()

# %% [markdown]
# The order of the inputs is $W, b, X$. In the first block each $X_{nd}$ appears $p$ times, on a diagonal; in the
# last, $W^\top$ appears $n$ times, once for each example. Read the right picture row by row: a row of the block $dW$
# multiplies one column of $X$ into one column of $dY$. With $dY = 1$ every row is simply added up:

# %%
dW_sum, db_sum, dX_sum = jnp.split(JT.sum(axis=1), [4, 6])
assert jnp.array_equal(dW_sum, dW.ravel())
assert jnp.array_equal(db_sum, db)
assert jnp.array_equal(dX_sum, dX.ravel())

# %% [markdown]
# ## 7 · What a `jax.custom_vjp` loses, and what `any_mode` gives back
#
# A backward rule of one's own goes into a `jax.custom_vjp`. The price: JAX then knows this rule and no other, and every
# mode but reverse is gone. `any_mode` is one decorator more. Here is the product $XW$ in the form that JAX's
# documentation teaches, without that decorator and with it.


# %%
def product(decorate):
    """X W with its backward rule spelled out."""

    @decorate
    @jax.custom_vjp
    def XW(W, X):
        return X @ W

    def fwd(W, X):
        return XW(W, X), (W, X)

    def bwd(residuals, dY):
        W, X = residuals
        return X.T @ dY, dY @ W.T

    XW.defvjp(fwd, bwd)
    return XW


ordinary = product(lambda custom_vjp: custom_vjp)
lifted = product(any_mode)

# %% [markdown]
# Each transformation is tried on both, live. What it gives must be what mathematics says: $X\,\delta W$ forward,
# $X^\top dY$ backward, and $J_W^\top J_W = X^\top X \otimes I_p$ for the Hessian of $\tfrac12\lVert XW\rVert^2$.

# %%
δW = jnp.array([[1.0, -2.0], [0.0, 4.0]])


def vjp(f):
    return jax.vjp(lambda W: f(W, X), W)[1](dY)[0]


def jvp(f):
    return jax.jvp(lambda W: f(W, X), (W,), (δW,))[1]


def hessian(f):
    return jax.hessian(lambda W: (f(W, X) ** 2).sum() / 2)(W).reshape(4, 4)


def linear_transpose(f):
    return jax.linear_transpose(lambda W: f(W, X), W)(dY)[0]


EXPECTED = {
    vjp: X.T @ dY,
    jvp: X @ δW,
    hessian: jnp.kron(X.T @ X, jnp.eye(2)),
    linear_transpose: X.T @ dY,
}


def outcome(transformation, f):
    """Whether it gives what it must, or the error that it raises, in one line."""
    try:
        got = transformation(f)
    except (TypeError, NotImplementedError) as error:
        return textwrap.shorten(f"{type(error).__name__}: {error}", 100)
    assert jnp.array_equal(got, EXPECTED[transformation])
    return "right"


for transformation in EXPECTED:
    without, with_it = outcome(transformation, ordinary), outcome(transformation, lifted)
    print(f"jax.{transformation.__name__}\n    custom_vjp   {without}\n    any_mode     {with_it}")
    assert (without == "right") == (transformation is vjp)
    assert with_it == "right"

# %% [markdown]
# One of these losses has a loophole: forward over reverse, which is how `jax.hessian` works, survives in a `custom_vjp`
# whose forward rule calls the *undecorated* function. `affine` is written so, and `affine.custom_vjp` is what it was
# before `any_mode`: it has a Hessian, but neither a `jvp` nor a transpose. `affine` has them all.

# %%
unlifted = lambda W, X: affine.custom_vjp(AffineParams(W, None), X)
assert [outcome(t, unlifted) == "right" for t in EXPECTED] == [True, False, True, False]

whole = lambda W, X: affine(AffineParams(W, None), X)
assert all(outcome(t, whole) == "right" for t in EXPECTED)

# %% [markdown]
# **How it works.** A backward rule is linear in its cotangent: with the residuals $r$ that the forward rule keeps,
# $\mathrm{bwd}(r, \cdot) = J^\top$. A linear map can be transposed, and the transpose of the transpose is the map
# itself:
#
# $$J v = \big(\mathrm{bwd}(r, \cdot)\big)^{\!\top} v.$$
#
# The rule contains its own forward mode; nothing further needs to be written, and the two cannot disagree. By hand:

# %%
δparams, δX = AffineParams(δW, jnp.array([3.0, -1.0])), jnp.array([[2.0, 0.0], [-1.0, 1.0], [0.0, 5.0]])

_, residuals = affine.fwd(params, X)
(by_hand,) = jax.linear_transpose(lambda dY: affine.bwd(residuals, dY), Y)((δparams, δX))

assert jnp.array_equal(by_hand, X @ δparams.W + δX @ W + δparams.b)  # the product rule, which nobody wrote
assert jnp.array_equal(by_hand, jax.jvp(affine, (params, X), (δparams, δX))[1])
by_hand

# %% [markdown]
# ## 8 · Exercises
#
# **1.** PyTorch stores the weights of a linear layer as $W[p, d]$ and computes $Y = XW^\top + b$. Find $dW$ and $dX$
# from shapes.
#
# <details>
# <summary>Solution</summary>
#
# $dW$ has the axes $(p, d)$ and is made of $X[n, d]$ and $dY[n, p]$: $dW = dY^\top X$. And $dX$ has the axes $(n, d)$
# and is made of $W[p, d]$ and $dY$: $dX = dY\,W$.
#
# </details>
#
# **2.** Two layers without activation, $Y = X W_1 W_2$. Draw the ring and take $W_1$ out.
#
# <details>
# <summary>Solution</summary>
#
# The ring runs from $X$ to $W_1$ to $W_2$ to $dY$, and the axis $n$ closes it. Without $W_1$ what is left is a chain
# from its first axis to its second, by way of $X$, $dY$ and $W_2$: $dW_1 = X^\top\, dY\, W_2^\top$.
#
# </details>
#
# **3.** Shape alone, without the argument from degree, does not determine $dW$. Find another product that is linear
# in $dY$ and has the shape of $W$.
#
# <details>
# <summary>Solution</summary>
#
# For instance $W W^\top X^\top dY$, with the axes $(d,p)(p,d)(d,n)(n,p)$. It depends on $W$, but the derivative of a
# linear map does not depend on where it is taken. The inner products see it at once.
#
# </details>
#
# **4.** Scale each feature: $Y = X \operatorname{diag}(s)$, with $s[d]$. No product of $X$ and $dY$ has the shape of
# $s$. Take $s$ out of $\sum_{nd} X_{nd}\, s_d\, dY_{nd}$ all the same, write the rule as a `jax.custom_vjp`, lift it
# with `any_mode`, and compare `jax.jacfwd`, which runs your rule's transpose, with `jax.jacrev`, which runs the rule.
#
# <details>
# <summary>Solution</summary>
#
# $ds_d = \sum_n X_{nd}\, dY_{nd}$, the diagonal of $X^\top dY$: three lines meet in one point, so $d$ is not summed.
# And $dX = dY \operatorname{diag}(s)$.
#
# ```python
# @any_mode
# @jax.custom_vjp
# def scale(s, X):
#     return X * s
#
# def scale_fwd(s, X):
#     return scale.fun(s, X), (s, X)
#
# def scale_bwd(residuals, dY):
#     s, X = residuals
#     return (X * dY).sum(axis=0), dY * s
#
# scale.defvjp(scale_fwd, scale_bwd)
# ```
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
u = varied["dY"]

# 1: PyTorch's weights
dV, dX_torch = jax.vjp(lambda V, X: X @ V.T, W.T, X)[1](u)
assert jnp.array_equal(dV, u.T @ X)
assert jnp.array_equal(dX_torch, u @ W.T)

# 2: two layers
W1, W2 = integers(2, 4), integers(4, 2)
assert jnp.array_equal(jax.vjp(lambda W1: X @ W1 @ W2, W1)[1](u)[0], X.T @ u @ W2.T)

# 3: the right shape, and wrong
impostor = W @ W.T @ X.T @ u
assert impostor.shape == W.shape
assert inner(X @ δW, u) == inner(δW, X.T @ u)
assert inner(X @ δW, u) != inner(δW, impostor)


# 4: a scale for each feature
@any_mode
@jax.custom_vjp
def scale(s, X):
    return X * s


def scale_fwd(s, X):
    return scale.fun(s, X), (s, X)


def scale_bwd(residuals, dY):
    s, X = residuals
    return (X * dY).sum(axis=0), dY * s


scale.defvjp(scale_fwd, scale_bwd)

s = jnp.array([3.0, -2.0])
for argument in (0, 1):
    forward = jax.jacfwd(scale, argnums=argument)(s, X)
    reverse = jax.jacrev(scale, argnums=argument)(s, X)
    by_autodiff = jax.jacrev(lambda s, X: X * s, argnums=argument)(s, X)
    assert jnp.array_equal(forward, reverse)
    assert jnp.array_equal(reverse, by_autodiff)
ds = jax.vjp(scale, s, X)[1](u)[0]
assert jnp.array_equal(ds, jnp.diag(X.T @ u))
print("all four hold")

# %% [markdown]
# ## In one breath
#
# A gradient has the shape of its argument and the degree of the rest; that leaves one product. The inner product
# $\langle Jv, u\rangle = \langle v, J^\top u\rangle$ fixes its factor and tests it. Backward is the transpose of
# forward; write either one down, and you have both.
