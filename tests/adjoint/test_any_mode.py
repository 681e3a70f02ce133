"""any_mode on every kind of jax.custom_vjp: arguments, outputs, closures, static values, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjax

F64 = jnp.float64


def normal(seed, *shape, dtype=F64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def lifted(bwd, fun=lambda x, w: x * w, fwd=None, name="scale", **options):
    """x * w with a backward rule of the test's choosing."""
    fun.__name__ = name
    f = adjax.any_mode(jax.custom_vjp(fun))
    f.defvjp(fwd or (lambda x, w: (fun(x, w), (x, w))), bwd, **options)
    return f


def right(r, g):
    return g * r[1], g * r[0]


def doubled_thrice(v):
    """8 v, through a loop that JAX cannot transpose."""
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, v))[1]


def check_close(a, b, rtol=1e-12):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.shape == y.shape and x.dtype == y.dtype
        assert np.linalg.norm((x - y).ravel()) <= rtol * (np.linalg.norm(y.ravel()) + 1e-300)


X, W, V = normal(0, 3), normal(1, 3), normal(2, 3)


def test_both_modes_agree_with_autodiff():
    f = lifted(right)
    check_close(jax.grad(lambda x: jnp.sin(f(x, W)).sum())(X), W * jnp.cos(X * W))
    check_close(jax.jvp(f, (X, W), (V, X)), (X * W, V * W + X * X))
    check_close(jax.hessian(lambda x: jnp.sin(f(x, W)).sum())(X), jnp.diag(-W * W * jnp.sin(X * W)))


def test_attributes_and_redefinition():
    f = lifted(right)
    fwd = f.fwd
    assert f.bwd is right and isinstance(f.custom_vjp, jax.custom_vjp) and f.nondiff_argnums == ()
    assert f.__name__ == "scale" and "scale" in repr(f)
    check_close(jax.grad(lambda x: f(x, W).sum())(X), W)
    f.defvjp(fwd, lambda r, g: (2 * g * r[1], g * r[0]))
    check_close(jax.grad(lambda x: f(x, W).sum())(X), 2 * W)  # the remembered rule is gone


def test_keyword_call_and_defaults():
    @adjax.any_mode
    @jax.custom_vjp
    def f(x, w=2.0):
        return x * w

    f.defvjp(lambda x, w: (x * w, (x, w)), lambda r, g: (g * r[1], (g * r[0]).sum()))
    check_close(f(w=W, x=X), X * W)
    check_close(jax.grad(lambda x: f(x).sum())(X), jnp.full(3, 2.0))
    with pytest.raises(TypeError, match=r"f: missing a required argument: 'x'"):
        f()


def test_nondiff_argnums_and_argnames():
    @adjax.any_mode
    @partial(jax.custom_vjp, nondiff_argnums=(0,), nondiff_argnames=("times",))
    def f(fn, x, times=2):
        return fn(x) * times

    f.defvjp(lambda fn, x, times: (f.fun(fn, x, times), x), lambda fn, times, x, g: (g * times * jnp.cos(x),))
    for times in (2, 3):
        check_close(jax.grad(lambda x, t=times: f(jnp.sin, x, times=t).sum())(X), times * jnp.cos(X))
        check_close(jax.jvp(lambda x, t=times: f(jnp.sin, x, t), (X,), (V,))[1], times * jnp.cos(X) * V)
    with pytest.raises(TypeError, match=r"f: argument times is declared nondiff, hence static, but got a traced array"):
        jax.jit(lambda t: f(jnp.sin, X, t))(2)


def test_pytrees_none_integers_and_several_outputs():
    @adjax.any_mode
    @jax.custom_vjp
    def f(x, i, tree):
        return {"y": x[i] * 2, "k": i + 1}, tree["a"]

    def bwd(r, g):
        x, i = r
        assert g[0]["k"].dtype == jax.dtypes.float0
        return jnp.zeros_like(x).at[i].add(2 * g[0]["y"]), None, {"a": g[1], "none": None}

    f.defvjp(lambda x, i, tree: (f.fun(x, i, tree), (x, i)), bwd)
    i, tree = jnp.array([0, 2]), {"a": W, "none": None}
    y, dy = jax.jvp(lambda x: f(x, i, tree), (X,), (V,))
    want, dwant = jax.jvp(lambda x: f.fun(x, i, tree), (X,), (V,))
    check_close((y[0]["y"], y[0]["k"], dy[0]["y"], dy[1]), (want[0]["y"], want[0]["k"], dwant[0]["y"], dwant[1]))
    assert dy[0]["k"].dtype == jax.dtypes.float0

    def loss(f, x, tree):
        out = f(x, i, tree)
        return jnp.sin(out[0]["y"]).sum() + (out[1] ** 3).sum()

    check_close(jax.grad(partial(loss, f), (0, 1))(X, tree), jax.grad(partial(loss, f.fun), (0, 1))(X, tree))
    per_row = jax.vmap(jax.grad(lambda x, i: f(x, i, tree)[0]["y"].sum()), (None, 0))(X, i[:, None])
    check_close(per_row, 2 * jnp.eye(3)[i])


