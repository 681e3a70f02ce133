"""Optional dependencies: which extra of the package brings what a program needs."""

from __future__ import annotations

import importlib

DISTRIBUTIONS = {"sklearn": "scikit-learn", "orbax.checkpoint": "orbax-checkpoint"}


class MissingExtra(ImportError):
    """A program needs modules that an extra of the package installs; the text says which and how."""


def require(extra: str, *modules: str) -> None:
    """Import the modules, or say which of them are missing and which extra installs them.

    Raises:
        MissingExtra: a module is not installed, or is installed and does not import.
    """
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            name = DISTRIBUTIONS.get(module, module)
            absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
            missing.append(f"{name} (not installed)" if absent else f"{name} (does not import: {error})")
    if missing:
        raise MissingExtra(f"needs {', '.join(missing)}: pip install 'adjax[{extra}]'")
