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
# # 9 · Least squares with nothing but a map and its adjoint
#
# Backpropagation through a linear layer applies its adjoint. The same two functions, a map $A$ and its adjoint $A^*$,
# solve least squares problems too, with no matrix in sight: the map may blur an image of a million pixels.
#
# **After it you can**
#
# - get the adjoint of any linear function, and test it with two inner products;
# - state the normal equations as *the residual is orthogonal to everything that $A$ can make*;
# - solve them by conjugate gradients, and say how their condition number limits you, and what ridge does about it;
# - find the projector that $A^*A$ hides;
# - write the adjoint of a composed map, in reverse order.
#
# Every claim stands beside an `assert`; all numbers are float64.

# %%
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.sparse.linalg import cg

from adjax import adjoint, conv, inner

D = 120
t = jnp.arange(D)
truth = jnp.where((t > 30) & (t < 50), 1.0, 0.0) + jnp.exp(-(((t - 85) / 8.0) ** 2))

# %% [markdown]
# ## 1 · The map and its adjoint
#
# A camera that blurs: each reading is a weighted mean of its neighbours, a convolution with a bell. It is linear, so it
# has an adjoint, the one map with
#
# $$\langle A x,\, u\rangle = \langle x,\, A^* u\rangle \quad\text{for all } x, u.$$

# %%
bell = jnp.exp(-0.5 * (jnp.arange(-12, 13) / 2.0) ** 2)
kernel = (bell / bell.sum()).reshape(25, 1, 1)


def A(x):
    """120 values -> 96 readings: those whose neighbours are all there."""
    return conv((kernel, None), x.reshape(1, D, 1), padding="VALID").reshape(-1)


A_ = adjoint(A, truth)

rng = np.random.default_rng(0)
x, u = jnp.asarray(rng.standard_normal(D)), jnp.asarray(rng.standard_normal(96))
assert jnp.allclose(inner(A(x), u), inner(x, A_(u)), rtol=1e-12)

matrix = jax.jacobian(A)(truth)  # for checks alone: nothing below needs it
assert matrix.shape == (96, 120)
assert jnp.allclose(A_(u), matrix.T @ u, atol=1e-14)

# %% [markdown]
# ## 2 · The normal equations
#
# We look for the $x$ that explains noisy readings $b$ best: $\min_x \tfrac12 \|Ax - b\|^2$. A change $\delta x$ moves
# this by $\langle Ax - b, A\,\delta x\rangle = \langle A^*(Ax - b), \delta x\rangle$, so its gradient is $A^*(Ax - b)$,
# the backward pass of a linear layer. At the minimum it vanishes:
#
# $$A^* A\, x = A^* b \qquad\Longleftrightarrow\qquad
#   \text{the residual } Ax - b \text{ is orthogonal to all } A\,\delta x.$$

# %%
b = A(truth) + 0.01 * jnp.asarray(rng.standard_normal(96))
gradient = jax.grad(lambda x: 0.5 * jnp.sum((A(x) - b) ** 2))
assert jnp.allclose(gradient(x), A_(A(x) - b), atol=1e-13)

# %% [markdown]
# ## 3 · Condition number and ridge
#
# $A^*A$ is symmetric and has the squares of the singular values of $A$ as eigenvalues. The blur all but forgets fine
# detail: its smallest singular values are thousands of times smaller than its largest, and noise there is divided by
# them. Ridge adds $\lambda\|x\|^2/2$, hence $\lambda$ to every eigenvalue:
#
# $$(A^*A + \lambda)\, x = A^* b, \qquad \kappa = \frac{\sigma_{\max}^2 + \lambda}{\sigma_{\min}^2 + \lambda}.$$
#
# With fewer readings than values $A^*A$ has a null space, $\sigma_{\min} = 0$, and $\lambda$ is all that stands there.

# %%
sigma = np.linalg.svd(matrix, compute_uv=False)
plt.figure(figsize=(6, 2.6), layout="constrained")
plt.semilogy(sigma, ".", color="#0072b2")
plt.xlabel("number")
plt.ylabel("singular value of the blur")
plt.show()
assert sigma[0] / sigma[-1] > 1e4


def ridge(λ, steps=400):
    """By conjugate gradients: it asks for products with A*A + λ, and for nothing else."""
    return cg(lambda x: A_(A(x)) + λ * x, A_(b), tol=1e-12, maxiter=steps)[0]


def condition(λ):
    eigenvalues = np.linalg.eigvalsh(matrix.T @ matrix) + λ
    return eigenvalues[-1] / eigenvalues[0]


for λ in (1e-1, 1e-3):
    assert np.isclose(condition(λ), (sigma[0] ** 2 + λ) / λ, rtol=1e-6)
    assert jnp.allclose(ridge(λ), jnp.linalg.solve(matrix.T @ matrix + λ * jnp.eye(D), matrix.T @ b), atol=1e-6)

# %% [markdown]
# Too little ridge and the noise wins, too much and the picture stays blurred. The error is smallest in between.

