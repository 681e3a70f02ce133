"""`explain` and `saved_residuals` against what `jax.vjp` keeps and the compiler plans; FLOPs counted by hand."""

import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adjax
from adjax import AffineParams, ConvParams, NormParams, explain, saved_residuals
from adjax.__main__ import main
from adjax.explain.cost import count
from tests.conftest import DEVICES

F32 = jnp.float32


def of(*shape, dtype=F32):
    return jax.ShapeDtypeStruct(shape, dtype)


SUBJECTS = {
    "affine": (adjax.affine, AffineParams(of(3, 5), of(5)), of(8, 3)),
    "conv": (adjax.conv, ConvParams(of(3, 3, 2, 4), None), of(2, 6, 5, 2)),
    "attention": (adjax.attention, of(1, 6, 2, 4), of(1, 7, 2, 4), of(1, 7, 2, 3)),
    "layer_norm": (adjax.layer_norm, NormParams(of(4), of(4)), of(3, 4)),
    "relu": (adjax.relu, of(4, 5)),
    "cross_entropy": (adjax.cross_entropy, of(6, 5), of(6, dtype=jnp.int32)),
    "plain": (lambda x, n: {"y": jnp.sin(x["a"]) @ x["b"], "n": n}, {"a": of(2, 3), "b": of(3, 4)}, of(dtype=np.int32)),
    "both the argument and the result": (lambda x: jnp.exp(x) * x, of(7)),
}


def arrays(args, rng):
    draw = lambda t: rng.standard_normal(t.shape) if t.dtype == F32 else np.zeros(t.shape)
    return jax.tree.map(lambda t: jnp.asarray(draw(t), t.dtype), args)


def in_floats(f, args):
    """`f` as a function of its floating leaves."""
    leaves, tree = jax.tree.flatten(args)
    floating = [i for i, x in enumerate(leaves) if x.dtype == F32]

    def form(*some):
        full = dict(enumerate(leaves)) | dict(zip(floating, some, strict=True))
        return f(*tree.unflatten(full.values()))

    return form, [leaves[i] for i in floating]


@pytest.mark.parametrize("name", SUBJECTS)
def test_residuals_are_the_arrays_that_the_backward_function_holds(name, rng):
    f, *args = SUBJECTS[name]
    def backward(args):
        form, leaves = in_floats(f, args)
        return jax.vjp(form, *leaves)[1]

    held = {id(x): x for x in jax.tree.leaves(backward(arrays(tuple(args), rng)))}
    saved = saved_residuals(f, *args)
    assert sorted((s.shape, s.dtype.name, s.bytes) for s in saved) == sorted(
        (x.shape, x.dtype.name, x.nbytes) for x in held.values()
    )
    assert explain(f, *args).cost.residual_bytes == sum(x.nbytes for x in held.values())


@pytest.mark.parametrize("name", ["affine", "attention", "plain"])
def test_temporaries_are_those_of_the_compiled_program(name, rng):
    f, *args = SUBJECTS[name]
    given = arrays(tuple(args), rng)
    u = [y for y in jax.tree.leaves(jax.eval_shape(f, *given)) if y.dtype == F32]

    def both(u, *args):
        form, leaves = in_floats(lambda *args: [y for y in jax.tree.leaves(f(*args)) if y.dtype == F32], args)
        y, back = jax.vjp(form, *leaves)
        return y, back(u)

    memory = jax.jit(both).lower(u, *given).compile().memory_analysis()
    assert explain(f, *args).cost.temporary_bytes == memory.temp_size_in_bytes


def test_a_number_is_an_array_without_axes():
    assert [s.shape for s in saved_residuals(lambda x, n: x**n, 3.0, 2)] == [()]


def test_names_of_what_is_kept():
    named = lambda name: [s.origin for s in saved_residuals(*SUBJECTS[name])]
    assert named("affine") == ["args[0].W", "args[1]"]
    assert named("relu") == ["gt"]
    assert set(named("both the argument and the result")) == {"args[0]", "exp"}
    assert [s.origin for s in saved_residuals(jnp.exp, of(3))] == ["output"]


def test_flops_of_affine():
    """Forward n d p products and as many sums, and n p for b; backward twice that, and n p for db."""
    cost = explain(*SUBJECTS["affine"]).cost
    n, d, p = 8, 3, 5
    assert cost.forward_flops == 2 * n * d * p + n * p
    assert n * p <= cost.backward_flops - 4 * n * d * p <= 2 * n * p


@pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("axes", [{"a", "b"}, {"b"}], ids=["all axes", "one axis"])
def test_flops_of_a_rule_in_a_shard_map_are_those_of_a_device(kind, axes):
    """In a loop, whose carry varies over the mesh."""
    mesh, over_b = jax.make_mesh((2, 4), ("a", "b"), axis_types=(kind,) * 2), P("b")
    step = lambda y, _: (adjax.affine((jnp.ones((6, 6), F32), None), y), None)
    f = lambda x: jax.lax.scan(step, x, None, length=3)[0]
    f = jax.shard_map(f, mesh=mesh, in_specs=over_b, out_specs=over_b, axis_names=axes)
    x = jax.ShapeDtypeStruct((8, 6), F32, sharding=NamedSharding(mesh, over_b))
    assert count(f, x) == 3 * 2 * (8 // 4) * 6 * 6


def test_flops_of_loops_branches_and_convolutions():
    x = of(4, 4)
    times = lambda n: count(lambda x: jax.lax.scan(lambda y, _: (jnp.sin(y @ x), None), x, None, length=n)[0], x)
    assert [times(n) for n in (1, 7)] == [(2 * 64 + 16) * n for n in (1, 7)]
    assert count(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, jnp.sin, x), x) == 2 * 64
    groups = lambda g: count(
        lambda k, x: jax.lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=g
        ), of(3, 2, 4 // g, 6), of(5, 8, 7, 4),
    )  # fmt: skip
    assert [groups(g) for g in (1, 2)] == [2 * (5 * 6 * 6 * 6) * (3 * 2 * 4 // g) for g in (1, 2)]
    assert count(jax.jit(lambda x: jnp.max(x, 0)), x) == 16


def test_beside_plain_autodiff():
    said = explain(*SUBJECTS["relu"])
    assert said.cost.residual_bytes == 20 and said.plain_cost.residual_bytes == 4 * 20
    assert [leaf.cotangent for leaf in explain(*SUBJECTS["cross_entropy"]).arguments] == [True, False]


def test_line_by_line():
    """Each equation, its transposes where it is linear, and where it is not."""
    lines = explain(*SUBJECTS["affine"]).lines
    assert [(line.result, line.expression, line.type) for line in lines] == [
        ("d", "dot_general(c, a)", "float32[8,5]"),
        ("e", "broadcast_in_dim(b)", "float32[1,5]"),
        ("f", "add(d, e)", "float32[8,5]"),
    ]
    assert lines[0].transposes == ("dc += dot_general(dd, a)", "da += transpose(dot_general(dd, c))")
    assert lines[1].transposes == ("db += reduce_sum(de)",)
    (divided, turned) = explain(lambda x, y: jnp.sin(x / y), of(3), of(3)).lines
    assert (divided.transposes, divided.not_linear_in) == (("da += div(dc, b)",), ("b",))
    assert (turned.transposes, turned.not_linear_in) == ((), ("c",))
    said = str(explain(lambda x: jnp.sin(x) * 2.0, of(3)))
    words = ["not", "linear", "in", "a", "c", "=", "mul(b,", "2.0)", "float32[3]", "db", "+=", "mul(dc,", "2.0)"]
    assert " ".join(words) in " ".join(said.split()), said


def test_text_and_html():
    said = explain(*SUBJECTS["affine"])
    lines = str(said).splitlines()
    assert max(map(len, lines)) <= 80
    for line in ("affine: arguments and results", "kept for the backward pass: 156 bytes"):
        assert line in lines, str(said)
    assert "  args[0].W  float32[3,5]     60" in lines, str(said)
    root = ElementTree.fromstring(said._repr_html_())
    cells = [cell.text for cell in root.iter("td")]
    assert "args[0].W" in cells and "156" in cells
    many = explain(lambda x: sum(jnp.sin(jnp.cos(k * x)) for k in range(1, 12)), of(3))
    assert "and " in str(many) and " more " in str(many)


@pytest.mark.parametrize("f", [explain, saved_residuals])
def test_nothing_to_differentiate(f):
    with pytest.raises(TypeError, match=f"{f.__name__}: no argument has a floating or complex leaf"):
        f(lambda n: n + 1, np.arange(3))


def test_command_line(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["explain", "adjax:affine", "(f32[3,5],f32[5])", "f32[8,3]", "--html", str(page)]) == 0
    assert "kept for the backward pass: 156 bytes" in capsys.readouterr().out
    assert "<title>explanation of affine</title>" in page.read_text(encoding="utf-8")
    assert main(["explain", "adjax:attention", *["f32[1,4,2,3]"] * 3, "causal=True"]) == 0
    assert "attention: arguments and results" in capsys.readouterr().out
    for arguments, message in [
        (["adjax:affin", "f32[3]"], "did you mean 'affine'?"),
        (["adjax:affine", "(f32[3,5],f32[5])", "f32[8,4]"], "X has d=4 features"),
        (["adjax:affine", "f32[8"], "f32[8"),
    ]:
        assert main(["explain", *arguments]) == 2
        assert message in capsys.readouterr().err