def test_one_output_of_two_used():
    f = adjax.any_mode(jax.custom_vjp(lambda x: (x * 2, x * 3)))
    f.defvjp(lambda x: (f.fun(x), None), lambda _, g: (2 * g[0] + 3 * g[1],))
    check_close(jax.grad(lambda x: (f(x)[1] * W).sum())(X), 3 * W)
    check_close(jax.linear_transpose(lambda v: jax.jvp(f, (X,), (v,))[1][0], X)(W)[0], 2 * W)
    check_close(jax.hessian(lambda x: jnp.sin(f(x)[0]).sum())(X), jnp.diag(-4 * jnp.sin(2 * X)))


def test_symbolic_zeros_tell_what_is_differentiated():
    seen = []

    def fwd(x, w):
        seen.append((x.perturbed, w.perturbed))
        return x.value * w.value, (x.value, w.value)

    f = lifted(right, fwd=fwd, symbolic_zeros=True)
    check_close(jax.grad(lambda x: f(x, W).sum())(X), W)
    check_close(jax.jvp(f, (X, W), (V, V))[1], V * W + X * V)
    assert seen == [(True, False), (True, True)]


def test_closed_over_tracers():
    def gradient(s, x):
        f = adjax.any_mode(jax.custom_vjp(lambda x: x * s))
        f.defvjp(lambda x: (x * s, None), lambda _, g: (g * s,))
        return jax.grad(lambda x: f(x).sum())(x)

    check_close(jax.jit(gradient)(jnp.array(2.0), X), jnp.full(3, 2.0))
    check_close(jax.vmap(gradient, (0, None))(W, X), W[:, None] * jnp.ones(3))
    check_close(jax.grad(lambda s: gradient(s, X).sum())(jnp.array(2.0)), jnp.array(3.0))


def test_static_residuals_stay_static():
    f = adjax.any_mode(jax.custom_vjp(lambda x: x.sum()))
    f.defvjp(lambda x: (x.sum(), (x.shape, "broadcast")), lambda r, g: (jnp.broadcast_to(g, r[0]),))
    check_close(jax.jit(jax.grad(f))(X), jnp.ones(3))
    check_close(jax.jvp(f, (X,), (V,))[1], V.sum())


def test_collectives_over_a_named_axis():
    f = adjax.any_mode(jax.custom_vjp(lambda x: x - jax.lax.pmean(x, "i")))
    f.defvjp(lambda x: (f.fun(x), None), lambda _, g: (g - jax.lax.pmean(g, "i"),))
    for n in (3, 4):  # the axis size is part of what is traced
        x, v = normal(3, n), normal(4, n)
        for one in (f, f.fun):
            run = jax.vmap(one, axis_name="i")
            check_close(jax.vjp(run, x)[1](v)[0], v - v.mean())
            check_close(jax.jit(lambda x, v, run=run: jax.jvp(run, (x,), (v,))[1])(x, v), v - v.mean())


def test_effects_in_the_backward_rule(capfd):
    def bwd(r, g):
        jax.debug.print("seen {}", g.sum())
        return right(r, g)

    f = lifted(bwd)
    for transform in (lambda h: h, jax.jit):
        transform(jax.grad(lambda x: f(x, W).sum()))(X).block_until_ready()
    jax.effects_barrier()
    assert capfd.readouterr().out.count("seen 3.0") == 2
    check_close(jax.jvp(f, (X, W), (V, V))[1], V * W + X * V)


def dots(jaxpr):
    """Shapes of all products in the equations, also inside calls."""
    found = []
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "dot_general":
            found.append(eqn.outvars[0].aval.shape)
        for value in eqn.params.values():
            inner = getattr(value, "equations", value)
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                found += dots(inner)
    return found


