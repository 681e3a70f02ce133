"""The networks by name: each is the `MODEL` of a module beside this one."""

from __future__ import annotations

import importlib

from adjax.examples.digits.model import Model


def network(name: str) -> Model:
    """`mlp` or `cnn`."""
    model: Model = importlib.import_module(f"adjax.examples.digits.{name}").MODEL
    return model
