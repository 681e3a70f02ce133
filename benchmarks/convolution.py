"""conv(params, x) in float32: one forward and backward pass, y, then dW, db and dx from a random dY.

Plain autodiff differentiates lax.conv_general_dilated plus a bias. PyTorch runs in both of its memory formats where
it has two, and the quicker is judged. The ceiling is the product of matrices that is the forward pass of one group, the
work that of three such passes. The sweep shows that nothing is tuned to the judged shapes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from adjax import ConvParams, conv, conv_transpose
from benchmarks.harness import (
    Contender,
    Options,
    Row,
    Table,
    contest,
    faster_at_least,
    gemm_ceiling,
    jax_contenders,
    normal,
    peer,
    quickest,
    sweep_table,
    temporaries_at_most,
    torch_contender,
)

TORCH = ("PyTorch contiguous", "PyTorch channels_last")


@dataclass(frozen=True)
class Conv:
    """A convolution of x[n *s c] to o channels by a kernel of k taps, padded by SAME; transposed, from o to c."""

    name: str
    n: int
    s: tuple[int, ...]
    c: int
    o: int
    k: tuple[int, ...]
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def label(self) -> str:
        """As a reader writes it."""
        times = lambda sizes: "×".join(map(str, sizes))
        options = {"/": self.stride, ", dilation ": self.dilation, ", groups ": self.groups}
        written = "".join(f"{name}{value}" for name, value in options.items() if value > 1)
        return f"{self.name} {times(self.k)}{written}, {times((self.n, *self.s, self.c))}→{self.o}"

    @property
    def t(self) -> tuple[int, ...]:
        """The spatial sizes of the result; transposed, of the input."""
        return tuple(-(-s // self.stride) for s in self.s)

    @property
    def gemm(self) -> tuple[int, int, int]:
        """The product that the forward pass of a group is."""
        return self.n * math.prod(self.t), math.prod(self.k) * self.c // self.groups, self.o // self.groups

    @property
    def flops(self) -> float:
        """Of the three maps."""
        return 6.0 * math.prod(self.gemm) * self.groups

    def problem(self) -> tuple[ConvParams, jax.Array, jax.Array]:
        """Parameters, input, cotangent."""
        ends = ((self.n, *self.s, self.c), (self.n, *self.t, self.o))
        given, made = ends[::-1] if self.transposed else ends
        W, b, x, dY = normal((*self.k, self.c // self.groups, self.o), made[-1:], given, made)
        return ConvParams(W, b), x, dY

    def ours(self, params: ConvParams, x: jax.Array) -> jax.Array:
        """The layer."""
        layer = conv_transpose if self.transposed else conv
        return layer(params, x, stride=self.stride, dilation=self.dilation, groups=self.groups)

    def plain(self, params: ConvParams, x: jax.Array) -> jax.Array:
        """What autodiff gets to differentiate."""
        W, b = params
        if self.transposed:
            s = jax.ShapeDtypeStruct((self.n, *self.s, self.c), x.dtype)
            return jax.linear_transpose(lambda y: self.convolution(W, y), s)(x)[0] + b
        return self.convolution(W, x) + b

    def convolution(self, W: jax.Array, x: jax.Array) -> jax.Array:
        """XLA's."""
        rank = len(self.s)
        spatial = "DHW"[-rank:]
        return lax.conv_general_dilated(
            x, W, (self.stride,) * rank, "SAME", rhs_dilation=(self.dilation,) * rank,
            feature_group_count=self.groups, dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        )  # fmt: skip

    def torch(self, x: Any, W: Any, b: Any) -> Any:
        """PyTorch's, of x[n c *s] and W[o c/g *k]."""
        from torch.nn import functional

        rank = len(self.s)
        options = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        spans = [(k - 1) * self.dilation + 1 for k in self.k]
        needed = [
            max((t - 1) * self.stride + e - s, 0) for t, e, s in zip(self.t, spans, self.s, strict=True)
        ]
        low = [n // 2 for n in needed]
        if self.transposed:
            y = getattr(functional, f"conv_transpose{rank}d")(x, W, b, **options)
            return y[(..., *(slice(at, at + s) for at, s in zip(low, self.s, strict=True)))]
        if any(n % 2 for n in needed):
            x, low = functional.pad(x, [v for n in needed[::-1] for v in (n // 2, n - n // 2)]), [0] * rank
        return getattr(functional, f"conv{rank}d")(x, W, b, padding=low, **options)


JUDGED = {                                                  # at least so many times as fast as autodiff, as PyTorch
    Conv("conv", 32, (28, 28), 32, 64, (3, 3)): (2.5, 0.9),
    Conv("depthwise", 16, (28, 28), 64, 64, (3, 3), groups=64): (15.0, 0.4),
    Conv("grouped", 8, (28, 28), 64, 64, (3, 3), groups=8): (20.0, 0.9),
}
SWEEP = [
    Conv("ResNet stem", 4, (224, 224), 3, 64, (7, 7), 2),
    Conv("ResNet", 8, (56, 56), 64, 256, (1, 1)),
    Conv("ResNet", 8, (56, 56), 64, 64, (3, 3)),
    Conv("ResNet", 4, (56, 56), 128, 128, (3, 3), 2),
    Conv("ResNet", 4, (56, 56), 256, 512, (1, 1), 2),
    Conv("ResNet", 8, (14, 14), 256, 256, (3, 3)),
    Conv("ResNet", 8, (7, 7), 512, 512, (3, 3)),
    Conv("ResNeXt", 4, (28, 28), 128, 128, (3, 3), groups=32),
    Conv("ResNeXt", 2, (28, 28), 256, 256, (3, 3), groups=16),
    Conv("MobileNet stem", 8, (224, 224), 3, 32, (3, 3), 2),
    Conv("MobileNet", 4, (112, 112), 32, 32, (3, 3), groups=32),
    Conv("MobileNet", 4, (112, 112), 64, 64, (3, 3), 2, groups=64),
    Conv("MobileNet", 4, (14, 14), 512, 512, (3, 3), groups=512),
    Conv("MobileNet", 4, (14, 14), 512, 512, (3, 3), 2, groups=512),
    Conv("MobileNet", 4, (112, 112), 32, 64, (1, 1)),
    Conv("MobileNet", 16, (14, 14), 512, 512, (1, 1)),
    Conv("ConvNeXt", 4, (28, 28), 128, 128, (7, 7), groups=128),
    Conv("VGG", 1, (224, 224), 3, 64, (3, 3)),
    Conv("VGG", 1, (112, 112), 64, 128, (3, 3)),
    Conv("VGG", 1, (28, 28), 256, 512, (3, 3)),
    Conv("audio stem", 8, (16000,), 1, 64, (80,), 4),
    Conv("audio", 8, (2048,), 64, 64, (3,), dilation=4),
    Conv("audio", 8, (1000,), 128, 128, (9,)),
    Conv("audio", 8, (4096,), 64, 64, (15,), groups=64),
    Conv("video stem", 1, (16, 56, 56), 3, 64, (3, 3, 3)),
    Conv("video", 2, (8, 28, 28), 32, 64, (3, 3, 3)),
    Conv("dilated", 8, (28, 28), 64, 64, (3, 3), dilation=2),
    Conv("wide kernel", 8, (28, 28), 32, 64, (5, 5)),
    Conv("transposed", 8, (28, 28), 64, 128, (4, 4), 2, transposed=True),
    Conv("transposed", 8, (56, 56), 32, 64, (3, 3), 2, transposed=True),
]


def rows(options: Options) -> Iterator[Row]:
    """A contest for each judged shape, then all the others in one table."""
    for shape, bars in JUDGED.items():
        shape = _tiny(shape) if options.smoke else shape
        yield Row(shape.label, partial(contest_of, shape, bars))
    looped = next(iter(JUDGED))
    yield Row("conv in a loop", partial(contest_in_a_loop, _tiny(looped) if options.smoke else looped))
    yield Row("convolution, other shapes", partial(sweep, SWEEP))


def _tiny(shape: Conv) -> Conv:
    few = 4 if shape.groups == 1 else shape.groups
    return replace(shape, n=2, s=(8,) * len(shape.s), c=few, o=few)


def contest_of(shape: Conv, least: tuple[float, float], options: Options) -> Table:
    """Ours against autodiff and PyTorch, judged."""
    table = compare(shape, options, [gemm_ceiling(*shape.gemm)])
    bars = [
        faster_at_least(table, "plain autodiff", least[0]),
        faster_at_least(table, quickest(table, TORCH), least[1]),
        temporaries_at_most(table, "plain autodiff"),
    ]
    return table.with_bars(bars)


def contest_in_a_loop(shape: Conv, options: Options) -> Table:
    """The batch in four parts, as a step that accumulates gradients takes it: conv inside a scan."""
    params, x, dY = shape.problem()
    parts = lambda t: t.reshape(4, -1, *t.shape[1:]) if t.shape[0] % 4 == 0 else t[None]
    looped = lambda f: lambda params, xs: lax.scan(lambda _, x: (None, f(params, x)), None, xs)[1]
    functions = {"adjax": looped(shape.ours), "plain autodiff": looped(shape.plain)}
    table = contest(
        f"{shape.label} in four parts, float32, forward + backward",
        jax_contenders(functions, (params, parts(x)), parts(dY)),
        options,
        flops=shape.flops,
        judged=["plain autodiff"],
    )
    return table.with_bars([faster_at_least(table, "plain autodiff", 2.5)])


def compare(shape: Conv, options: Options, ceilings: Any = ()) -> Table:
    """Ours against autodiff and PyTorch."""
    params, x, dY = shape.problem()
    return contest(
        f"{shape.label}, float32, forward + backward",
        [
            *jax_contenders({"adjax": shape.ours, "plain autodiff": shape.plain}, (params, x), dY),
            *[peer(name, partial(torch_conv, name, shape, params, x, dY)) for name in TORCH],
        ],
        options,
        flops=shape.flops,
        judged=["plain autodiff", *TORCH],
        ceilings=ceilings,
    )


def torch_conv(name: str, shape: Conv, params: ConvParams, x: jax.Array, dY: jax.Array) -> Contender:
    """PyTorch, with the channels stored last or second, of transposed copies; its weights are W[o c/g *k]."""
    rank, (W, b) = len(shape.s), params
    second = lambda x: np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))
    weights = np.ascontiguousarray(np.transpose(np.asarray(W), (rank + 1, rank, *range(rank))))
    if name == TORCH[1] and rank == 2:
        stored = lambda x: x.permute(0, 3, 1, 2)
        f = lambda W, b, x: shape.torch(stored(x), stored(W), b).permute(0, 2, 3, 1)
        inputs, cotangent = (np.moveaxis(weights, 1, -1), b, x), dY
        back: Callable[..., Any] = lambda y: [y[0], np.transpose(y[1], (1, 2, 3, 0)), y[2], y[3]]
    else:
        f = lambda W, b, x: shape.torch(x, W, b)
        inputs, cotangent = (weights, b, second(x)), second(dY)
        axes = (*range(2, rank + 2), 1, 0)
        last = lambda y: np.moveaxis(y, 1, -1)
        back = lambda y: [last(y[0]), np.transpose(y[1], axes), y[2], last(y[3])]
    return torch_contender(name, f, inputs, cotangent, back)


def sweep(shapes: list[Conv], options: Options) -> Table:
    """One line a shape: how many times as long autodiff takes, and PyTorch."""
    each = replace(options, seconds=options.seconds / 10)
    chosen = [_tiny(shape) for shape in (shapes[0], shapes[10], shapes[-1])] if options.smoke else shapes
    tables = {shape.label: compare(shape, each) for shape in chosen}
    name = "convolution, other shapes, float32, forward + backward"
    return sweep_table(name, tables, TORCH, "gflops", 2.0, options)
