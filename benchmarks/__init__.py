"""Side-by-side timing of this package's layers against autodiff and peers: ``python -m benchmarks``.

One module a layer, found by glob, each with ``rows(options) -> Iterable[Row]``;
``benchmarks.harness`` is what they share.
A ratio is always *other time / our time*: above 1, ours is the faster.
"""
