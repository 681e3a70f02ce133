"""What a program costs: floating point operations counted in its equations, bytes as the compiler plans them.

XLA's own count of operations takes the body of a loop once, however often it runs. Here a `scan` counts its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, PartitionSpec

from ..adjoint import is_inexact
from ..adjoint.cotangent import varying
from ..adjoint.linear_map import LinearMap
from .saved import Differentiated

ARITHMETIC = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp", "cos",
    "cosh", "digamma", "div", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "integer_pow", "lgamma", "log",
    "log1p", "logistic", "max", "min", "mul", "neg", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
    "sqrt", "square", "sub", "tan", "tanh",
})  # fmt: skip
OF_INPUT = frozenset({
    "argmax", "argmin", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "reduce_max", "reduce_min",
    "reduce_prod", "reduce_sum", "sort",
})  # fmt: skip


class Cost(NamedTuple):
    """Of one forward and one backward pass."""

    forward_flops: int              # of the function alone
    backward_flops: int             # from cotangents and residuals
    residual_bytes: int             # kept from the one to the other
    temporary_bytes: int            # of both compiled as one program, beside its arguments and results


def cost_of(f: Differentiated) -> Cost:
    """Traces, and compiles once."""
    y, back = jax.eval_shape(f.vjp, *f.types)
    leaves, tree = jax.tree.flatten(y)
    cotangents = [leaf for leaf in leaves if is_inexact(leaf)]

    def pull(back: Any, cotangents: Sequence[Any]) -> Any:
        given, none = iter(cotangents), lambda y: np.zeros(y.shape, jax.dtypes.float0)
        return back(tree.unflatten(next(given) if is_inexact(y) else none(y) for y in leaves))

    def both(cotangents: Sequence[Any], *arrays: Any) -> Any:
        y, back = f.vjp(*arrays)
        return y, pull(back, cotangents)

    memory = jax.jit(both).lower(cotangents, *f.types).compile().memory_analysis()
    return Cost(
        forward_flops=count(f, *f.types),
        backward_flops=count(pull, back, cotangents),
        residual_bytes=sum(saved.bytes for saved in f.residuals()),
        temporary_bytes=memory.temp_size_in_bytes if memory else 0,     # a backend may not say
    )


def count(f: Callable[..., Any], *args: Any) -> int:
    """The floating point operations of a function: a multiplication one, an addition one, an exponential one.

    Of a `cond` the branch that costs most counts; the body of a `while_loop`, whose length is not known, once.

    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    >>> count(lambda x: x @ x + 1, x), count(lambda x: jax.lax.fori_loop(0, 10, lambda i, y: y @ x, x), x)
    (1088, 10240)
    """
    return _of_program(jax.make_jaxpr(f)(*args).jaxpr)


def _of_program(program: Any) -> int:
    return sum(map(_of_equation, program.eqns))


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    size = lambda variables: sum(math.prod(v.aval.shape) for v in variables)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * size(equation.outvars) * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return 2 * size(equation.outvars) * math.prod(kernel) // max(kernel[params["dimension_numbers"].rhs_spec[0]], 1)
    if name in ARITHMETIC | OF_INPUT:
        floating = is_inexact(equation.invars[-1].aval)             # a loop's counter is none
        return floating * size(equation.outvars if name in ARITHMETIC else equation.invars[:1])
    if name == "cond":
        return max(_of_program(_opened(branch)) for branch in params["branches"])
    if isinstance(params.get("fun"), LinearMap):                    # a lifted rule
        return _of_map(params["fun"], [v.aval for v in equation.invars])
    inner = sum(map(_of_program, _programs(params)))
    return inner * params["length"] if name == "scan" else inner


def _of_map(f: LinearMap, types: Sequence[Any]) -> int:
    """With operands of these types; in a `shard_map` those of one device, and `f` may name the axes of the mesh."""
    shapes = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types]
    mesh = next((t.sharding.mesh for t in types if t.sharding.mesh.manual_axes), None)
    if mesh is None:
        return count(f, *shapes)
    outside = mesh.update_axis_types(dict.fromkeys(mesh.manual_axes, AxisType.Auto))

    def on_a_device(*operands: Array) -> tuple[()]:
        f(*(lax.pcast(x, tuple(varying(t)), to="varying") for x, t in zip(operands, types, strict=True)))
        return ()

    whole, axes = PartitionSpec(), set(mesh.manual_axes)
    with jax.sharding.use_abstract_mesh(outside):
        own = jax.shard_map(on_a_device, mesh=outside, in_specs=whole, out_specs=(), axis_names=axes)
        return count(own, *shapes)


def _programs(params: Any) -> Iterator[Any]:
    """Those that an equation runs."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if hasattr(_opened(item), "eqns"):
                yield _opened(item)


def _opened(closed: Any) -> Any:
    return getattr(closed, "jaxpr", closed)
