"""A contest of toy contenders: who takes part, what is measured, what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness import (
    Bar,
    Ceiling,
    Contender,
    Options,
    Unavailable,
    compile_timed,
    contest,
    copy_ceiling,
    faster_at_least,
    forward_backward,
    gemm_ceiling,
    jax_contenders,
    normal,
    peer,
    temporaries_at_most,
    time_at_most,
    torch_contender,
)
from benchmarks.harness.contest import relative_difference
from benchmarks.harness.programs import instruction_counts

SMOKE = Options(smoke=True)


def no_such_library():
    import no_such_library_anywhere  # noqa: F401


@pytest.fixture
def problem():
    x, dy = normal((3, 5), (3, 5))
    return x, dy


@pytest.fixture(scope="module")
def table():
    x, dy = normal((3, 5), (3, 5))
    functions = {"ours": jnp.sin, "theirs": lambda x: -jnp.sin(-x)}
    contenders = [*jax_contenders(functions, (x,), dy), peer("absent", no_such_library)]
    ceilings = [gemm_ceiling(4, 5, 6), copy_ceiling(0.01)]
    return contest("toy", contenders, SMOKE, flops=1e6, bytes_moved=2e6, ceilings=ceilings, judged=["theirs", "absent"])


def test_everyone_is_measured_and_the_missing_peer_is_said_to_be_missing(table):
    assert [entry.name for entry in table.entries] == ["ours", "theirs", "absent"]
    ours, theirs, absent = table.entries
    assert ours.measures["ratio"] == 1.0
    assert theirs.measures["ratio"] > 0
    assert ours.measures["gflops"] == pytest.approx(1e6 / (1e-3 * ours.measures["median_ms"]) / 1e9)
    assert ours.measures["gbs"] == pytest.approx(2 * ours.measures["gflops"])
    assert {"build_ms", "temporaries_mb"} <= theirs.measures.keys()
    assert absent.measures == {}
    assert absent.missing == "no_such_library_anywhere: not installed"


def test_ceilings_are_measured_in_the_same_run(table):
    gemm, copy = table.ceilings
    assert (gemm["name"], gemm["unit"]) == ("GEMM 4×5×6", "GFLOP/s")
    assert (copy["name"], copy["unit"]) == ("copy 0.01 MB", "GB/s")
    assert gemm["share"] == pytest.approx(table.entries[0].measures["gflops"] / gemm["speed"])
    assert Ceiling("c", "GB/s", 3e9, lambda: None).record(1.5, None) == {
        "name": "c", "unit": "GB/s", "speed": 2.0, "share": None
    }  # fmt: skip


def test_a_peer_may_say_that_it_cannot():
    def build():
        raise Unavailable("version 1 has no fold")

    assert peer("old", build) == Contender("old", missing="version 1 has no fold")


def test_a_contender_that_computes_something_else_is_refused(problem):
    x, dy = problem
    contenders = jax_contenders({"ours": jnp.sin, "wrong": lambda x: 1.01 * jnp.sin(x)}, (x,), dy)
    with pytest.raises(ValueError, match=r"wrong computes something else than ours: relative difference 0\.01"):
        contest("toy", contenders, SMOKE)


def test_difference_is_relative_to_each_array():
    expected = [np.array([1.0, -100.0]), np.array([1e-3])]
    assert relative_difference(expected, expected) == 0
    assert relative_difference([np.array([2.0, -100.0]), np.array([1e-3])], expected) == pytest.approx(0.01)
    assert relative_difference([expected[0], np.array([2e-3])], expected) == pytest.approx(1.0)
    assert relative_difference([expected[0]], expected) == float("inf")
    assert np.isnan(relative_difference([expected[0], np.array([np.nan])], expected))
    assert relative_difference([np.zeros((0, 3))], [np.zeros((0, 3))]) == 0


def test_forward_backward_gives_the_output_and_every_cotangent():
    table, dY = normal((7, 2), (3, 2))
    ids = jnp.array([1, 4, 1])
    Y, (d_table, d_ids) = jax.jit(forward_backward(lambda table, ids: table[ids]))((table, ids), dY)
    np.testing.assert_array_equal(Y, table[ids])
    np.testing.assert_allclose(d_table, jnp.zeros((7, 2), jnp.float32).at[ids].add(dY), rtol=1e-6)
    assert d_ids is None


def test_bars_read_the_ratio_the_right_way_round():
    table = contest("toy", [Contender(name, lambda: None, view=None) for name in ("ours", "slow")], SMOKE)
    table.entries[1].measures.update(ratio=2.0, ratio_least=1.6, ratio_most=2.5)
    judged = replace(table, untimed="")
    assert time_at_most(judged, "slow", 1.03) == Bar("time: ours / slow", 0.5, "<=", 1.03, interval=(0.4, 0.625))
    assert faster_at_least(judged, "slow", 2.5).status == "miss"
    assert faster_at_least(judged, "slow", 2.0).status == "pass"
    assert faster_at_least(table, "slow", 2.5).status == "not judged"


def test_a_bar_against_a_missing_peer_is_not_judged(table):
    for judge in (time_at_most, faster_at_least, temporaries_at_most):
        bar = judge(table, "absent", 1.0)
        assert bar.status == "not judged"
        assert bar.reason == "no_such_library_anywhere: not installed"
    assert temporaries_at_most(table, "theirs").status == "pass"


def test_a_compiled_program_tells_its_stages_and_instructions():
    A, B = normal((4, 5), (5, 6))
    program = compile_timed(lambda A, B: jnp.sin(A @ B), A, B)
    assert min(program.trace_ms, program.lower_ms, program.compile_ms) > 0
    assert program.total_ms == program.trace_ms + program.lower_ms + program.compile_ms
    assert program.temporaries >= 0
    assert program.instructions()["dot"] == 1
    np.testing.assert_allclose(program.compiled(A, B), jnp.sin(A @ B), rtol=1e-5)


def test_instructions_are_counted_by_operation_not_by_name():
    text = """
    %copy.1 = f32[8]{0} dot(%a, %b), metadata={op_name="x = copy(y)"}
    ROOT %t = (f32[8,2]{1,0:T(8,128)}, /*index=1*/f32[]) tuple(%copy.1, %c)
    c = f32[] copy(d)
    """
    assert instruction_counts(text) == {"dot": 1, "tuple": 1, "copy": 1}


def test_torch_gives_the_same_order_of_results():
    torch = pytest.importorskip("torch")
    W, X, dY = normal((5, 2), (3, 5), (3, 2))
    contender = torch_contender("torch", lambda W, X: X @ W, (W, X), dY)
    Y, dW, dX = contender.view(contender.call())
    assert torch.get_num_threads() >= 1
    np.testing.assert_allclose(Y, X @ W, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dW, X.T @ dY, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dX, dY @ W.T, rtol=1e-4, atol=1e-5)