def test_arguments_not_differentiated_cost_nothing():
    f = adjax.any_mode(jax.custom_vjp(lambda a, b: a @ b))
    f.defvjp(lambda a, b: (a @ b, (a, b)), lambda r, g: (g @ r[1].T, r[0].T @ g))
    a, b = normal(5, 2, 3), normal(6, 3, 4)
    both = jax.make_jaxpr(jax.grad(lambda a, b: f(a, b).sum(), (0, 1)))(a, b)
    one = jax.make_jaxpr(jax.grad(lambda a, b: f(a, b).sum(), 1))(a, b)
    assert sorted(dots(both)) == [(2, 3), (2, 4), (3, 4)]
    assert sorted(dots(one)) == [(2, 4), (3, 4)]
    kept = [r.shape for r in jax.tree.leaves(jax.vjp(lambda b: f(a, b), b)[1])]
    assert kept == [(2, 3)]  # a alone


def test_rules_are_traced_once_per_type():
    count = []

    def bwd(r, g):
        count.append(1)
        return right(r, g)

    f = lifted(bwd)

    def deep(x):
        for _ in range(5):
            x = f(x, W)
        return x.sum()

    jax.jit(jax.grad(deep))(X)
    jax.grad(deep)(X)
    assert len(count) == 1


def test_rule_that_cannot_be_transposed_asks_for_a_tangent():
    f = lifted(lambda r, g: (doubled_thrice(g) * r[1] / 8, g * r[0]))
    check_close(jax.jit(jax.grad(lambda x: f(x, W).sum()))(X), W)
    check_close(jax.jvp(lambda w: f(X, w), (W,), (V,))[1], X * V)  # this argument's part needs no loop
    message = r"forward mode of scale .* cannot transpose .*while_loop.* with scale\.deftangent\(tangent\)"
    for run in (lambda h: h(), lambda h: jax.jit(h)()):
        with pytest.raises(TypeError, match=message):
            run(lambda: jax.jvp(f, (X, W), (V, V)))

    @f.deftangent
    def tangent(r, dots):
        return doubled_thrice(dots[0]) * r[1] / 8 + r[0] * dots[1]

    assert f.tangent is tangent
    check_close(jax.jvp(f, (X, W), (V, V))[1], V * W + X * V)
    check_close(jax.jvp(lambda x: f(x, W), (X,), (V,))[1], V * W)
    check_close(jax.jacfwd(jax.grad(lambda x: (f(x, W) ** 2).sum()))(X), jnp.diag(2 * W * W))
    check_close(jax.jacrev(jax.grad(lambda x: (f(x, W) ** 2).sum()))(X), jnp.diag(2 * W * W))
    check_close(jax.vmap(jax.grad(lambda x: f(x, W).sum()))(X[None])[0], W)


NOT_LINEAR = {
    "an added constant": (lambda r, g: (g * r[1] + 1, g * r[0]), "`add` adds to it"),
    "squared": (lambda r, g: (g * g * r[1], g * r[0]), "`mul` multiplies it by itself"),
    "ignored": (lambda r, g: (r[1], g * r[0]), "output 0 does not vanish with it"),
    "rectified": (lambda r, g: (jnp.where(g > 0, g, 0) * r[1], g * r[0]), "`select_n` chooses by its value"),
    "clipped": (lambda r, g: (jnp.clip(g, -1, 1) * r[1], g * r[0]), "'min' not implemented"),
    "truncated": (lambda r, g: (g.astype(jnp.int32).astype(F64), g * r[0]), "rounds it to an integer"),
    "normalized": (lambda r, g: (g / jnp.sqrt((g * g).sum()), g * r[0]), "`mul` multiplies it by itself"),
    "divided by": (lambda r, g: (r[1] / g, g * r[0]), "`div` divides by it"),
    "accumulated from one": (
        lambda r, g: (jnp.broadcast_to(jax.lax.scan(lambda c, v: (c + v, None), jnp.ones((), F64), g)[0], (3,)), g),
        "`add` adds to it",
    ),
    "one branch constant": (
        lambda r, g: (jax.lax.cond(r[0][0] > 0, lambda v: v, lambda v: jnp.ones_like(v), g), g),
        "`cond` adds to it",
    ),
}


