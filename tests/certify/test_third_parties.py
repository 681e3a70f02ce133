"""Other people's rules: right ones are proven, deliberate departures refuted unless waived."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from adjax import certify
from tests.cases import normal

pytestmark = pytest.mark.shared

F32 = jnp.float32
SHORT = {"contexts": ["eager", "jit", "vmap of grad"]}     # for subjects whose compilation is what takes long


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    """What others deprecate is not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def optional(name: str) -> Any:
    """A package that need not be there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name.split('.')[0]} is not installed")


def tokamax() -> Any:
    """The package, its flags at their defaults: it would take pytest's arguments for its own."""
    package = optional("tokamax")
    optional("absl.flags").FLAGS.mark_as_parsed()
    return package


def assert_proven(f: Any, *args: Any, **options: Any) -> None:
    certificate = certify(f, *args, **options)
    assert certificate.ok, str(certificate)


def assert_departs(f: Any, *args: Any, waive: tuple[str, ...], **options: Any) -> None:
    """Refuted, and no longer so once what it departs in is waived."""
    certificate = certify(f, *args, **options)
    assert {finding.law for finding in certificate.failures} == set(waive), str(certificate)
    certificate = certify(f, *args, waive=waive, **options)
    assert not certificate.failures, str(certificate)


# JAX's own

