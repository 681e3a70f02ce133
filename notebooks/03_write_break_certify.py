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
# # 3 · Write your own rule, break it six ways, read the certificate
#
# A `jax.custom_vjp` is believed without question: whatever its backward rule returns *is* the gradient. This notebook
# writes one, proves it, and then makes six mistakes that people make. Each trains, after a fashion; each is caught,
# and most are named.
#
# **After it you can**
#
# - derive a backward rule with two inner products, and write it down with its shapes;
# - read a certificate: laws, contexts, findings, and how small a mistake it would have seen;
# - say which mistakes a test with random cotangents lets through, and why;
# - tell a rule that is wrong from one that departs on purpose.
#
# $dA$ is the *cotangent* of $A$. Every claim stands beside an `assert`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.test_util import check_grads

from adjax import any_mode, certify

keys = jax.random.split(jax.random.key(0), 3)
W = jax.random.normal(keys[0], (5, 5))  # (d, p): square on purpose, so that shapes do not tell
X = jax.random.normal(keys[1], (7, 5))  # (n, d)

# %% [markdown]
# ## 1 · The rule
#
# $$Y = \sin(X)\, W$$
#
# A change $\delta W$ moves $Y$ by $\sin(X)\,\delta W$, a change $\delta X$ by $(\cos(X) \odot \delta X)\, W$. With $dY$
# the cotangent of $Y$
#
# $$\langle \sin(X)\,\delta W,\ dY\rangle = \langle \delta W,\ \sin(X)^\top dY\rangle \quad\text{so}\quad
#   dW = \sin(X)^\top dY$$
# $$\langle (\cos(X) \odot \delta X)\, W,\ dY\rangle = \langle \delta X,\ \cos(X) \odot (dY\, W^\top)\rangle
#   \quad\text{so}\quad dX = \cos(X) \odot (dY\, W^\top)$$

# %%


def primal(W, X):
    return jnp.sin(X) @ W


def forward(W, X):
    return primal(W, X), (W, X)


def backward(residuals, dY):
    W, X = residuals
    dW = jnp.sin(X).T @ dY           # (d, n)(n, p) -> (d, p)
    dX = jnp.cos(X) * (dY @ W.T)     # (n, p)(p, d) -> (n, d)
    return dW, dX


def rule(backward, forward=forward, lifted=True):
    """The primal with this backward rule."""
    f = jax.custom_vjp(primal)
    f.defvjp(forward, backward)
    return any_mode(f) if lifted else f


right = rule(backward)

# %% [markdown]
# ## 2 · The certificate
#
# `certify` holds the rule against four oracles that know nothing of it: the JVP of the primal in inner products, its
# VJP element by element, the transpose of its linearization, and finite differences in float64. It does so under every
# law that a backward rule must keep, and inside jit, vmap, scan, checkpoint and their mixtures.

# %%
certificate = certify(right, W, X)
print("\n".join(str(certificate).splitlines()[:-1]))  # the last line tells the time it took
assert certificate.ok and not certificate.failures

# %% [markdown]
# The last lines say how small a mistake *in one single element* it would have seen, and how small one of the overall
# scale. A test that cannot say this has not said much.

# %%
fig, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
names = [power.argument for power in certificate.powers]
axes.barh(names, [power.element for power in certificate.powers], color="#0072b2", label="one element")
axes.barh(names, [power.scale for power in certificate.powers], color="#d55e00", height=0.4, label="the scale")
axes.set(xscale="log", xlim=(1e-16, 1))
axes.set_xlabel("smallest relative error that would have been seen")
axes.legend()
plt.show()
assert all(power.element < 1e-6 for power in certificate.powers)

# %% [markdown]
# ## 3 · Six mistakes


# %%
def transposed(residuals, dY):
    dW, dX = backward(residuals, dY)
    return dW.T, dX  # of the same shape, for W is square


def averaged(residuals, dY):
    dW, dX = backward(residuals, dY)
    return dW / len(dY), dX  # the loss takes the mean, not the rule


def slopeless(residuals, dY):
    W, X = residuals
    return jnp.sin(X).T @ dY, dY @ W.T  # the chain ends too early


def clipped(residuals, dY):
    return backward(residuals, jnp.clip(dY, -10, 10))  # "for stability"


def rounded(residuals, dY):
    W, X = residuals
    return backward((W, X.astype(jnp.bfloat16).astype(X.dtype)), dY)  # half the memory


def stopped(residuals, dY):
    return jax.tree.map(jax.lax.stop_gradient, backward(residuals, dY))  # right once, wrong twice


