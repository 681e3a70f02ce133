"""einsum itself: hundreds of random specs against jnp.einsum, every dtype, every edge of its domain."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax import einsum
from adjax.layers.subscripts import backward_specs, parse, steps
from tests.cases import as_dtype, assert_close, assert_same_types, normal, normal_like

QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}


def everything(f, operands, dY, tangents):
    """Value, cotangents and tangent."""
    Y, back = jax.vjp(f, *operands)
    return Y, back(dY), jax.jvp(f, operands, tangents)[1]


def problem(rng, spec, *shapes, dtype=jnp.float64):
    """Operands, a cotangent and tangents."""
    operands = tuple(normal(rng, *shape, dtype=dtype) for shape in shapes)
    dY = normal_like(rng, jax.eval_shape(partial(jnp.einsum, spec), *operands))
    return operands, dY, normal_like(rng, operands)


# Any spec

def random_spec(rng):
    """A spec of up to four operands with repeated and lone letters, ellipses, stretched axes and spaces; shapes."""
    letters = rng.permutation(list("ijkAB"))
    sizes = {axis: int(rng.choice([0, 1, 2, 3], p=[0.04, 0.16, 0.5, 0.3])) for axis in letters}
    dots = tuple(int(n) for n in rng.integers(1, 4, 2))
    stretch = lambda size: 1 if rng.random() < 0.15 else size
    terms, shapes = [], []
    for _ in range(rng.integers(1, 5)):
        term = "".join(rng.choice(letters[:4], rng.integers(0, 4)))
        own = {axis: stretch(sizes[axis]) for axis in term}
        shape = [own[axis] for axis in term]
        if rng.random() < 0.3:
            at = int(rng.integers(0, len(term) + 1))
            rank = int(rng.integers(0, 3))
            term = f"{term[:at]}...{term[at:]}"
            shape[at:at] = [stretch(n) for n in dots[2 - rank :]]
        terms.append(term)
        shapes.append(tuple(shape))
    spec = ",".join(terms)
    if rng.random() < 0.7:
        named = sorted(set(spec) & set(letters))
        output = list(rng.permutation(named)[: rng.integers(0, len(named) + 1)])
        if "..." in spec and rng.random() < 0.7:
            output.insert(int(rng.integers(0, len(output) + 1)), "...")
        spec += "->" + "".join(output)
    if rng.random() < 0.3:
        spec = " ".join(spec.replace("...", "E").replace("->", "D")).replace("E", "...").replace("D", "->")
    return spec, shapes


@pytest.mark.parametrize("dtype", [jnp.float64] * 7 + [jnp.complex128], ids=lambda t: t.__name__)
def test_random_specs(dtype, rng):
    """Forty specs a program, so that little is compiled."""
    specs = [random_spec(rng) for _ in range(40)]
    problems = [problem(rng, spec, *shapes) for spec, shapes in specs]
    if dtype == jnp.complex128:
        turned = jax.tree.map(lambda x: jax.lax.complex(x, normal_like(rng, x)), problems)
        problems = as_dtype(turned, dtype)

    def all_of(einsum):
        f = lambda problems: [everything(partial(einsum, s), *p) for (s, _), p in zip(specs, problems, strict=True)]
        return jax.jit(f, compiler_options=QUICK)(problems)

    for (spec, shapes), got, want in zip(specs, all_of(einsum), all_of(jnp.einsum), strict=True):
        try:
            assert_same_types(got, want)
            assert_close(got, want, 1e-12)
        except AssertionError as error:
            raise AssertionError(f"{spec!r} of {shapes}: {error}") from None


def test_the_generator_draws_every_feature():
    """At the seed of nothing special, among as many specs as the test above takes."""
    rng = np.random.default_rng(0)
    drawn = [random_spec(rng) for _ in range(320)]
    terms = [parse(spec) for spec, _ in drawn]
    count = {
        "diagonal": sum(any(t.count(c) > 1 and c in out for t in ts for c in set(t) - {"."}) for ts, out in terms),
        "trace": sum(any(t.count(c) > 1 and c not in out for t in ts for c in set(t) - {"."}) for ts, out in terms),
        "ellipsis": sum("..." in out for _, out in terms),
        "summed ellipsis": sum("..." not in out and "..." in "".join(ts) for ts, out in terms),
        "stretched": sum(any("1" in spec for spec in backward_specs(*one)) for one in drawn),
        "four operands": sum(len(shapes) == 4 for _, shapes in drawn),
        "implicit": sum("->" not in spec for spec, _ in drawn),
        "empty": sum(0 in shape for _, shapes in drawn for shape in shapes),
    }
    assert min(count.values()) >= 20, count
