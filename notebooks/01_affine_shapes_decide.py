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
# and nobody need remember them: the shapes leave no other choice. This notebook finds them, proves them, draws them,
# and makes them work under every transformation of JAX.
#
# **After it you can**
#
# - write down the gradient of any product of matrices from the shapes of its factors, and say what shapes cannot tell;
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
# $n = 3$ examples, $d = 2$ features in, $p = 2$ features out, and the plainest of losses, $L = \sum Y$. All numbers are
# small multiples of ½, which float32 adds and multiplies without rounding: **every equality in this notebook is exact.**

# %%
X = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # (n, d)
W = jnp.array([[2.0, 1.0], [-1.0, 3.0]])             # (d, p)
b = jnp.array([0.5, -2.0])                           # (p,)
params = AffineParams(W, b)

Y = affine(params, X)
dY = jnp.ones_like(Y)                                # L = Σ Y, so every entry of Y moves L by as much as itself moves
grads, dX = jax.grad(lambda params, X: affine(params, X).sum(), argnums=(0, 1))(params, X)

for name, value in {"Y": Y, "dW": grads.W, "dX": dX, "db": grads.b}.items():
    print(f"{name:2} = {value.tolist()}")

assert jnp.array_equal(Y, X @ W + b)
assert jnp.array_equal(dY, jax.grad(jnp.sum)(Y))

# %% [markdown]
# ## 2 · Three gradients from shapes alone
#
# Two facts are enough.
#
# 1. **Shape.** $L$ has one derivative for each entry of $W$, so $dW$ has the axes of $W$: $(d, p)$.
# 2. **Degree.** $W \mapsto XW$ is linear, so its derivative depends on $X$ and not on $W$. Doubling $X$ doubles the
#    effect of $W$, and doubling $dY$ doubles all that follows from it. So $dW$ holds $X$ once, $dY$ once, and no $W$.
#
# By the same reasoning $dX$ is made of $W$ and $dY$. And $b$ is the row of weights of one more feature that is
# always 1, $XW + \mathbf 1 b^\top$, so $db$ is made of the column $\mathbf 1$ and $dY$.
#
# The second fact, checked:

# %%
def pull(params, X, dY):
    """(dW, db, dX), by the backward rule that `affine` spells."""
    (dW, db), dX = jax.vjp(affine, params, X)[1](dY)
    return dW, db, dX


dW, db, dX = pull(params, X, dY)

assert jnp.array_equal(pull(AffineParams(-7 * W, b), X, dY)[0], dW)  # dW does not depend on W ...
assert jnp.array_equal(pull(params, 2 * X, dY)[0], 2 * dW)           # ... and is linear in X
assert jnp.array_equal(pull(params, X, 2 * dY)[0], 2 * dW)           # ... and in dY
assert jnp.array_equal(pull(params, -7 * X, dY)[2], dX)              # dX does not depend on X ...
assert jnp.array_equal(pull(AffineParams(2 * W, b), X, dY)[2], 2 * dX)

# %% [markdown]
# Two matrices, either first, each transposed or not: eight products. A product exists only where the axes in the middle
# are the same axis; the axes outside are its shape. We let the machine write down all eight, three times.

# %%
AXES = {"X": "nd", "W": "dp", "dY": "np", "𝟏": "n1", "b": "1p"}  # b as a row: its first axis is the constant feature


def axes(factor):
    """The two axes of a factor such as `X` or `Xᵀ`."""
    letters = AXES[factor.removesuffix("ᵀ")]
    return letters[::-1] if factor.endswith("ᵀ") else letters


def candidates(*names):
    """Every product of two matrices, each transposed or not, in either order."""
    for first, second in itertools.permutations(names):
        for s, t in itertools.product(("", "ᵀ"), repeat=2):
            yield first + s, second + t


def result_axes(left, right):
    """The axes of the product, or None where the axes in the middle are not the same."""
    (rows, middle), (other, columns) = axes(left), axes(right)
    return rows + columns if middle == other else None


found = {}
for argument, factor in {"W": "X", "X": "W", "b": "𝟏"}.items():
    wanted = AXES[argument]
    print(f"d{argument} must be ({wanted[0]},{wanted[1]}), made of {factor} and dY")
    for left, right in candidates(factor, "dY"):
        got = result_axes(left, right)
        sketch = "".join(f"({axes(f)[0]},{axes(f)[1]})" for f in (left, right))
        verdict = f"→ ({got[0]},{got[1]})" if got else f"  {axes(left)[1]} does not meet {axes(right)[0]}"
        print(f"    {left:3} {right:3}   {sketch}  {verdict}{'   ✓' if got == wanted else ''}")
    fitting = [pair for pair in candidates(factor, "dY") if result_axes(*pair) == wanted]
    assert len(fitting) == 1  # the shapes leave no choice
    found[argument] = fitting[0]
    print()

# %% [markdown]
# One product of eight, each time. The only others that exist are the transposes of the right ones. Evaluated, the three
# are the gradients that JAX finds:

# %%
VALUES = {"X": X, "W": W, "dY": dY, "𝟏": jnp.ones((len(X), 1))}


def evaluate(left, right, values=VALUES):
    """The product of two factors named as above."""
    left, right = (values[f.removesuffix("ᵀ")].T if f.endswith("ᵀ") else values[f] for f in (left, right))
    return left @ right


plain = lambda W, b, X: X @ W + b                                    # no rule of ours: autodiff alone
for (name, pair), expected in zip(found.items(), jax.vjp(plain, W, b, X)[1](dY)[::1], strict=True):
    pass
