"""What the machine can do: a bare matrix product and a stream through memory, timed beside the contenders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Ceiling:
    """A call that does ``amount`` (FLOPs or bytes) of nothing else than the work in ``unit``."""

    name: str
    unit: str
    amount: float
    call: Callable[[], Any]

    def record(self, seconds: float, reached: float | None) -> dict[str, Any]:
        """Its speed, and which part of it ours reaches."""
        speed = self.amount / seconds / 1e9
        return {"name": self.name, "unit": self.unit, "speed": speed, "share": reached and reached / speed}


def gemm_ceiling(m: int, k: int, n: int, dtype: Any = jnp.float32) -> Ceiling:
    """One product of an m by k and a k by n matrix."""
    left, right = jax.random.split(jax.random.key(0))
    A, B = jax.random.normal(left, (m, k), dtype), jax.random.normal(right, (k, n), dtype)
    product = jax.jit(jnp.matmul).lower(A, B).compile()
    return Ceiling(f"GEMM {m}×{k}×{n}", "GFLOP/s", 2 * m * k * n, lambda: jax.block_until_ready(product(A, B)))


def copy_ceiling(megabytes: float = 64) -> Ceiling:
    """Read and write back an array in place: no fresh page is touched, every core takes part."""
    x = jnp.ones(max(1, int(megabytes * 1e6 / 4)), jnp.float32)
    negate = jax.jit(jnp.negative, donate_argnums=0).lower(x).compile()

    def stream() -> None:
        nonlocal x
        x = jax.block_until_ready(negate(x))

    return Ceiling(f"copy {megabytes:g} MB", "GB/s", 2 * x.nbytes, stream)
