"""Argument specs: what each writes, what is drawn for it, and the text of every error."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.certify.errors import BadInput
from adjax.certify.specs import DTYPES, GRAMMAR, ArraySpec, BadSpec, Option, keyword, make, parse

F = ArraySpec("f32", (2,))


def array(spec, seed=0):
    return np.asarray(make(spec, np.random.default_rng(seed)))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("f32[2]", F),
        ("f32[]", ArraySpec("f32", ())),
        ("bf16[8,16]", ArraySpec("bf16", (8, 16))),
        ("f32[0]", ArraySpec("f32", (0,))),
        (" f32 [ 2 , 3 ] > 0 < 1.5 ", ArraySpec("f32", (2, 3), 0.0, 1.5)),
        ("f32[2]<1e-3>-1", ArraySpec("f32", (2,), -1.0, 1e-3)),
        ("i32[8]<16", ArraySpec("i32", (8,), -math.inf, 16.0)),
        ("float32[2]", F),
        ("none", None),
        ("()", ()),
        ("(f32[2])", (F,)),
        ("(f32[2],)", (F,)),
        ("(f32[2],(f32[2],none))", (F, (F, None))),
        ("[f32[2], i32[2]]", [F, ArraySpec("i32", (2,))]),
        ("{W:f32[2],b:none}", {"W": F, "b": None}),
        ("{}", {}),
        ("=True", Option(True)),
        ("=3", Option(3)),
        ("=-0.5", Option(-0.5)),
        ("=None", Option(None)),
        ("=(2, 2)", Option((2, 2))),
        ("=SAME", Option("SAME")),
        ("='3'", Option("3")),
        ("=nd,np->dp", Option("nd,np->dp")),
        ("(f32[2],=SAME)", (F, Option("SAME"))),
        ("(=(2,2),=[1,2],={1:2},='a,)',=x)", tuple(map(Option, ((2, 2), [1, 2], {1: 2}, "a,)", "x")))),
        ("{W:f32[2],mode:=a b}", {"W": F, "mode": Option("a b")}),
    ],
)
def test_what_a_spec_writes(spec, expected):
    assert parse(spec) == expected


@pytest.mark.parametrize(("short", "long"), [(s, d) for s, d in DTYPES.items() if s not in ("bool", "key")])
def test_every_dtype_by_both_names(short, long):
    for name in (short, long):
        made = make(f"{name}[3,2]", np.random.default_rng(0))
        assert isinstance(made, jax.Array)
        assert (made.dtype, made.shape) == (jnp.dtype(long), (3, 2))


def test_floats_are_signed_and_normal():
    X = array("f64[4000]")
    assert abs(X.mean()) < 0.1 and abs(X.std() - 1) < 0.1
    Z = array("c128[4000]")
    assert abs(Z.real.std() - 1) < 0.1 and abs(Z.imag.std() - 1) < 0.1 and abs((Z.real * Z.imag).mean()) < 0.1


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, -2), (0, None), (None, 0), (5, None), (None, -5), (-1, 1)])
def test_floats_stay_away_from_their_bounds(dtype, low, high):
    written = f"{dtype}[500]" + ("" if low is None else f">{low}") + ("" if high is None else f"<{high}")
    X = array(written).astype(np.float64)
    edges = [edge for edge in (low, high) if edge is not None]
    assert all(np.abs(X - edge).min() > 0.03 for edge in edges)
    assert low is None or X.min() > low
    assert high is None or X.max() < high
    assert X.std() > 0.1


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("i32[400]<4", {0, 1, 2, 3}),
        ("u8[400]<2.5", {0, 1, 2}),
        ("i8[400]>-3<2", {-2, -1, 0, 1}),
        ("i64[400]>5", {6, 7}),
        ("i32[400]", {0, 1}),
        ("u64[400]<1", {0}),
        ("u8[4000]<256", set(range(256))),
    ],
)
def test_integers_take_every_value_allowed(spec, values):
    assert set(array(spec).tolist()) == values


def test_half_of_a_mask_is_true():
    mask = array("bool[10,3]")
    assert mask.dtype == bool and mask.sum() == 15
    assert array("bool[]").shape == ()
    assert array("bool[3]").sum() == 2


def test_keys():
    one, many = make("key[]", np.random.default_rng(0)), make("key[3]", np.random.default_rng(0))
    assert jnp.issubdtype(one.dtype, jax.dtypes.prng_key) and one.shape == () and many.shape == (3,)
    other = make("key[]", np.random.default_rng(1))
    assert (jax.random.key_data(one) != jax.random.key_data(other)).any()


def test_containers_are_made_of_different_values_that_the_seed_decides():
    spec = "({a:f32[4],b:f32[4]},[f32[4]],none,=SAME)"
    made, again, other = (make(spec, np.random.default_rng(seed)) for seed in (0, 0, 1))
    leaves = [np.asarray(x) for x in jax.tree.leaves(made)[:3]]
    assert made[2:] == (None, "SAME")
    assert len({leaf.tobytes() for leaf in leaves}) == 3
    assert all((x == y).all() for x, y in zip(leaves, jax.tree.leaves(again)[:3], strict=True))
    assert (leaves[0] != np.asarray(other[0]["a"])).all()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("stride=2", ("stride", 2)),
        (" padding = SAME", ("padding", "SAME")),
        ("window=(2, 2)", ("window", (2, 2))),
        ("spec=nd,np->dp", ("spec", "nd,np->dp")),
        ("where=None", ("where", None)),
        ("=2", None),
        ("f32[2]", None),
        ("{a:=2}", None),
    ],
)
def test_options_by_keyword(spec, expected):
    assert keyword(spec) == expected


ARGUMENT = (
    "expected an argument like f32[8,16], (f32[2],f32[3]), {W:f32[2]}, =True or none, with f16, bf16, f32, f64, c64, "
    "c128, i8, i16, i32, i64, u8, u16, u32, u64, bool, key, got "
)


@pytest.mark.parametrize(
    ("spec", "column", "reason"),
    [
        ("", 1, f"{ARGUMENT}the end"),
        ("g32[2]", 1, f"{ARGUMENT}'g32'"),
        ("(f32[2],?)", 9, f"{ARGUMENT}'?'"),
        ("8", 1, f"{ARGUMENT}'8'"),
        ("f32", 4, "expected '[', got the end"),
        ("f32(2)", 4, "expected '[', got '('"),
        ("f32[2", 6, "expected ']', got the end"),
        ("f32[2 3]", 7, "expected ']', got '3'"),
        ("f32[2,]", 7, "expected an axis size, got ']'"),
        ("f32[n]", 5, "expected an axis size, got 'n'"),
        ("f32[-1]", 5, "expected an axis size, got '-1'"),
        ("f32[2.5]", 5, "expected an axis size, got '2.5'"),
        ("f32[2]x", 7, "expected the end, got 'x'"),
        ("f32[2] f32[2]", 8, "expected the end, got 'f32'"),
        ("f32[2]>", 8, "expected a number after '>' (bounds are strict), got the end"),
        ("f32[2]>=0", 8, "expected a number after '>' (bounds are strict), got '='"),
        ("f32[2]<nan", 8, "expected a number after '<' (bounds are strict), got 'nan'"),
        ("f32[2]>0>1", 9, "expected one bound on each side, got '>'"),
        ("f32[2]>1<0", 1, "no number lies above 1 and below 0"),
        ("c64[2]<1", 1, "c64 takes no bounds"),
        ("bool[2]>0", 1, "bool takes no bounds"),
        ("key[]>0", 1, "key takes no bounds"),
        ("i32[2]<0", 1, "no integer lies from 0 to -1: write both bounds, as in i32[8]>-9<9"),
        ("i32[2]>2<3", 1, "no integer lies from 3 to 2"),
        ("u8[2]<300", 1, "u8 holds 0 to 255, not 0 to 299"),
        ("u8[2]>-2<3", 1, "u8 holds 0 to 255, not -1 to 2"),
        ("(f32[2]", 8, "expected ',' or ')', got the end"),
        ("(f32[2]]", 8, "expected ',' or ')', got ']'"),
        ("[f32[2] f32[2]]", 9, "expected ',' or ']', got 'f32'"),
        ("{W f32[2]}", 4, "expected ':', got 'f32'"),
        ("{f32[2]}", 5, "expected ':', got '['"),
        ("{3:f32[2]}", 2, "expected a name, got '3'"),
        ("{W:f32[2],W:f32[2]}", 11, "expected a name that is new, got 'W'"),
        ("=", 2, "expected a value after '=', got the end"),
        ("(=,f32[2])", 3, "expected a value after '=', got ','"),
    ],
)
def test_errors_say_where_and_what(spec, column, reason):
    with pytest.raises(BadSpec) as error:
        make(spec, np.random.default_rng(0))
    assert str(error.value) == f"{spec!r}, column {column}: {reason}"
    assert (error.value.spec, error.value.column) == (spec, column)
    assert isinstance(error.value, BadInput) and isinstance(error.value, ValueError)


@pytest.mark.parametrize("dtype", ["f64", "c128", "i64", "u64"])
def test_a_dtype_that_jax_would_narrow_is_refused(dtype):
    with jax.enable_x64(False), pytest.raises(BadSpec) as error:
        parse(f"(f32[2],{dtype}[2])")
    assert str(error.value) == f"'(f32[2],{dtype}[2])', column 9: {dtype} needs 64-bit mode: add --x64"


def test_the_grammar_shown_to_users_is_true():
    for line in GRAMMAR.splitlines():
        written, _, meaning = line.partition("   ")
        assert written and meaning
        for spec in written.split("  "):
            assert keyword(spec) or (make(spec, np.random.default_rng(0)) is None) == (spec == "none")