mistakes = [transposed, averaged, slopeless, clipped, rounded, stopped]
found = {}
for mistake in mistakes:
    certificate = certify(rule(mistake, lifted=False), W, X, contexts=[])
    assert not certificate.ok
    finding = certificate.failures[0]
    found[mistake.__name__] = {failure.law for failure in certificate.failures}, certificate
    print(f"{mistake.__name__:11} {finding.law}: {finding.diagnosis or 'no name for it'}")

# %% [markdown]
# The mistakes break different laws. A wrong factor breaks the adjoint identity. A clipped cotangent makes the rule
# *nonlinear*, which no test with cotangents of size one can see. A stopped gradient is right to first order.

# %%
assert "adjoint" in found["transposed"][0]
assert "adjoint" in found["averaged"][0]
assert "adjoint" in found["slopeless"][0]
assert "linear" in found["clipped"][0]
assert "adjoint" in found["rounded"][0]
assert "second order" in found["stopped"][0] and "adjoint" not in found["stopped"][0]


def said(name):
    return " ".join(failure.diagnosis for failure in found[name][1].failures)


assert "transposed" in said("transposed")
assert "7" in said("averaged")  # it names the factor 1/n

# %% [markdown]
# ## 4 · What an ordinary test lets through
#
# `jax.test_util.check_grads` draws one random cotangent of size one. The clipped rule passes it.

# %%
check_grads(rule(clipped, lifted=False), (W, X), order=1, modes=["rev"])

for mistake in (averaged, slopeless):
    try:
        check_grads(rule(mistake, lifted=False), (W, X), order=1, modes=["rev"])
    except AssertionError:
        print(f"check_grads sees {mistake.__name__}")
    else:
        raise RuntimeError(f"check_grads should have seen {mistake.__name__}")

# %% [markdown]
# The picture of the first mistake: right shape, right norm, wrong place.

# %%
dY = jax.random.normal(keys[2], (7, 5))
good, bad = (np.asarray(jax.vjp(rule(b), W, X)[1](dY)[0]) for b in (backward, transposed))
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for one, (title, image) in zip(axes, {"dW": good, "the rule's": bad, "difference": bad - good}.items(), strict=True):
    one.imshow(image, cmap="PuOr", vmin=-abs(good).max(), vmax=abs(good).max())
    one.set_title(title)
    one.set_xticks([])
    one.set_yticks([])
plt.show()
assert good.shape == bad.shape and np.isclose(np.linalg.norm(good), np.linalg.norm(bad)) and not np.allclose(good, bad)

# %% [markdown]
# ## 5 · On purpose
#
# Clipping cotangents may be what you want: a departure, not a mistake. Say so, and the certificate shows the two laws
# that it breaks as waived, the second for large cotangents alone, and proves the rest.

# %%
assert not certify(rule(clipped, lifted=False), W, X, contexts=[]).ok
departure = certify(rule(clipped, lifted=False), W, X, contexts=[], waive=["linear", "adjoint"])
assert departure.ok, departure

# %% [markdown]
# ## 6 · Exercises
#
# **1.** Write the rule of $Y = X / \|X\|$ for a vector $X$, and certify it.
#
# <details>
# <summary>Solution</summary>
#
# $\delta Y = (\delta X - Y \langle Y, \delta X\rangle)/\|X\|$ is symmetric in $\delta X$, so
# $dX = (dY - Y \langle Y, dY\rangle)/\|X\|$.
#
# </details>
#
# **2.** Return `None` for `dW`, as if it were not differentiated. What does the certificate say?
#
# <details>
# <summary>Solution</summary>
#
# `None` means a zero cotangent, and $W$ has one that is not zero: refuted.
#
# </details>
#
# The cell below (folded in JupyterLab) asserts both solutions.

# %% jupyter={"source_hidden": true}


@any_mode
@jax.custom_vjp
def unit(x):
    return x / jnp.linalg.norm(x)


def unit_fwd(x):
    r = jnp.linalg.norm(x)
    return x / r, (x / r, r)


def unit_bwd(residuals, dy):
    y, r = residuals
    return ((dy - y * jnp.vdot(y, dy)) / r,)


unit.defvjp(unit_fwd, unit_bwd)
assert certify(unit, X[0], contexts=[]).ok
assert not certify(rule(lambda residuals, dY: (None, backward(residuals, dY)[1]), lifted=False), W, X, contexts=[]).ok
print("both hold")

# %% [markdown]
# ## In one breath
#
# A backward rule is a claim about inner products. Derive it from them, write the shapes beside it, and let something
# that knows nothing of it hold the claim against every law, not against one random number.
