"""How a certificate is shown: as text, in a notebook, and as data."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import numbers
import platform
from collections.abc import Mapping
from typing import Any

from .certificate import Certificate
from .report_html import html as html
from .report_text import text as text

PACKAGES = ("adjax", "jax", "jaxlib", "numpy")


def to_dict(certificate: Certificate) -> dict[str, Any]:
    """The certificate in types that JSON has: its fields, the verdict, and the versions it was made with.

    Floats that JSON lacks (NaN, infinity) become None. `failures` are the indices of the findings that were not waived.
    """
    failures = certificate.failures
    return {
        "verdict": str(certificate.verdict),
        "ok": certificate.ok,
        **{field.name: _plain(getattr(certificate, field.name)) for field in dataclasses.fields(certificate)},
        "failures": [i for i, finding in enumerate(certificate.findings) if finding in failures],
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that a certificate depends on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, numbers.Real):
        return value if math.isfinite(value) else None
    return str(value)
