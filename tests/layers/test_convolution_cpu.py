"""The three maps of a convolution as they run on a CPU: XLA's own convolution and its autodiff, to rounding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from adjax.layers import convolution_cpu as cpu
from adjax.layers.convolution_geometry import Geometry

pytestmark = pytest.mark.shared

# (s, k, c, o of a group, geometry)
GEOMETRIES = {
    "1-d": ((9,), (3,), 2, 3, Geometry((1,), ((1, 1),), (1,), 1)),
    "1-d, kernel larger than the input": ((2,), (5,), 2, 1, Geometry((1,), ((4, 3),), (1,), 1)),
    "1-d, stride, even and uneven": ((11,), (4,), 1, 2, Geometry((3,), ((2, 0),), (1,), 1)),
    "1-d, stride leaves gaps": ((13,), (2,), 2, 2, Geometry((4,), ((0, 1),), (1,), 1)),
    "1-d, stride and dilation": ((17,), (3,), 2, 2, Geometry((2,), ((3, 1),), (3,), 1)),
    "1-d, many taps": ((70,), (66,), 1, 2, Geometry((2,), ((1, 0),), (1,), 1)),
    "1-d, more padding than kernel": ((3,), (2,), 2, 2, Geometry((2,), ((5, 4),), (1,), 1)),
    "2-d": ((6, 5), (3, 3), 2, 3, Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)),
    "2-d, dilation": ((7, 6), (3, 2), 2, 2, Geometry((1, 1), ((2, 0), (0, 3)), (2, 3), 1)),
    "2-d, stride": ((7, 8), (3, 3), 2, 3, Geometry((2, 2), ((1, 1), (0, 1)), (1, 1), 1)),
    "2-d, stride, many taps": ((9, 8), (5, 6), 2, 3, Geometry((2, 2), ((1, 2), (0, 3)), (1, 1), 1)),
    "2-d, stride, many channels": ((7, 5), (3, 2), 9, 3, Geometry((2, 2), ((1, 1), (0, 1)), (1, 1), 1)),
    "2-d, a point": ((4, 5), (1, 1), 3, 2, Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), 1)),
    "2-d, a point, stride and padding": ((5, 6), (1, 1), 3, 2, Geometry((2, 3), ((1, 0), (2, 2)), (2, 1), 1)),
    "2-d, a point along one axis": ((5, 6), (1, 3), 3, 2, Geometry((2, 1), ((1, 2), (1, 1)), (1, 2), 1)),
    "2-d, one position": ((3, 4), (3, 4), 2, 3, Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), 1)),
    "2-d, size one": ((1, 6), (3, 3), 2, 3, Geometry((1, 2), ((1, 1), (1, 1)), (1, 1), 1)),
    "3-d": ((4, 3, 5), (3, 2, 3), 2, 3, Geometry((1, 1, 1), ((1, 1), (0, 1), (1, 1)), (1, 1, 1), 1)),
    "3-d, stride, dilation": ((5, 4, 6), (2, 3, 2), 1, 2, Geometry((2, 1, 3), ((1, 2), (1, 1), (0, 0)), (3, 1, 1), 1)),
    "3-d, points": ((3, 4, 5), (3, 1, 1), 2, 2, Geometry((1, 2, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), 1)),
    "depthwise": ((17, 5), (3, 2), 1, 1, Geometry((1, 1), ((1, 1), (1, 0)), (1, 1), 6)),
    "depthwise, many taps": ((7, 8), (4, 5), 1, 1, Geometry((1, 1), ((2, 1), (2, 2)), (1, 1), 3)),
    "depthwise, many taps, stride": ((9, 8), (5, 4), 1, 1, Geometry((2, 3), ((2, 1), (2, 2)), (1, 1), 3)),
    "depthwise, multiplier, stride": ((7, 8), (3, 2), 1, 2, Geometry((2, 3), ((1, 1), (0, 1)), (1, 1), 3)),
    "depthwise, dilation": ((7, 5), (3, 2), 1, 1, Geometry((1, 1), ((0, 1), (2, 1)), (2, 3), 3)),
    "depthwise, stride and dilation": ((9,), (3,), 1, 1, Geometry((2,), ((1, 1),), (2,), 3)),
    "few channels a group": ((6, 5), (3, 3), 2, 3, Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 2)),
    "few channels a group, stride": ((6, 5), (2, 3), 2, 3, Geometry((2, 1), ((0, 1), (1, 1)), (1, 1), 2)),
    "many channels a group": ((5, 4), (3, 2), 9, 10, Geometry((1, 1), ((1, 1), (1, 0)), (1, 1), 2)),
    "many channels a group, stride": ((5, 4), (3, 2), 9, 10, Geometry((2, 1), ((1, 1), (1, 0)), (1, 1), 2)),
    "groups, a point": ((5, 4), (1, 1), 9, 2, Geometry((2, 1), ((0, 0), (0, 0)), (1, 1), 2)),
    "groups, 3-d": ((3, 4, 3), (2, 2, 2), 9, 9, Geometry((1, 2, 1), ((1, 0), (0, 0), (0, 0)), (1, 1, 1), 2)),
}
PARAMETRIZE = pytest.mark.parametrize("name", GEOMETRIES)
SOME = ("2-d, stride", "3-d", "depthwise, dilation", "depthwise, multiplier, stride", "many channels a group")


def reference(x, W, g):
    spatial = "DHW"[-g.rank :]
    return lax.conv_general_dilated(
        x, W, g.stride, g.padding, rhs_dilation=g.dilation, feature_group_count=g.groups,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def problem(name, n=2, dtype=np.float64):
    """x, W, dY and the geometry."""
    s, k, c, o, g = GEOMETRIES[name]
    rng = np.random.default_rng(0)
    shapes = ((n, *s, c * g.groups), (*k, c, o * g.groups), (n, *g.out(s, k), o * g.groups))
    x, W, dY = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    return x, W, dY, g


def maps(x, W, dY, g):
    """y, dx, dW as the CPU computes them."""
    return (
        cpu.forward(x, W, g),
        cpu.adjoint_x(dY, W, g, x.shape[1:-1]),
        cpu.adjoint_W(x, dY, g, W.shape[:-2]),
    )


def expected(x, W, dY, g):
    y, pullback = jax.vjp(lambda x, W: reference(x, W, g), x, W)
    return (y, *pullback(dY))


def assert_close(actual, expected, tolerance):
    for name, a, e in zip(("y", "dx", "dW"), actual, expected, strict=True):
        assert a.shape == e.shape, name
        assert np.max(np.abs(a - e)) <= tolerance * np.max(np.abs(e)), name


@PARAMETRIZE
def test_maps_agree_with_the_convolution_of_xla_and_its_autodiff(name):
    *operands, g = problem(name)
    actual, wanted = jax.jit(lambda *a: (maps(*a, g), expected(*a, g)))(*operands)
    assert_close(actual, wanted, 1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", SOME)
def test_half_precision_is_accumulated_and_returned_in_float32(name, dtype):
    *operands, g = problem(name, dtype=dtype)
    actual = jax.jit(lambda *a: maps(*a, g))(*operands)
    assert {a.dtype for a in actual} == {jnp.dtype(jnp.float32)}
    exact = expected(*(a.astype(jnp.float64) for a in operands), g)
    assert_close([a.astype(jnp.float64) for a in actual], exact, 1e-5)


@pytest.mark.parametrize("name", SOME)
def test_each_map_is_linear_forward_and_backward_under_vmap(name):
    """Each map batched over one operand, then transposed in it: the inner product of both sides is the same."""
    x, W, dY, g = problem(name)
    s, k = x.shape[1:-1], W.shape[:-2]
    for f, a in (
        (lambda x: cpu.forward(x, W, g), x),
        (lambda dY: cpu.adjoint_x(dY, W, g, s), dY),
        (lambda dY: cpu.adjoint_W(x, dY, g, k), dY),
    ):
        batch = jnp.stack([a, 2 * a[::-1]])

        def both(batch, f=f, a=a):
            out = jax.vmap(f)(batch)
            back = jax.vmap(lambda ct: jax.linear_transpose(f, a)(ct)[0])(out)
            return out, jnp.stack([f(batch[0]), f(batch[1])]), jnp.vdot(out, out), jnp.vdot(back, batch)

        out, one_by_one, left, right = jax.jit(both)(batch)
        assert_close((out,) * 3, (one_by_one,) * 3, 1e-12)
        assert abs(left - right) <= 1e-12 * abs(left)


@pytest.mark.parametrize("name", SOME)
def test_maps_differentiate_in_both_modes(name):
    x, W, dY, g = problem(name)
    tangents = (x[::-1], W[::-1], dY[::-1])
    actual, wanted = jax.jit(
        lambda: tuple(jax.jvp(lambda *a, f=f: f(*a, g), (x, W, dY), tangents)[1] for f in (maps, expected))
    )()
    assert_close(actual, wanted, 1e-12)
    squares = lambda f, x, W: sum(jnp.sum(a * a) for a in f(x, W, dY, g))
    actual, wanted = jax.jit(lambda: tuple(jax.grad(partial(squares, f), (0, 1))(x, W) for f in (maps, expected)))()
    assert_close((actual[0], *actual), (wanted[0], *wanted), 1e-12)


@pytest.mark.parametrize("name", SOME)
def test_examples_spread_over_devices(name):
    """Under shard_map with replication checked; dW of each shard is summed outside, as a layer does."""
    x, W, dY, g = problem(name, n=4)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    data, whole = PartitionSpec("data"), PartitionSpec()

    @partial(jax.shard_map, mesh=mesh, in_specs=(data, whole, data), out_specs=(data, data, whole))
    def spread(x, W, dY):
        y, dx, dW = maps(x, W, dY, g)
        return y, dx, lax.psum(dW, "data")

    assert_close(jax.jit(spread)(x, W, dY), expected(x, W, dY, g), 1e-12)


def test_weight_gradients_inside_a_loop_are_xla_s_fast_convolution():
    """In a loop XLA leaves the axes of a convolution as they stand, and has a fast one for one order only."""
    x, W, dY, g = problem("2-d", dtype=np.float32)
    step = lambda total, scale: (total + cpu.adjoint_W(x * scale, dY, g, W.shape[:-2]), None)
    program = jax.jit(lambda scales: lax.scan(step, jnp.zeros_like(W), scales)[0]).lower(jnp.ones(2, jnp.float32))
    convolutions = [line for line in program.compile().as_text().splitlines() if " convolution(" in line]
    assert convolutions
    assert all("b01f_01io->b01f" in line for line in convolutions)