def splash_attention(**options: Any) -> Any:
    """The causal reference attention of the kernel, which runs anywhere: `O = attend(q, k, v, sinks)`.

    Both of its passes are in float32, and the backward pass makes probabilities of exp(z - lse), which lose digits
    where scores are large: it is proven for small ones. Every query sees a key. (To one that sees none, the forward
    pass gives the mean of all values, and the backward pass the derivative of their sum.)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel

    def attend(q: Array, k: Array, v: Array, sinks: Array | None = None) -> Array:
        visible = jnp.tri(len(q), len(k), dtype=bool)
        return kernel.attention_reference_custom(visible, q, k, v, None, sinks, **options)

    return attend


SMALL = {"domain": (-2.0, 2.0)}


@pytest.mark.parametrize("custom_type", ["flash", "vanilla"])
def test_splash_attention_reference(custom_type: str, rng: np.random.Generator) -> None:
    q, k, v = (normal(rng, n, 4, dtype=F32) for n in (6, 7, 7))
    assert_proven(splash_attention(custom_type=custom_type), q, k, v, **SMALL, **SHORT)


def test_splash_attention_soft_cap_and_sinks(rng: np.random.Generator) -> None:
    q, k, v, sinks = (normal(rng, *shape, dtype=F32) for shape in ((6, 4), (7, 4), (7, 4), ()))
    assert_proven(splash_attention(attn_logits_soft_cap=3.0), q, k, v, sinks, **SMALL, **SHORT)


def test_odeint(rng: np.random.Generator) -> None:
    """The adjoint equation, solved backwards, against the solution in closed form.

    The errors of the solver count as errors of the rule, so it is asked for all digits; and relative to the cotangent
    alone, or the rule would not be linear. Times must increase, which other points would not respect.
    """
    from jax.experimental.ode import odeint

    def damped(y0: Array, t: Array, rate: Array) -> Array:
        return odeint(lambda y, t, rate: -rate * y, y0, t, rate, rtol=1e-14, atol=1e-30)

    def exact(y0: Array, t: Array, rate: Array) -> Array:
        return y0 * jnp.exp(-rate * (t - t[0])[:, None])

    y0, rate, t = normal(rng, 3), jnp.abs(normal(rng, 3)), jnp.linspace(0.0, 1.0, 4)
    laws = ["structure", "forward", "linear", "adjoint", "subsets", "pure"]
    assert_proven(damped, y0, t, rate, reference=exact, laws=laws, contexts=["jit"])


def test_custom_jvp(rng: np.random.Generator) -> None:
    """`jax.nn.relu` and `jax.nn.silu`, which carry rules of their own."""
    x = normal(rng, 4, 5, dtype=F32)
    assert_proven(jax.nn.relu, x)
    assert_proven(jax.nn.silu, x)


def test_plain_function(rng: np.random.Generator) -> None:
    product = functools.partial(jnp.einsum, "nd,dp->np")
    assert_proven(product, normal(rng, 4, 3, dtype=F32), normal(rng, 3, 2, dtype=F32))


# Optax and Flax

def test_optax_scale_gradient(rng: np.random.Generator) -> None:
    optax = optional("optax")
    f = functools.partial(optax.scale_gradient, scale=0.5)
    assert_departs(f, {"W": normal(rng, 4, 3, dtype=F32), "b": normal(rng, 3, dtype=F32)}, waive=("adjoint",))


def test_flax_bound_method(rng: np.random.Generator) -> None:
    nnx = optional("flax.nnx")
    layer = nnx.LayerNorm(5, param_dtype=F32, rngs=nnx.Rngs(0))
    assert_proven(layer.__call__, normal(rng, 4, 5, dtype=F32), **SHORT)


def fp8_arguments(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """What is quantised, its scale, and the largest magnitudes seen so far."""
    return normal(rng, 4, 5, dtype=F32), jnp.ones(1, F32), jnp.ones(4, F32)


def test_flax_fp8_in_qdq(rng: np.random.Generator) -> None:
    """Rounds to float8 going forward, and returns the next scale and maxima in place of cotangents.

    They do not depend on the cotangent, which `linear` sees, and at other points they are larger than the rounding to
    float8 explains, which `points` sees.
    """
    fp8 = optional("flax.linen.fp8_ops")
    f = functools.partial(fp8.in_qdq, jnp.float32, jnp.float8_e4m3fn)
    assert_departs(f, *fp8_arguments(rng), waive=("linear", "points"), contexts=[])


def test_flax_fp8_out_qdq(rng: np.random.Generator) -> None:
    """Rounds the cotangent to float8."""
    fp8 = optional("flax.linen.fp8_ops")
    f = functools.partial(fp8.out_qdq, jnp.float32, jnp.float8_e5m2)
    assert_departs(f, *fp8_arguments(rng), waive=("linear", "adjoint"), contexts=[])


# Equinox

def test_equinox_filter_custom_vjp(rng: np.random.Generator) -> None:
    eqx = optional("equinox")

    @eqx.filter_custom_vjp
    def swish(x: Array) -> Array:
        return x * jax.nn.sigmoid(x)

    @swish.def_fwd
    def forward(perturbed: bool, x: Array) -> tuple[Array, Array]:
        return swish.fn(x), jax.nn.sigmoid(x)

    @swish.def_bwd
    def backward(s: Array, dy: Array, perturbed: bool, x: Array) -> Array:
        return dy * s * (1 + x * (1 - s))

    assert_proven(swish, normal(rng, 4, 5, dtype=F32))


def test_equinox_filter_custom_vjp_wrong(rng: np.random.Generator) -> None:
    eqx = optional("equinox")
    f = eqx.filter_custom_vjp(lambda x: x**3)
    f.def_fwd(lambda perturbed, x: (x**3, x))
    f.def_bwd(lambda x, dy, perturbed, arg: 2 * x**2 * dy)
    certificate = certify(f, normal(rng, 4, 5, dtype=F32), contexts=[])
    assert "adjoint" in {finding.law for finding in certificate.failures}, str(certificate)


def test_equinox_checkpointed_while_loop(rng: np.random.Generator) -> None:
    loops = optional("equinox.internal")

    def iterated(W: Array, x: Array) -> Array:
        """x ← tanh(W x), five times."""
        step = lambda carry: (carry[0] + 1, jnp.tanh(W @ carry[1]))
        return loops.while_loop(lambda carry: carry[0] < 5, step, (0, x), kind="checkpointed", max_steps=5)[1]

    def unrolled(W: Array, x: Array) -> Array:
        for _ in range(5):
            x = jnp.tanh(W @ x)
        return x

    W, x = normal(rng, 3, 3, dtype=F32), normal(rng, 3, dtype=F32)
    assert_proven(iterated, W, x, reference=unrolled, **SHORT)


# Tokamax and Qwix

def test_tokamax_layer_norm(rng: np.random.Generator) -> None:
    x, scale, offset = (normal(rng, *shape, dtype=F32) for shape in ((4, 6), (6,), (6,)))
    assert_proven(functools.partial(tokamax().layer_norm, implementation="xla"), x, scale, offset, **SHORT)


def test_tokamax_gated_linear_unit(rng: np.random.Generator) -> None:
    f = functools.partial(tokamax().gated_linear_unit, activation=jax.nn.swish, implementation="xla")
    assert_proven(f, normal(rng, 4, 5, dtype=F32), normal(rng, 5, 2, 3, dtype=F32), **SHORT)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_tokamax_linear_softmax_cross_entropy_loss(reduction: str, rng: np.random.Generator) -> None:
    """A label must name a column of W, however many there are."""
    options = {"reduction": reduction, "implementation": "xla"}
    loss = functools.partial(tokamax().linear_softmax_cross_entropy_loss, **options)
    x, W, labels = normal(rng, 4, 5, dtype=F32), normal(rng, 5, 7, dtype=F32), jnp.array([2, 0, 6, 2], jnp.int32)
    assert_proven(lambda x, labels, W: loss(x, jnp.minimum(labels, W.shape[1] - 1), W), x, labels, W, **SHORT)


def test_qwix_dot_general(rng: np.random.Generator) -> None:
    """The rule of quantised training, with nothing quantised; the package exports no name for it."""
    qt = optional("qwix._src.core.dot_general_qt")
    options = {"dimension_numbers": (((1,), (0,)), ((), ())), "config": qt.DotGeneralQtConfig()}
    product = functools.partial(qt.dot_general_qt, **options)
    assert_proven(product, normal(rng, 4, 5, dtype=F32), normal(rng, 5, 3, dtype=F32), **SHORT)
