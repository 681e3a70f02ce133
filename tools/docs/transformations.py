"""The table of transformations, made by running them: `python -m tools.docs.transformations` prints it.

The rows are those of `tests/layers/test_contrast.py`, and a few that everyone has. Each is tried on the textbook rule,
on the same rule under `any_mode`, and on `adjax.affine`. What is returned must be what plain JAX returns: a row that
runs and is wrong ends the build.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adjax import affine, any_mode
from tests.cases import assert_close, normal
from tests.layers.families.affine import plain_affine
from tests.layers.test_contrast import ROWS, of_W, textbook, textbook_with_plain_forward

NAMES = {
    "reverse_over_forward": "`jacrev` of `jacfwd`",
    "shard_map": "`shard_map(check_vma=True)`, W replicated, X sharded",
    "explicit_mesh": "explicit sharding, X sharded over the batch",
}
HEADINGS = ("", "the textbook `jax.custom_vjp`", "lifted by `any_mode`", "`adjax.affine`")


def grad(f: Any, params: Any, X: Any) -> Any:
    L, W = of_W(f, params, X)
    return jax.grad(L)(W)


def vmap(f: Any, params: Any, X: Any) -> Any:
    return jax.vmap(jax.grad(lambda p, x: jnp.sum(jnp.sin(f(p, x[None])))), (None, 0))(params, X)


def scan(f: Any, params: Any, X: Any) -> Any:
    L, W = of_W(lambda params, X: jax.lax.scan(lambda c, x: (c, f(params, x[None])), 0.0, X)[1], params, X)
    return jax.grad(L)(W)


def checkpoint(f: Any, params: Any, X: Any) -> Any:
    return grad(jax.checkpoint(f), params, X)


def outcomes(row: Callable[..., Any], functions: Iterable[Any], at: Any) -> Iterator[str]:
    """Of each function `works`, or the name of the error; AssertionError where the result is wrong."""
    expected = row(plain_affine, *at)
    for f in functions:
        try:
            result = row(f, *at)
        except Exception as error:
            yield f"`{type(error).__name__}`"
        else:
            assert_close(result, expected, 1e-12)
            yield "works"


def lines() -> list[str]:
    """The table in Markdown."""
    rng = np.random.default_rng(0)
    at = (normal(rng, 5, 3), normal(rng, 3)), normal(rng, 8, 5)
    functions = textbook, any_mode(textbook_with_plain_forward()), affine
    rows = [
        (NAMES.get(row.__name__, f"`{row.__name__}`"), *outcomes(row, functions, at))
        for row in (grad, vmap, scan, checkpoint, *ROWS)
    ]
    return [f"| {' | '.join(cells)} |" for cells in (HEADINGS, ("---",) * len(HEADINGS), *rows)]


if __name__ == "__main__":
    print(*lines(), "", f"Run on jax {jax.__version__} when this page was built.", sep="\n")
