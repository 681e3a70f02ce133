"""How people check a gradient today, each checker with its own defaults.

A checker takes a planted rule and a dtype. It returns where the rule passes, raises AssertionError where it does not,
`NotPorted` where it cannot be asked, and anything else where it breaks down.
None of them takes integers, options or containers: they see the rule from its floating leaves to its floating results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.test_util import check_grads

from adjax.adjoint.undecorated import undecorated
from tests.certify.rules import Rule

REVERSE = ("rev",)                                          # a custom_vjp has no forward mode
PYLOPS_RTOL = 1e-6                                          # in float64

Values = Sequence[Array]
Form = Callable[..., tuple[Array, ...]]


class NotPorted(Exception):
    """A checker cannot be asked about a rule; the message says why."""


def floating(f: Callable[..., Any], args: Any) -> tuple[Form, Values]:
    """`f` from its floating leaves to its floating results, and these leaves. All others stay as they are.

    The rule meets JAX arrays alone, though some checkers hand over NumPy's: the copy is for the cotangents' sake.
    """
    leaves, tree = jax.tree.flatten(args)
    places = [i for i, x in enumerate(leaves) if _is_floating(x)]

    def form(*values: Any) -> tuple[Array, ...]:
        new = dict(zip(places, map(jnp.asarray, values), strict=True))
        results = f(*tree.unflatten([new.get(i, x) for i, x in enumerate(leaves)]))
        return tuple(jnp.copy(y) for y in jax.tree.leaves(results) if _is_floating(y))

    return form, [leaves[i] for i in places]


def _is_floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, np.inexact)


def gradients(rule: Rule, dtype: str, order: int) -> None:
    """`jax.test_util.check_grads` in reverse mode: central differences along one random direction."""
    check_grads(*floating(rule.function(), rule.at(dtype)), order, modes=REVERSE)


def chex_gradients(rule: Rule, dtype: str) -> None:
    """`chex.assert_numerical_grads` in reverse mode: `check_grads` with a tolerance that grows with the argument."""
    import chex

    chex.assert_numerical_grads(*floating(rule.function(), rule.at(dtype)), order=1, modes=REVERSE)


def dot(rule: Rule, dtype: str) -> None:
    """One draw of ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ as in PyLops, J v by forward mode of the primal without its rule.

    Where the rule comes with a reference, J is the reference's. The relative tolerance is PyLops's in float64 and the
    square root of the rounding unit in narrower dtypes.
    """
    form, values = floating(rule.function(), rule.at(dtype))
    reference = rule.options.get("reference")
    plain = floating(reference, rule.at(dtype))[0] if reference else undecorated(form)
    rng = np.random.default_rng(0)
    v = [_normal(x, rng) for x in values]
    _, Jv = jax.jvp(plain, tuple(values), tuple(v))
    u = [_normal(y, rng) for y in Jv]
    _, pull = jax.vjp(form, *values)
    forward, backward = _inner(Jv, u), _inner(v, pull(tuple(u)))
    rtol = PYLOPS_RTOL if dtype == "float64" else float(np.sqrt(float(jnp.finfo(dtype).eps)))
    assert np.isclose(forward, backward, rtol=rtol, atol=0), f"<J v, u> = {forward:.9g}, <v, bwd(u)> = {backward:.9g}"


def _normal(x: Array, rng: np.random.Generator) -> Array:
    real, imaginary = rng.standard_normal((2, *x.shape))
    return jnp.asarray(real + 1j * imaginary if jnp.iscomplexobj(x) else real, x.dtype)


def _inner(xs: Values, ys: Values) -> float:
    """Re Σ x y without conjugation, for that is how JAX transposes; summed in double precision."""
    wide = [[np.asarray(z).astype(np.complex128).ravel() for z in zs] for zs in (xs, ys)]
    return float(sum((x @ y).real for x, y in zip(*wide, strict=True)))


def torch_gradcheck(rule: Rule, dtype: str) -> None:
    """`torch.autograd.gradcheck`, always in float64: the whole Jacobian, by central differences and one-hot cotangents.

    Torch sees a `torch.autograd.Function` whose forward is the JAX function and whose backward is its `jax.vjp`.
    """
    import torch
    from torch.autograd.gradcheck import GradcheckError, gradcheck

    if "float64" not in rule.dtypes:
        raise NotPorted("float64 only")
    if rule.devices > 1:
        raise NotPorted("one device only")
    form, values = floating(rule.function(), rule.at("float64"))
    torch.set_num_threads(1)                                # the functions are small, and JAX's threads want the cores
    results = jax.eval_shape(floating(rule.function(), rule.at("float64"))[0], *values)
    if any(jnp.iscomplexobj(z) for z in (*values, *results)):
        raise NotPorted("real numbers only")
    inputs = [torch.tensor(np.asarray(x), requires_grad=True) for x in values]
    try:
        gradcheck(_torch_function(form), inputs)
    except GradcheckError as error:
        raise AssertionError(str(error)) from error


def _torch_function(form: Form) -> Callable[..., Any]:
    import torch

    def to_jax(tensors: Any) -> tuple[Array, ...]:
        """Copies: gradcheck overwrites its tensors."""
        return tuple(jnp.array(t.detach().numpy(), copy=True) for t in tensors)

    def to_torch(values: Values) -> tuple[Any, ...]:
        return tuple(torch.tensor(np.asarray(x)) for x in values)

    class Port(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            values = to_jax(tensors)
            ctx.pull = functools.cache(lambda: jax.vjp(form, *values)[1])
            return to_torch(form(*values))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *cotangents: Any) -> Any:
            return to_torch(ctx.pull()(to_jax(cotangents)))

    return Port.apply
