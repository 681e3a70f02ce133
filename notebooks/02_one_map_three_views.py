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
# # 2 · One map, three views: `jvp`, `vjp`, `linear_transpose`
#
# A derivative is one linear map, $J$. JAX shows it from three sides: `jax.jvp` applies it, `jax.vjp` applies its
# transpose, `jax.linear_transpose` turns the one into the other. A `jax.custom_vjp` keeps the second view and loses the
# two others. This notebook says why, and why nothing was really lost: the rule holds all three.
#
# **After it you can**
#
# - say in one picture what a tangent and a cotangent are, and why the one goes forth and the other back;
# - tell which mode gives columns of $J$ and which gives rows, and what a whole $J$ costs in each;
# - transpose a program by hand: every line by itself, and the lines in reverse order;
# - explain what JAX knows of a `custom_vjp`, and recover the derivative from its backward rule in one line;
# - use both modes of your own rule at once, for Gauss–Newton.
#
# $dA$ is the *cotangent* of $A$, $\delta A$ a *tangent*. Every claim stands beside an `assert`; all numbers are
# float64.

# %%
import textwrap
from functools import partial

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.sparse.linalg import cg

from adjax import any_mode, explain, inner

P = jnp.array([[-0.4, 5.8], [5.0, 4.0], [5.0, -2.0], [-0.4, -3.8], [-3.0, 1.0]])  # (m, 2): five beacons
x = jnp.array([1.0, 1.0])                                                         # (2,): where you stand


def distances(x):
    """r[m], how far x[2] is from every beacon."""
    return jnp.sqrt(jnp.sum((x - P) ** 2, axis=1))


r = distances(x)
E = (x - P) / r[:, None]                             # (m, 2): unit vectors, from each beacon to x
print("distances", r.tolist())
assert np.allclose(r, [5, 5, 5, 5, 4]) and np.allclose(jnp.linalg.norm(E, axis=1), 1)

# %% [markdown]
# ## 1 · Velocities go forth, forces go back
#
# You stand at $x$ and read your distance from five beacons. **Walk** with velocity $v$: the distance from a beacon
# grows by the part of $v$ that points away from it, so the readings change at the rates
#
# $$\delta r_i = \langle e_i, v\rangle, \qquad \delta r = E\,v.$$
#
# Now put a telescopic rod between each beacon and you, and let rod $i$ **push** with force $u_i$ (pull, if negative).
# It pushes along $e_i$, and what you feel is the sum
#
# $$dx = \textstyle\sum_i u_i\,e_i = E^\top u.$$
#
# The first is `jax.jvp`: a velocity of $x$ becomes a velocity of $r$. The second is `jax.vjp`: forces on $r$ become a
# force on $x$. Nobody decided to transpose. The rods deliver the power $\sum_i u_i\,\delta r_i$, you receive the power
# $\langle v, dx\rangle$, and no power is lost on the way:
#
# $$\langle J v,\, u\rangle = \langle v,\, J^\top u\rangle.$$

# %%
v = jnp.array([2.0, 1.0])                            # (2,): a tangent of x
u = jnp.array([3.0, -2.0, 1.0, 2.0, 2.0])            # (m,): a cotangent of r

Jv = jax.jvp(distances, (x,), (v,))[1]               # (m, 2)(2,) -> (m,)
(JTu,) = jax.vjp(distances, x)[1](u)                 # (2, m)(m,) -> (2,)

assert np.allclose(Jv, E @ v) and np.allclose(JTu, E.T @ u)
print(f"delivered ⟨Jv, u⟩ = {inner(Jv, u):.4f}   received ⟨v, Jᵀu⟩ = {inner(v, JTu):.4f}")
assert np.allclose(inner(Jv, u), inner(v, JTu), rtol=1e-14)

# %% jupyter={"source_hidden": true}
BLUE, ORANGE, GREEN, INK, PALE = "#0072b2", "#d55e00", "#009e73", "#222222", "#9a9a9a"  # safe for the colour-blind


