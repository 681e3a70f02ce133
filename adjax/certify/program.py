"""What `python -m adjax certify` does."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

import jax
import numpy as np

from .certificate import Certificate
from .certify import certify
from .errors import BadInput
from .importing import load, raised
from .options import Options
from .report_html import page
from .report_text import spelled, text
from .specs import FLOATING, ArraySpec, draw, keyword, parse
from .subject import argument_names

NOT_PROVEN = 1
DEVICE_FLAG = "--xla_force_host_platform_device_count"
BAR = 20
Prover = Callable[..., Certificate]


def main(options: Options, prover: Prover | None = None) -> int:
    """Print a certificate and return the exit status; `prover` stands in for `adjax.certify`.

    Raises:
        BadInput: no verdict was reached; the text says why.
    """
    configure(options)
    function = load(options.function)
    reference = None if options.reference is None else load(options.reference)
    keywords = dict(filter(None, map(keyword, options.specs)))
    trees = [within(parse(spec), *options.domain) for spec in options.specs if keyword(spec) is None]
    settings = {
        "reference": functools.partial(reference, **keywords) if reference and keywords else reference,
        "laws": tuple(options.laws) or None,
        "contexts": tuple(options.contexts) or None,
        "waive": tuple(options.waive),
        "key": options.seed,
        "domain": domain(argument_names(function, len(trees)), trees),
    }
    bound = functools.partial(function, **keywords) if keywords else function
    with Progress(sys.stderr) as progress:
        certificate = prove(prover or certify, bound, trees, options.seed, {**settings, "progress": progress})
    report(certificate, options)
    return 0 if certificate.ok else NOT_PROVEN


def configure(options: Options) -> None:
    """Set JAX up, before anything has made it look for devices."""
    if options.x64:
        jax.config.update("jax_enable_x64", True)
    if options.devices is None:
        return
    flags = os.environ.get("XLA_FLAGS", "").split()
    if any(flag.startswith(DEVICE_FLAG) for flag in flags):
        os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if not flag.startswith(DEVICE_FLAG))
    try:
        jax.config.update("jax_num_cpu_devices", options.devices)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:
        if len(jax.devices()) != options.devices:
            raise BadInput(f"--devices {options.devices}: JAX already runs on {len(jax.devices())}") from None


def within(tree: Any, low: float, high: float) -> Any:
    """The specs, with these bounds for the floating ones that have none of their own."""

    def bounded(spec: Any) -> Any:
        free = isinstance(spec, ArraySpec) and spec.dtype in FLOATING and math.isinf(spec.low) and math.isinf(spec.high)
        return ArraySpec(spec.dtype, spec.shape, low, high) if free else spec

    return jax.tree.map(bounded, tree)


def domain(names: list[str], trees: list[Any]) -> dict[str, tuple[float | None, float | None]] | None:
    """The bounds of the floating leaves that have some, by the leaf's name."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, tree in zip(names, trees, strict=True):
        for path, spec in jax.tree_util.tree_leaves_with_path(tree):
            if isinstance(spec, ArraySpec) and spec.dtype in FLOATING:
                low, high = (x if math.isfinite(x) else None for x in (spec.low, spec.high))
                if (low, high) != (None, None):
                    found[name + jax.tree_util.keystr(path)] = low, high
    return found or None


def prove(prover: Prover, function: Any, trees: list[Any], seed: int, settings: dict[str, Any]) -> Certificate:
    """The certificate; whatever the function raises is told in one line."""
    try:
        args = draw(trees, np.random.default_rng(seed))
    except MemoryError as error:
        raise BadInput(f"no memory for the arguments: {error}") from error
    try:
        return prover(function, *args, **settings)
    except BadInput as error:
        raise BadInput(str(error).removeprefix("certify: ")) from error
    except Exception as error:
        raise BadInput(f"no verdict: {raised(error)}; does the function run at these arguments?") from error


def report(certificate: Certificate, options: Options) -> None:
    """Write the files that were asked for, then print."""
    stream = sys.stdout
    try:
        if options.json:
            said = json.dumps(certificate.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
            options.json.write_text(said + "\n", encoding="utf-8")
        if options.html:
            options.html.write_text(page(certificate), encoding="utf-8")
        colour = _animated(stream) and not os.environ.get("NO_COLOR")
        print(spelled(text(certificate, colour), getattr(stream, "encoding", None) or "utf-8"), file=stream, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadInput(f"the certificate ({certificate.verdict}) could not be written: {error}") from error


class Progress:
    """One line on a terminal that says what is being checked, redrawn in place and cleared at the end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.shown = _animated(stream)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw the line: `done` of `total` steps are behind, and `what` is next."""
        full = BAR * done // max(total, 1)
        self._draw(f"{done:>{len(str(total))}}/{total} [{'#' * full}{'.' * (BAR - full)}] {what}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw("")

    def _draw(self, line: str) -> None:
        if self.shown:
            columns = shutil.get_terminal_size().columns
            line = spelled(line[: columns - 1], self.stream.encoding)
            self.stream.write(f"\r\x1b[K{line}")
            self.stream.flush()


def _animated(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