@pytest.mark.parametrize("mistake", NOT_LINEAR)
def test_rules_that_are_not_linear_are_refused_in_forward_mode(mistake):
    bwd, reason = NOT_LINEAR[mistake]
    f = lifted(bwd)
    jax.grad(lambda x: f(x, W).sum())(X)  # reverse mode runs the rule as written
    with pytest.raises(TypeError, match="forward mode of scale is the transpose of its backward rule") as caught:
        jax.jvp(f, (X, W), (V, V))
    assert reason in str(caught.value)


RIGHT = {
    "masked by a residual": lambda r, g: (jnp.where(r[0] > 0, g, 0) * r[1], g * r[0]),
    "scattered into zeros": lambda r, g: (jnp.zeros(3, F64).at[:2].add(g[:2]), g),
    "padded and joined": lambda r, g: (jnp.concatenate([jnp.zeros(1, F64), g[1:]]), jnp.pad(g[:2], (0, 1))),
    "scanned from zero": lambda r, g: (jax.lax.scan(lambda c, v: (c + v, c + v), jnp.zeros((), F64), g)[1], g),
    "nothing": lambda r, g: (None, jnp.zeros_like(r[1])),
    "branching on a residual": lambda r, g: (jax.lax.cond(r[0][0] > 0, lambda v: 2 * v, jnp.zeros_like, g), g),
}


@pytest.mark.parametrize("rule", RIGHT)
def test_linear_rules_of_every_shape_have_a_forward_mode(rule):
    f = lifted(RIGHT[rule])
    J = jnp.stack([jnp.concatenate(jax.vjp(f, X, W)[1](e)) for e in jnp.eye(3, dtype=F64)])  # rows of [J_x J_w]
    check_close(jax.jvp(f, (X, W), (V, X))[1], J @ jnp.concatenate([V, X]))


WRONG_STRUCTURE = {
    "arity": (lambda r, g: (g,), r"a tuple of one cotangent per argument \(x, w\), got 1 of them"),
    "no tuple": (lambda r, g: g, r"a tuple of one cotangent per argument \(x, w\), got float64\[3\]"),
    "reduced": (lambda r, g: (g.sum(), g), r"returned float64\[\] as the cotangent of x, which is float64\[3\]"),
    "stretched": (lambda r, g: (g[None], g), r"returned float64\[1,3\] as the cotangent of x, which is float64\[3\]"),
    "nested": (lambda r, g: ((g, g), g), r"argument x: expected a cotangent of structure PyTreeDef\(\*\)"),
}


@pytest.mark.parametrize("mistake", WRONG_STRUCTURE)
def test_rules_of_the_wrong_structure_are_named(mistake):
    bwd, message = WRONG_STRUCTURE[mistake]
    with pytest.raises(TypeError, match="any_mode: the backward rule of scale.*" + message):
        jax.grad(lambda x: lifted(bwd)(x, W).sum())(X)


def test_one_array_for_a_whole_pytree_is_refused():
    f = adjax.any_mode(jax.custom_vjp(lambda t: t[0] + t[1]))
    f.defvjp(lambda t: (f.fun(t), None), lambda _, g: (g,))
    with pytest.raises(TypeError, match=r"argument t: float64\[3\] stands for a whole pytree"):
        jax.grad(lambda t: f(t).sum())((X, W))


def test_bad_use_is_named():
    with pytest.raises(TypeError, match=r"any_mode: expected a jax.custom_vjp, got function"):
        adjax.any_mode(lambda x: x)
    f = adjax.any_mode(jax.custom_vjp(lambda x: x))
    with pytest.raises(AttributeError, match=r"has no rule yet; give it one with .*\.defvjp\(fwd, bwd\)"):
        f(X)
    with pytest.raises(TypeError, match=r"scale: x must be an array, got str"):
        lifted(right)("a", W)
    with pytest.raises(TypeError, match=r"the forward rule of scale must return \(y, residuals\)"):
        jax.grad(lambda x: lifted(right, fwd=lambda x, w: x * w)(x, W).sum())(X)


def test_leak_checker_and_disabled_jit_are_content():
    f = lifted(right)
    with jax.checking_leaks():
        check_close(jax.jit(jax.grad(lambda x: f(x, W).sum()))(X), W)
    with jax.disable_jit():
        check_close(jax.jvp(f, (X, W), (V, V))[1], V * W + X * V)
