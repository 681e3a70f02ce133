"""The benchmark modules themselves: found by glob, and the cheap rows of affine run."""

import jax.numpy as jnp
import pytest

from benchmarks import affine, compiling
from benchmarks.__main__ import find_rows
from benchmarks.harness import Options, growth_table

SMOKE = Options(smoke=True)


def test_every_module_is_found_with_the_shapes_of_the_issue():
    names = list(find_rows(Options()))
    for shape in ("512×1024×1024", "64×4096×4096", "4096×64×64", "8×32×32"):
        assert f"affine: affine {shape}" in names
    modules = "affine", "attention", "compiling", "embedding", "importing", "layer_norm", "loss", "swiglu"
    assert {name.split(":")[0] for name in names} >= set(modules)
    for row in ("attention: attention causal, 1×2048×8×64", "loss: linear_cross_entropy 1024×512×32000"):
        assert row in names


def test_growth_is_that_from_the_first_size_to_the_last():
    square = lambda x: jnp.outer(x, x) @ x
    sizes = {str(n): ({"adjax": square, "autodiff": square}, (jnp.ones(n),), jnp.ones(n)) for n in (64, 128)}
    (bar,) = growth_table("outer", sizes, 3.0, Options()).bars
    assert bar.status == "miss" and 3.5 < bar.value < 4.5
    assert growth_table("outer", sizes, 3.0, SMOKE).bars[0].status == "not judged"


def test_affine_compiles_to_the_products_of_autodiff():
    table = affine.compare_programs(((6, 5, 4), (3, 7, 2)), SMOKE)
    assert [bar.status for bar in table.bars] == ["pass"] * 4
    assert table.entry("adjax 6×5×4").measures["dot"] == 3


def test_numpy_and_the_floor_do_the_same_products():
    params, X, dY = affine.problem(6, 5, 4)
    Y, dW, _, dX = affine.numpy_formulas(params, X, dY).call()
    floor = affine.three_products(params, X, dY).call()
    for product, full in zip(floor, (Y - params.b, dW, dX), strict=True):
        assert abs(product - full).max() < 1e-4


def test_compiling_reports_every_stage_of_both():
    table = compiling.measure("equal widths", [4, 4, 4], SMOKE)
    assert [entry.name for entry in table.entries] == ["adjax", "plain autodiff"]
    assert all(entry.measures[stage] > 0 for entry in table.entries for stage in compiling.STAGES)
    bar, = table.bars
    assert bar.value == pytest.approx(1 / table.entries[1].measures["total_ratio"])
    assert (bar.status, bar.limit) == ("not judged", 1.5)