def arrow(ax, start, step, colour, width):
    """An arrow; its head is drawn to the same size whatever its length."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "mutation_scale": 7 + 4 * width}
    ax.annotate("", np.add(start, step), start, arrowprops=style | {"shrinkA": 0, "shrinkB": 0}, zorder=4)


def draw_beacons(ax, numbers, title):
    """The beacons, the rays to x, and at each beacon its number: blue where it is positive, orange where negative."""
    for i, (p, number) in enumerate(zip(np.asarray(P), np.asarray(numbers), strict=True), start=1):
        ax.plot(*zip(p, x, strict=True), color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ax.plot(*p, "^", color=INK, markersize=10)
        away = (p - np.asarray(x)) / np.linalg.norm(p - np.asarray(x))
        label = f"$p_{i}$: {number:+.1f}".replace("-", "−")
        colour = BLUE if number > 0 else ORANGE
        ax.text(*(p + away * (1.25, 0.7)), label, color=colour, ha="center", va="center", fontsize=12)
    ax.plot(*x, "o", color=INK, markersize=9, zorder=5)
    ax.set(xlim=(-5, 7.2), ylim=(-5, 7), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=13, pad=10)
    ax.spines[:].set_visible(False)


with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.2, 5.2), dpi=110, layout="constrained")
    draw_beacons(left, Jv, r"jvp: walk with $v$, the readings change at $\delta r = E\,v$")
    for e, rate in zip(np.asarray(E), np.asarray(Jv), strict=True):
        shadow = np.array([x, np.asarray(x) + rate * e])
        left.plot(*shadow.T, color=BLUE if rate > 0 else ORANGE, linewidth=5, alpha=0.45, solid_capstyle="butt")
    arrow(left, x, v, INK, 2.2)
    left.text(*(x + v + np.array([0.2, 0.1])), "$v$", fontsize=15)
    draw_beacons(right, u, r"vjp: rods push with $u$, you feel $dx = E^\mathsf{T} u$")
    for e, force in zip(np.asarray(E), np.asarray(u), strict=True):
        arrow(right, x, force * e, BLUE if force > 0 else ORANGE, 1.6)
    arrow(right, x, JTu, INK, 2.4)
    right.text(*(x + JTu + np.array([0.2, 0.1])), "$dx$", fontsize=15)
    plt.show()

# %% [markdown]
# On the left each thick bar is the shadow of $v$ on a ray: blue where you move away from the beacon, orange where
# towards it. On the right each coloured arrow is the push or pull of a rod, and $dx$ is their sum. The unit vectors in
# the two pictures are the same ones, the rows of $E$. That is all a transpose is: the same arrows, used to *measure* on
# the way forth and to *add up* on the way back.
#
# ## 2 · Columns forth, rows back
#
# $J$ has a row for each reading and a column for each coordinate, here $5 \times 2$. One `jvp` with a unit vector gives
# a column: what one coordinate does to all readings. One `vjp` with a unit vector gives a row: what one reading asks of
# all coordinates. A whole $J$ takes as many `jvp`s as it has columns or as many `vjp`s as it has rows.

# %%
columns = [jax.jvp(distances, (x,), (e,))[1] for e in jnp.eye(2)]     # 2 calls
rows = [jax.vjp(distances, x)[1](e)[0] for e in jnp.eye(5)]           # 5 calls

assert len(columns) == 2 and np.allclose(np.stack(columns, axis=1), E)
assert len(rows) == 5 and np.allclose(np.stack(rows), E)
assert np.allclose(jax.jacfwd(distances)(x), E) and np.allclose(jax.jacrev(distances)(x), E)

# %% jupyter={"source_hidden": true}
SHADES, RANGE = plt.get_cmap("PuOr"), plt.Normalize(-1.9, 1.9)


def draw_matrix(ax, matrix, lit, title, xlabels, ylabels):
    """A square for each entry; the ones that a single call gives stand in a frame."""
    matrix = np.asarray(matrix)
    ax.imshow(matrix, cmap=SHADES, norm=RANGE)
    for (i, j), value in np.ndenumerate(matrix):
        ax.text(j, i, f"{value:.2g}".replace("-", "−"), ha="center", va="center", fontsize=12)
    (top, bottom), (first, last) = lit
    frame = plt.Rectangle((first - 0.5, top - 0.5), last - first, bottom - top, fill=False, edgecolor=INK, linewidth=3)
    ax.add_patch(frame)
    frame.set_clip_on(False)
    ax.set_xticks(range(matrix.shape[1]), xlabels)
    ax.set_yticks(range(matrix.shape[0]), ylabels)
    ax.tick_params(length=0, labelsize=13)
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=12, pad=10)


of_r, of_x = [f"$r_{i}$" for i in range(1, 6)], ["$x_1$", "$x_2$"]
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(
        1, 3, figsize=(11.2, 3.7), dpi=110, layout="constrained", gridspec_kw={"width_ratios": (3, 3, 5)}
    )
    draw_matrix(subplots[0], E, ((0, 5), (0, 1)), "$J$: one jvp is a column", of_x, of_r)
    draw_matrix(subplots[1], E, ((1, 2), (0, 2)), "$J$: one vjp is a row", of_x, of_r)
    draw_matrix(subplots[2], E.T, ((0, 2), (1, 2)), r"$J^\mathsf{T}$: the same vjp, now a column", of_r, of_x)
    plt.show()

# %% [markdown]
# A loss is one number, its $J$ a single row: one `vjp` gives the whole gradient, whatever the number of parameters.
# That is why training runs backward. A curve has one parameter, its $J$ a single column: one `jvp`.
#
# ## 3 · The third view: a program, transposed line by line
#
# How does JAX get from the first view to the second? `jax.linearize` runs the function once, keeps what the derivative
# needs, and gives back the linear program $v \mapsto Jv$. `jax.linear_transpose` turns that program around. Ours has
# three lines:
#
# | forth, read downwards | | back, read upwards | |
# |---|---|---|---|
# | $\delta D = \mathbf 1\,\delta x^\top$ | copy to every beacon | $dx = dD^\top \mathbf 1$ | sum beacons |
# | $\delta s = (2D \odot \delta D)\,\mathbf 1$ | weigh, sum | $dD = 2D \odot ds\,\mathbf 1^\top$ | copy, weigh |
# | $\delta r = \delta s / 2r$ | divide | $ds = dr / 2r$ | divide |
#
# with $D = x - P$ and $s = r^2$. Each line on the right is the transpose of the one beside it: a copy becomes a sum, a
# sum a copy, a weight stays. And the order is reversed,
# $\langle CBA\,v, u\rangle = \langle v, A^\top B^\top C^\top u\rangle$: what was done last is undone first.

# %%
y, push = jax.linearize(distances, x)                # push: v ↦ J v, a linear program
pull = jax.linear_transpose(push, x)                 # pull: u ↦ Jᵀ u, the same program turned around

D = x - P
by_hand = (2 * D * (u / (2 * r))[:, None]).sum(axis=0)   # (m,) -> (m,) -> (m, 2) -> (2,): the right column, upwards
assert np.allclose(push(v), Jv) and np.allclose(pull(u)[0], JTu) and np.allclose(by_hand, JTu)

print("line by line" + str(explain(push, x)).split("line by line")[1].split("\n\ncost")[0])

# %% [markdown]
# `adjax.explain` prints JAX's own linear program so, below each line its transpose; it takes three steps for the copy,
# and the two weights are the constants. To turn a linear program around takes no derivative, only linearity. A program
# that is not linear cannot be turned, and is refused:

# %%
try:
    jax.linear_transpose(distances, x)(y)
except Exception as error:
    print(type(error).__name__)
else:
    raise AssertionError("the distances were taken for a linear function")

assert np.allclose(jax.linear_transpose(lambda u: pull(u)[0], y)(v)[0], push(v))  # and twice around is home again

# %% [markdown]
# ## 4 · A rule of one's own, and what it costs
#
# Stand *on* a beacon, and autodiff divides zero by zero: $\sqrt{s}$ has no slope at 0, and the whole gradient is lost
# for one reading's sake. A good reason for a rule of one's own: there, let the reading ask for nothing. The forward
# rule keeps $E$, the backward rule is one product.


# %%
def forward(x):
    D = x - P                                        # (2,) -> (m, 2)
    r = distances(x)
    return r, D / jnp.where(r > 0, r, 1)[:, None]    # (m,), and E (m, 2): a row of zeros where r = 0


def backward(E, dr):
    return (E.T @ dr,)                               # (2, m)(m,) -> (2,)


def with_rule(function, forward, backward):
    """The function as a jax.custom_vjp."""
    ruled = jax.custom_vjp(function)
    ruled.defvjp(forward, backward)
    return ruled


ordinary = with_rule(distances, forward, backward)

on_beacon = P[0]
assert jnp.isnan(jax.vjp(distances, on_beacon)[1](u)[0]).all()       # autodiff: nothing left
assert np.allclose(jax.vjp(ordinary, on_beacon)[1](u)[0], forward(on_beacon)[1].T @ u)  # the rule: the other four
assert np.allclose(jax.vjp(ordinary, x)[1](u)[0], JTu)

# %% [markdown]
# The second view is better than before. The first is gone. And so is the third: $\delta x \mapsto E\,\delta x$ is as
# linear as a function can be; yet with a backward rule that *is* its transpose, JAX can no longer transpose it.

# %%
rods = with_rule(lambda v: E @ v, lambda v: (E @ v, None), lambda _, dr: (E.T @ dr,))


def refused(call, width=110):
    """The error that a call raises, cut off where it is longer than this."""
    try:
        call()
    except (TypeError, NotImplementedError) as error:
        return textwrap.shorten(f"{type(error).__name__}: {error}", width)
    raise AssertionError("it went through")


print("jvp              ", refused(lambda: jax.jvp(ordinary, (x,), (v,))))
print("jacfwd           ", refused(lambda: jax.jacfwd(ordinary)(x)))
print("linear_transpose ", refused(lambda: jax.linear_transpose(rods, x)(u)))

# %% [markdown]
# ## 5 · What JAX is told
#
# JAX has a rule for the *derivative* of each of its own operations, and one for the *transpose* of each linear one.
# Nothing else: reverse mode is made of the two. A `custom_vjp` is an operation for which it is told $J^\top$ and
# nothing more. It could not look inside for $J$ either, for the rule is the author's word *against* what is inside. (In
# the picture below blue is told, green follows from it.)
#
# So what does `jax.linearize` give for such a function? A linear program with a hole in it: one that can be turned
# around, which is how reverse mode uses it, and that cannot be run.

# %%
_, hollow = jax.linearize(ordinary, x)
assert np.allclose(jax.linear_transpose(hollow, x)(u)[0], JTu)
print("run the program: ", refused(lambda: hollow(v)))

# %% jupyter={"source_hidden": true}
NODES = {"dx_": (0, 1), "dy_": (1, 1), "dx": (0, 0), "dy": (1, 0)}


def draw_square(ax, title, above, below, turn, turn_label):
    """Tangents above, cotangents below; what is told in blue, what follows in green, what is missing in grey."""
    names = {"dx_": r"$\delta x$", "dy_": r"$\delta y$", "dx": "$dx$", "dy": "$dy$"}
    for name, place in NODES.items():
        ax.text(*place, names[name], ha="center", va="center", fontsize=19, color=INK)
    for y, start, stop, letter, (colour, style, said) in (
        (1, 0.13, 0.87, "$J$", above), (0, 0.87, 0.13, r"$J^\mathsf{T}$", below)
    ):
        line = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.6, "linestyle": style, "mutation_scale": 20}
        ax.annotate("", (stop, y), (start, y), arrowprops=line | {"shrinkA": 0, "shrinkB": 0})
        outer = 1 if y else -1
        ax.text(0.5, y + 0.15 * outer, letter, ha="center", va="center", fontsize=17, color=colour)
        ax.text(0.5, y + 0.34 * outer, said, ha="center", va="center", fontsize=12, color=colour)
    if turn:
        line = {"arrowstyle": "-|>", "color": GREEN, "linewidth": 2.2, "mutation_scale": 18}
        start, stop = (0.88, 0.12) if turn == "down" else (0.12, 0.88)
        ax.annotate("", (0.5, stop), (0.5, start), arrowprops=line)
    at, align = (0.56, "left") if turn else (0.5, "center")
    ax.text(at, 0.5, turn_label, ha=align, va="center", fontsize=12, color=GREEN if turn else PALE)
    ax.set(xlim=(-0.15, 1.15), ylim=(-0.45, 1.45))
    ax.set_title(title, fontsize=14, pad=6)
    ax.axis("off")


TOLD, MISSING = (BLUE, "-", "told"), (PALE, ":", "unknown: jvp fails")
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, subplots = plt.subplots(1, 3, figsize=(11.2, 3.5), dpi=110, layout="constrained")
    draw_square(subplots[0], "an operation of JAX", TOLD, (GREEN, "-", "follows"), "down", "transpose")
    draw_square(subplots[1], "jax.custom_vjp", MISSING, TOLD, None, "no way up")
    draw_square(subplots[2], "any_mode", (GREEN, "-", "follows"), TOLD, "up", "transpose")
    plt.show()

# %% [markdown]
# ## 6 · The rule holds all three
#
# The way up is the way down. Whatever a backward rule does with its *residuals*, in its *cotangent* it is linear:
# $\mathrm{bwd}(r, \cdot) = J^\top$. A linear program can be turned around, and around twice is home:
#
# $$J v = \big(\mathrm{bwd}(r, \cdot)\big)^{\!\top} v.$$
#
# One line of JAX, and it does nothing but what section 3 did:

# %%
_, residuals = forward(x)
(found,) = jax.linear_transpose(lambda dr: backward(residuals, dr)[0], r)(v)
assert np.allclose(found, Jv)                        # nobody wrote δr = E δx; it was in Eᵀ dr all along


def as_matrix(linear, size):
    """The matrix of a linear function of vectors: its j-th column is the image of the j-th unit vector."""
    return np.stack([linear(unit) for unit in jnp.eye(size)], axis=1)


lifted = any_mode(with_rule(distances, forward, backward))

views = {
    "vjp": as_matrix(lambda u: jax.vjp(lifted, x)[1](u)[0], 5).T,
    "jvp": as_matrix(lambda v: jax.jvp(lifted, (x,), (v,))[1], 2),
    "linear_transpose": as_matrix(lambda u: jax.linear_transpose(jax.linearize(lifted, x)[1], x)(u)[0], 5).T,
}
for name, matrix in views.items():
    assert np.allclose(matrix, E), name

lifted_rods = any_mode(rods)
assert np.allclose(jax.linear_transpose(lifted_rods, x)(u)[0], JTu)
assert np.allclose(jax.jvp(lifted_rods, (x,), (v,))[1], E @ v)
assert not jnp.isnan(jax.jacfwd(lifted)(on_beacon)).any()  # the author's word, in forward mode too

# %% [markdown]
# `any_mode` does this behind every call. There is *one* definition, so the two modes cannot disagree, whatever the rule
# says. Rounding has the derivative 0; a straight-through rule says 1, on purpose. Lifted, forward mode says 1 as well,
# which no look at the primal could have told. (For `jax.linear_transpose` of the function itself there is nothing to
# differentiate: it transposes the primal's own lines, as it should.)

# %%
straight = any_mode(with_rule(lambda x: jnp.round(x), lambda x: (jnp.round(x), None), lambda _, dy: (dy,)))
assert jax.grad(jnp.round)(0.3) == 0
assert jax.grad(straight)(0.3) == 1
assert jax.jvp(straight, (0.3,), (1.0,))[1] == 1

# %% [markdown]
# And a rule that is *not* linear in its cotangent is no transpose of anything. Reverse mode cannot notice; there is no
# forward mode to be had, and the error names the operation:

# %%
clipped = any_mode(with_rule(distances, forward, lambda E, dr: (E.T @ jnp.clip(dr, -1, 1),)))
message = refused(lambda: jax.jvp(clipped, (x,), (v,)), width=1000)
print(textwrap.fill(message, 110))
assert "for 'min' not implemented" in message and "not linear in its cotangent" in message
assert np.isfinite(jax.vjp(clipped, x)[1](u)[0]).all()  # backward, nothing shows

# %% [markdown]
# ## 7 · Both at once: where am I?
#
# Given readings $y$, find the place: minimise $\tfrac12\lVert \mathrm{distances}(x) - y\rVert^2$. Near $x$ the readings
# are $r + J\,\delta x$, so the best step solves the normal equations of the linearized problem,
#
# $$J^\top J\,\delta x = J^\top (y - r).$$
#
# That is **Gauss–Newton**. Conjugate gradients want $J^\top J$ only as a function: forth with $J$, back with $J^\top$.
# This needs both modes of one function, so the ordinary rule cannot do it; and we start on a beacon, where autodiff
# cannot.


# %%
@partial(jax.jit, static_argnums=0)
def gauss_newton(function, x, y):
    """The places that Gauss–Newton visits in six steps."""

    def step(x, _):
        r, push = jax.linearize(function, x)         # J
        pull = jax.linear_transpose(push, x)         # Jᵀ
        δx, _ = cg(lambda v: pull(push(v))[0], pull(y - r)[0], tol=1e-14, maxiter=10)
        return x + δx, x

    end, places = jax.lax.scan(step, x, length=6)
    return jnp.stack([*places, end])


hidden = jnp.array([1.5, -0.5])
readings = distances(hidden)
path = gauss_newton(lifted, on_beacon, readings)
errors = np.linalg.norm(path - hidden, axis=1)
print("error at the start and after each step:", "  ".join(f"{error:.0e}" for error in errors[:5]), " ...")

assert errors[-1] < 1e-12
assert not np.allclose(gauss_newton(distances, on_beacon, readings)[-1], hidden)  # autodiff never leaves the beacon
print("with the ordinary rule:", refused(lambda: gauss_newton(ordinary, on_beacon, readings)))

# %% jupyter={"source_hidden": true}
across, up = np.linspace(-4.5, 6.5, 200), np.linspace(-4.2, 6.2, 200)
grid = np.stack(np.meshgrid(across, up), axis=-1)
away = np.linalg.norm(grid[:, :, None] - np.asarray(P), axis=-1)
misfit = ((away - np.asarray(readings)) ** 2).sum(axis=-1) / 2
with plt.rc_context({"mathtext.fontset": "cm"}):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11.2, 4.2), dpi=110, layout="constrained", gridspec_kw={"width_ratios": (5, 4)}
    )
    shades = left.contourf(across, up, misfit, levels=np.arange(0, 121, 10), cmap="Greys", extend="max", alpha=0.6)
    left.plot(*np.asarray(P).T, "^", color=INK, markersize=10, label="beacons")
    left.plot(*np.asarray(path).T, "o-", color=ORANGE, linewidth=2, markersize=7, label="steps")
    left.plot(*hidden, "*", color=BLUE, markersize=17, label="the place", zorder=5)
    left.set(aspect="equal", xticks=[], yticks=[])
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=11, frameon=False)
    figure.colorbar(shades, ax=left, label="misfit")
    shown = np.flatnonzero(errors > 1e-14)
    right.semilogy(shown, errors[shown], "o-", color=ORANGE, linewidth=2)
    right.set(xlabel="step", ylabel="distance from the place", xticks=shown)
    right.grid(alpha=0.3)
    plt.show()

# %% [markdown]
# ## 8 · Exercises
#
# **1.** A simulation takes 3 parameters to 10 000 readings; a network takes $10^6$ parameters to 1 loss. How many calls
# of `jvp`, how many of `vjp`, give the whole $J$ of each?
#
# <details>
# <summary>Solution</summary>
#
# Columns: 3 `jvp` or 10 000 `vjp`. Rows: 1 `vjp` or $10^6$ `jvp`. Count the narrow side.
#
# </details>
#
# **2.** Let the beacons move too: `distances2(x, P)`. Extend the backward rule by $dP$. Find it from the rods, then
# from shapes.
#
# <details>
# <summary>Solution</summary>
#
# A rod pushes at both ends, in opposite directions: $dP_i = -u_i\,e_i$, so `dP = -E * dr[:, None]`, of shape $(m, 2)$
# like $P$. And $dx = -\sum_i dP_i$: moving everything alike changes no distance.
#
# </details>
#
# **3.** The transpose of *copy to m rows* is *sum over m rows*. What is the transpose of a cumulative sum?
#
# <details>
# <summary>Solution</summary>
#
# Its matrix is lower triangular, all ones; turned around it is upper triangular: the cumulative sum from the end,
# $dx_i = \sum_{j \ge i} dy_j$.
#
# </details>
#
# **4.** `jax.hessian` is forward over reverse. Get $H v$ of $\tfrac12\lVert\mathrm{distances}(x) - y\rVert^2$ from the
# lifted rule in all four orders, forward or reverse over forward or reverse. How does $H$ differ from $J^\top J$?
#
# <details>
# <summary>Solution</summary>
#
# By $\sum_i (r_i - y_i)\,\nabla^2 r_i$: the curvature of each distance, weighed by how wrong its reading is. At the
# place itself, where nothing is wrong, $H = J^\top J$; that is why Gauss–Newton is so quick at the end.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all four solutions.

# %% jupyter={"source_hidden": true}
# 1: the narrow side
simulation = lambda p: jnp.sin(jnp.arange(100.0) * p[0] + p[1]) * p[2]
three = [jax.jvp(simulation, (jnp.ones(3),), (e,))[1] for e in jnp.eye(3)]
assert np.allclose(np.stack(three, axis=1), jax.jacrev(simulation)(jnp.ones(3)))      # 3 columns or 100 rows
one = jax.vjp(lambda w: (w**3).sum(), jnp.arange(1000.0))[1](1.0)[0]
assert np.allclose(one, 3 * jnp.arange(1000.0) ** 2)                                  # 1 row

# 2: the other end of the rods


def forward2(x, P):
    r = jnp.sqrt(jnp.sum((x - P) ** 2, axis=1))
    return r, (x - P) / r[:, None]


distances2 = any_mode(
    with_rule(
        lambda x, P: jnp.sqrt(jnp.sum((x - P) ** 2, axis=1)), forward2, lambda E, dr: (E.T @ dr, -E * dr[:, None])
    )
)
dx, dP = jax.vjp(distances2, x, P)[1](u)
plain_dP = jax.vjp(lambda P: jnp.sqrt(jnp.sum((x - P) ** 2, axis=1)), P)[1](u)[0]
assert np.allclose(dP, plain_dP) and np.allclose(dx, -dP.sum(axis=0))
together = jax.jvp(distances2, (x, P), (v, jnp.broadcast_to(v, P.shape)))[1]
assert np.allclose(together, 0)                      # all move alike: in forward mode, which nobody wrote

# 3: a cumulative sum from the end
assert np.allclose(jax.linear_transpose(jnp.cumsum, u)(u)[0], jnp.cumsum(u[::-1])[::-1])


# 4: four orders
def misfit_of(function):
    return lambda x: 0.5 * jnp.sum((function(x) - readings) ** 2)


f = misfit_of(lifted)


@jax.jit
def four_orders(x):
    gradient, slope = jax.grad(f), lambda x: jax.jvp(f, (x,), (v,))[1]
    return {
        "forward over reverse": jax.jvp(gradient, (x,), (v,))[1],
        "reverse over forward": jax.grad(slope)(x),
        "reverse over reverse": jax.grad(lambda x: inner(gradient(x), v))(x),
        "forward over forward": jax.jacfwd(slope)(x),
    }


Hv = jax.hessian(misfit_of(distances))(x) @ v        # autodiff of the plain function
for order, found in four_orders(x).items():
    assert np.allclose(found, Hv), order
J = jax.jacfwd(lifted)(hidden)
assert np.allclose(jax.jit(jax.hessian(f))(hidden), J.T @ J)
print("all four hold")

# %% [markdown]
# ## In one breath
#
# Tangents go forth, cotangents go back, and their product is the same at both ends. Reverse mode is forward mode turned
# around, line by line, last line first. A backward rule is a linear program; turn it around, and there is the forward
# mode that it never lost.
