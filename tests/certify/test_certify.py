"""What a certificate says, on rules made to show it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjax
from adjax import AdjointError, AffineParams, affine, assert_adjoint, certify
from adjax.certify import CONTEXTS, LAWS, Verdict
from adjax.certify.certify import certify_each
from adjax.certify.transforms import first_fit

pytestmark = pytest.mark.shared


def ruled(primal, forward, backward, **options):
    """A `jax.custom_vjp` in one line."""
    f = jax.custom_vjp(primal)
    f.defvjp(forward, backward, **options)
    return f


def scaled_sine(factor):
    """sin with a cotangent multiplied by `factor`, a number or an array."""
    return ruled(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, u: (factor * u * jnp.cos(x),))


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)


@pytest.fixture
def at(rng):
    """Arguments of `affine`."""
    W, b, X = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((4, 3), (3,), (6, 4)))
    return AffineParams(W, b), X


def row(certificate, name):
    return next(r for r in certificate.rows if name in (r.law, r.context))


# What a proof holds

def test_affine_is_proven_under_every_law_and_context(at):
    certificate = certify(affine, *at)
    assert certificate.ok and certificate.verdict is Verdict.PROVEN, certificate
    assert [r.law for r in certificate.rows if r.law != "context"] == list(LAWS)
    contexts = [r.context for r in certificate.rows if r.law == "context"]
    assert contexts == ["eager", "jit", "vmap params", "vmap X", *CONTEXTS[3:]]
    undecided = {r.law or r.context for r in certificate.rows if r.verdict is not Verdict.PROVEN}
    assert undecided == {"half precision"}                          # float32 was given
    for power in certificate.powers:
        assert power.oracles == {"vjp": True, "jvp": True, "transpose": True, "differences": True}
        assert power.blind == 0 and power.element < 1e-9 and power.scale < 1e-11
    assert [r.shape for r in certificate.residuals] == [(4, 3), (6, 4)]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_affine_is_proven_in_half_precision(at, dtype):
    certificate = certify(affine, *jax.tree.map(lambda v: v.astype(dtype), at), contexts=[])
    assert certificate.ok, certificate
    assert row(certificate, "half precision").checks > 10


def test_no_reduction_is_stretched_where_columns_are_differentiated_one_by_one(x):
    """4096 × 4 elements by finite differences would take minutes; the certificate says what it left out."""

    @jax.custom_vjp
    def halved(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 0.5 * c[1]), (0, x))[1]

    halved.defvjp(lambda x: (halved.fun(x), None), lambda _, u: (0.125 * u,))
    certificate = certify(halved, x.astype(jnp.bfloat16), laws=["half precision"], contexts=[])
    assert certificate.ok and row(certificate, "half precision").checks
    assert row(certificate, "half precision").note == "long reductions are not looked at: the reference has no vjp"


def test_the_same_key_gives_the_same_certificate(x):
    first, again, other = (certify(scaled_sine(1.5), x, key=k, contexts=[]) for k in (jax.random.key(3), 3, 4))
    assert first.findings == again.findings != other.findings


def test_several_keys_compile_once(x):
    traced = []

    def f(x):
        traced.append(None)
        return jnp.sin(x)

    each = certify_each(f, x, keys=range(3), laws=("points", "second order"), contexts=["vmap", "scan"])
    next(each)
    before = len(traced)
    rest = list(each)
    assert len(traced) - before <= 2 * len(rest)                     # the law of structure looks at types
    assert [c.seed for c in rest] == [1, 2] and all(c.ok for c in rest)


def test_progress_is_told(x):
    seen = []
    certify(jnp.sin, x, laws=["linear"], contexts=["jit"], progress=lambda *what: seen.append(what))
    assert {"linear", "jit"} <= {what for what, _, _ in seen}
    assert all(done <= total for _, done, total in seen)


def test_memory_is_that_of_the_function(rng):
    x = jnp.asarray(rng.standard_normal(200_000), jnp.float32)      # its Jacobian would take 160 GB
    assert certify(scaled_sine(1.0), x, laws=("linear", "adjoint", "points"), contexts=[]).ok


# How small a mistake is seen

@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_stated_power_is_the_real_one(x, dtype):
    x = x.astype(dtype)
    power = certify(scaled_sine(1.0), x, laws=["adjoint"], contexts=[]).powers[0]
    for share, caught in ((3.0, True), (1e-3, False)):
        element = np.ones(x.shape).astype(np.float64)
        element[1, 2] += share * power.element
        for factor in (element, 1.0 + share * power.scale):
            f = scaled_sine(factor)
            f.defvjp(f.fwd, lambda x, u, k=factor: ((jnp.asarray(k, x.dtype) * u * jnp.cos(x)),))
            assert certify(f, x, laws=["adjoint"], contexts=[]).ok is not caught


def test_what_could_not_fail_is_vacuous(x):
    constant = ruled(lambda x: 0.0 * x, lambda x: (0.0 * x, None), lambda _, u: (0.0 * u,))
    masked = functools.partial(lambda m, x: jnp.where(m, x, 0.0), jnp.zeros((3, 5), bool))
    for f in (constant, masked):
        certificate = certify(f, x, contexts=[])
        assert certificate.verdict is Verdict.VACUOUS and not certificate.ok and not certificate.failures
        with pytest.raises(AdjointError, match="VACUOUS"):
            assert_adjoint(f, x, contexts=[])


def test_an_argument_without_influence_is_blind_not_wrong(x):
    certificate = certify(lambda x, y: jnp.sin(x), x, x[0], contexts=[])
    assert certificate.ok
    assert [p.blind for p in certificate.powers] == [0, 5]


# Oracles

def test_a_wrong_reference_is_told_from_a_wrong_rule(x):
    certificate = certify(scaled_sine(1.0), x, reference=lambda x: 2.0 * jnp.sin(x), contexts=[])
    assert certificate.powers[0].oracles == {"vjp": False, "jvp": False, "transpose": False, "differences": True}
    assert "forward" in {f.law for f in certificate.failures}


def test_differences_see_a_stop_gradient_in_the_primal(x):
    certificate = certify(lambda x: x * jax.lax.stop_gradient(jnp.tanh(x)), x, contexts=[])
    assert certificate.powers[0].oracles == {"vjp": True, "jvp": True, "transpose": True, "differences": False}
    assert "stop_gradient" in certificate.failures[0].diagnosis


def test_a_function_that_runs_in_its_own_dtype_alone(x):
    """It closes over float32, which float64 does not mix with here: judged in float32, at other sizes too."""
    scale = jnp.ones((), jnp.float32)
    certificate = certify(lambda x: scale * jnp.sin(x), x, contexts=[])
    assert certificate.ok and row(certificate, "sizes").checks, str(certificate)
    assert any("judged in float32 alone" in warning for warning in certificate.warnings)


def test_a_function_that_only_forward_mode_can_differentiate(x):
    def halved(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 0.5 * c[1] * c[1]), (0, x))[1]

    def backward(x, u):
        return (jax.vjp(lambda x: 0.5 * (0.5 * (0.5 * x * x) ** 2) ** 2, x)[1](u)[0],)

    certificate = certify(ruled(halved, lambda x: (halved(x), x), backward), x, contexts=["jit", "scan"])
    assert certificate.ok, certificate
    assert certificate.powers[0].oracles["jvp"] and "transpose" not in certificate.powers[0].oracles


def test_a_kink_is_no_failure_and_a_wrong_rule_there_is(x):
    at_zero = x.at[1, 2].set(0.0).at[0, 0].set(0.0)
    for slope, ok in ((0.0, True), (0.3, True), (1.0, True), (1.5, False), (-0.1, False)):
        f = ruled(lambda x: jnp.maximum(x, 0.0), lambda x: (jnp.maximum(x, 0.0), x),
                  lambda x, u, s=slope: (u * jnp.where(x == 0.0, s, jnp.where(x > 0.0, 1.0, 0.0).astype(x.dtype)),))
        certificate = certify(f, at_zero, contexts=[], laws=["adjoint"])
        assert certificate.ok is ok, f"slope {slope}\n{certificate}"
        assert ok is ("kink" in row(certificate, "adjoint").note) or slope == 0.5


def test_points_stay_inside_the_domain(x):
    seen = []

    def root(x):
        jax.debug.callback(lambda v: seen.append(float(v.min())), x)
        return jnp.sqrt(x)

    positive = jnp.abs(x) + 0.5
    certificate = certify(root, positive, domain={"x": (0.25, None)}, laws=["points"], contexts=[])
    assert certificate.ok and min(seen) > 0.0


# Contexts

def test_a_context_that_jax_refuses_is_unsupported_and_fails_only_if_asked_for(at):
    textbook = ruled(lambda W, X: X @ W, lambda W, X: (X @ W, (W, X)), lambda r, u: (r[1].T @ u, u @ r[0].T))
    W, X = at[0].W, at[1]
    certificate = certify(textbook, W, X)
    assert certificate.ok, certificate
    assert row(certificate, "shard_map").verdict is Verdict.UNSUPPORTED
    assert "manual axis types do not match" in row(certificate, "shard_map").note
    assert row(certificate, "forward mode").verdict is Verdict.UNSUPPORTED
    asked = certify(textbook, W, X, laws=["adjoint"], contexts=["shard_map"])
    assert [(f.law, f.context) for f in asked.failures] == [("context", "shard_map")]


def test_vmap_names_every_argument(at):
    certificate = certify(affine, *at, laws=["adjoint"], contexts=["vmap"])
    assert [r.context for r in certificate.rows if r.context] == ["vmap params", "vmap X"]


# Waivers

def test_a_waived_departure_is_shown_and_refutes_nothing(x):
    f = scaled_sine(2.0)
    certificate = certify(f, x, waive="adjoint", contexts=[])
    assert certificate.ok and not certificate.failures and certificate.findings
    assert row(certificate, "adjoint").verdict is Verdict.WAIVED and certificate.waived == ("adjoint",)
    assert certificate.to_dict()["waived"] == ["adjoint"]
    assert not certify(f, x, waive="linear", contexts=[]).ok


# As an assertion

def test_assert_adjoint(x):
    assert_adjoint(scaled_sine(1.0), x, laws=["adjoint"], contexts=[])
    with pytest.raises(AdjointError, match="2 times the adjoint") as raised:
        assert_adjoint(scaled_sine(2.0), x, laws=["adjoint"], contexts=[])
    assert isinstance(raised.value, AssertionError) and not raised.value.certificate.ok
    assert raised.value.certificate.failures[0].argument == "x"


def test_the_public_names():
    assert adjax.certify is certify and adjax.assert_adjoint is assert_adjoint
    assert issubclass(adjax.AdjointError, AssertionError) and adjax.Certificate


def test_an_infinite_candidate_fits_nothing():
    """Its tolerance would be infinite too."""
    candidates = [("is infinite", np.array([1, np.inf, 3])), ("is that", np.array([1.0, 2, 3]))]
    assert first_fit(np.array([1.0, 2, 3]), iter(candidates), 1e-9).startswith("is that")


def test_a_real_cotangent_of_a_complex_primal_is_refuted(rng):
    z = jnp.asarray(rng.standard_normal(4) + 1j * rng.standard_normal(4), jnp.complex64)
    f = ruled(lambda z: jnp.abs(z), lambda z: (jnp.abs(z), z), lambda z, u: (u * jnp.real(z) / jnp.abs(z),))
    certificate = certify(f, z, contexts=[])
    assert not certificate.ok, certificate