# %%
errors = {λ: float(jnp.linalg.norm(ridge(λ) - truth)) for λ in (1e-7, 1e-3, 1.0)}
fig, all_axes = plt.subplots(1, 3, figsize=(14, 3), layout="constrained", sharey=True)
for axes, λ in zip(all_axes, errors, strict=True):
    axes.plot(t, truth, color="0.6", label="truth")
    axes.plot(t[12:-12], b, ".", color="#e69f00", markersize=3, label="readings")
    axes.plot(t, ridge(λ), color="#0072b2", label="found")
    axes.set_title(f"λ = {λ:g}")
    axes.set_ylim(-1, 2)
all_axes[0].legend()
plt.show()
assert errors[1e-3] < errors[1e-7] and errors[1e-3] < errors[1.0]

# %% [markdown]
# ## 4 · The projector that $A^*A$ hides
#
# At the minimum $Ax$ is the point nearest to $b$ among all that $A$ can make: the orthogonal projection of $b$. Written
# out, $P = A (A^*A)^{-1} A^*$. A projector is its own square and its own adjoint, and these two properties say all of
# it. Take a map that loses little, so that the inverse exists and is harmless: lamps at every fifth place, blurred.

# %%


def B(x):
    """Twenty lamps."""
    return A(jnp.zeros(D).at[12:108:5].set(x))


B_ = adjoint(B, x[:20])


def P(y):
    return B(cg(lambda x: B_(B(x)), B_(y), tol=1e-14, maxiter=200)[0])


v = jnp.asarray(rng.standard_normal(96))
assert jnp.allclose(P(P(u)), P(u), atol=1e-10)
assert jnp.allclose(inner(P(u), v), inner(u, P(v)), atol=1e-10)
assert jnp.max(jnp.abs(B_(u - P(u)))) < 1e-10  # what is left over is orthogonal to the range
assert jnp.allclose(jnp.sum(u**2), jnp.sum(P(u) ** 2) + jnp.sum((u - P(u)) ** 2), rtol=1e-12)  # Pythagoras

# %% [markdown]
# ## 5 · Composed maps, in reverse order
#
# $\langle BAx, u\rangle = \langle Ax, B^*u\rangle = \langle x, A^*B^*u\rangle$, so $(BA)^* = A^*B^*$: the last map
# comes first. That sentence is backpropagation. Here readings are also differences of neighbours.

# %%


def differences(y):
    return y[1:] - y[:-1]


both = lambda x: differences(A(x))
differences_ = adjoint(differences, u)
w = jnp.asarray(rng.standard_normal(95))
assert jnp.allclose(adjoint(both, x)(w), A_(differences_(w)), atol=1e-14)
assert jnp.allclose(jax.vjp(both, x)[1](w)[0], A_(differences_(w)), atol=1e-14)  # autodiff does the same

# %% [markdown]
# ## 6 · Exercises
#
# **1.** Half of the readings are lost: $S$ keeps every other one. What is $S^*$?
#
# <details>
# <summary>Solution</summary>
#
# It puts the readings back where they came from, and zeros between: $\langle Sx, u\rangle$ sums over the kept places.
#
# </details>
#
# **2.** The gradient step $x \leftarrow x - \eta A^*(Ax - b)$ converges for which $\eta$?
#
# <details>
# <summary>Solution</summary>
#
# Each singular direction is multiplied by $1 - \eta\sigma^2$, so for $0 < \eta < 2/\sigma_{\max}^2$.
#
# </details>
#
# **3.** There are more unknowns than readings. Which solution of $Ax = b$ is smallest?
#
# <details>
# <summary>Solution</summary>
#
# $x = A^*z$ with $AA^*z = b$: whatever else could be added is orthogonal to the range of $A^*$ and only adds length.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts all three solutions.

# %% jupyter={"source_hidden": true}
S = lambda y: y[::2]
assert jnp.array_equal(adjoint(S, u)(u[:48]), jnp.zeros(96).at[::2].set(u[:48]))


def descended(η, steps=200):
    return jax.lax.fori_loop(0, steps, lambda _, x: x - η * A_(A(x) - b), jnp.zeros(D))


assert jnp.linalg.norm(descended(1.9 / sigma[0] ** 2)) < 100
assert jnp.linalg.norm(descended(2.2 / sigma[0] ** 2)) > 1e6

exact = A(truth)
z = cg(lambda z: A(A_(z)) + 1e-12 * z, exact, tol=1e-14, maxiter=4000)[0]
smallest = A_(z)
assert jnp.allclose(A(smallest), exact, atol=1e-4)
assert jnp.linalg.norm(smallest) < jnp.linalg.norm(truth)
print("all three hold")

# %% [markdown]
# ## In one breath
#
# A linear map is known by what it does and by what its adjoint does. The gradient of least squares is the adjoint
# at the residual, the normal equations say it vanishes, and a projector is what makes it so.
