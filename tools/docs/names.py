"""What is public: the names that `adjax/__init__.py` re-exports, each with the floor it comes from."""

import ast
import inspect
import re
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import adjax

FLOORS = {"adjoint": "The foundation", "layers": "Layers", "certify": "Certify", "explain": "Explain"}


@dataclass(frozen=True)
class Public:
    """A public name: `adjax.NAME`."""

    name: str
    floor: str

    @property
    def object(self) -> Any:
        return getattr(adjax, self.name)

    @property
    def module(self) -> ModuleType:
        """The module that defines it."""
        found = self.object
        if isinstance(found, dict):                  # a table of things, beside their class
            found = type(next(iter(found.values())))
        return found if isinstance(found, ModuleType) else sys.modules[inspect.unwrap(found).__module__]

    @property
    def place(self) -> int:
        """Where the package's docstring first speaks of it; what it leaves out comes last."""
        text = adjax.__doc__ or ""
        mention = re.search(rf"(?<!\w){self.name}(?!\w)", text)
        return mention.start() if mention else len(text)


def public_names() -> list[Public]:
    """All of them: `from .FLOOR import NAME as NAME`."""
    return [
        Public(alias.name, statement.module or "")
        for statement in ast.parse(inspect.getsource(adjax)).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.asname == alias.name
    ]


def by_module(floor: str) -> dict[ModuleType, list[Public]]:
    """The public names of a floor under the modules that define them, in the order of the package's docstring."""
    groups: dict[ModuleType, list[Public]] = {}
    for public in sorted(public_names(), key=lambda public: public.place):
        if public.floor == floor:
            groups.setdefault(public.module, []).append(public)
    return groups


def members(of: Any) -> dict[str, Any]:
    """The public functions of a module, or methods and properties of a class, that it defines itself."""
    return {
        name: getattr(of, name)
        for name, value in vars(of).items()
        if not name.startswith("_") and _is_own(of, value)
    }


def _is_own(of: Any, value: Any) -> bool:
    if isinstance(of, ModuleType):
        return inspect.isfunction(value) and value.__module__ == of.__name__
    return inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod, property))
