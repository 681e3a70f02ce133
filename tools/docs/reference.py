"""The reference: a page for each floor, made of the docstrings of its modules and of its public names."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from tools.docs.docstrings import marked_up, to_rest
from tools.docs.names import FLOORS, by_module, members


def pages() -> dict[str, str]:
    """Their texts, in reStructuredText, by the floor's name."""
    return {floor: page(floor) for floor in FLOORS}


def page(floor: str) -> str:
    """One floor: module by module what the module says of itself, then the names it defines."""
    title = FLOORS[floor]
    return "\n".join([title, "=" * len(title), "", ".. py:currentmodule:: adjax", "", *_sections(floor)])


def _sections(floor: str) -> Iterator[str]:
    for module, names in by_module(floor).items():
        heading, rest = titled(module)
        yield from (heading, "-" * len(heading), "", to_rest(rest), "")
        for public in names:
            yield from _entry(public.name, public.object)


def titled(module: ModuleType) -> tuple[str, str]:
    """The first sentence of a module's docstring as a heading, and what follows it."""
    first, _, rest = (module.__doc__ or module.__name__).strip().partition("\n\n")
    heading, stop, more = " ".join(first.split()).partition(". ")
    return marked_up(heading.rstrip(".:") if not stop else heading), f"{more}\n\n{rest}" if stop else rest


def _entry(name: str, of: Any) -> Iterator[str]:
    if isinstance(of, ModuleType):
        for inner in members(of):
            yield from (f".. autofunction:: adjax.{name}.{inner}", "")
    elif isinstance(of, dict):
        kind = type(next(iter(of.values()))).__name__
        said = f"Each a :py:obj:`{kind} <adjax.{kind}>`: {', '.join(of)}."
        yield from (f".. py:data:: adjax.{name}", "", f"   {said}", "")
    elif isinstance(of, type):
        own = ", ".join(members(of))
        yield from (f".. autoclass:: adjax.{name}", *([f"   :members: {own}"] if own else []), "")
        if "#" in (fields := _fields(of)):       # without comments they say no more than the signature
            yield from ("   .. code-block:: python", "", textwrap.indent(fields, 6 * " "), "")
    else:
        yield from (f".. autofunction:: adjax.{name}", "")


def _fields(of: type) -> str:
    """The lines of a class that declare its fields, with the comments beside them."""
    if not (issubclass(of, tuple) or hasattr(of, "__dataclass_fields__")):
        return ""
    source = textwrap.dedent(inspect.getsource(of))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    lines = source.splitlines()
    fields = [field for field in definition.body if isinstance(field, ast.AnnAssign)]
    return textwrap.dedent("\n".join(line for field in fields for line in lines[field.lineno - 1 : field.end_lineno]))
