"""Every public name says what it is, with an example that runs, and the reference leaves none out."""

import importlib.util
import inspect

import pytest

import adjax
from tools.docs import reference
from tools.docs.docstrings import to_rest
from tools.docs.names import FLOORS, members, public_names

NAMES = {public.name: public.object for public in public_names()}
PARTS = {
    f"{name}.{member}": found
    for name, of in NAMES.items()
    if inspect.isclass(of) or inspect.ismodule(of)
    for member, found in members(of).items()
}


def has_example(of):
    return ">>> " in (inspect.getdoc(of) or "")


def test_the_public_names_are_those_that_can_be_seen():
    submodules = {name for name in vars(adjax) if importlib.util.find_spec(f"adjax.{name}")}
    seen = {name for name in vars(adjax) if not name.startswith("_")}
    assert seen - submodules <= set(NAMES) <= seen
    assert {public.floor for public in public_names()} == set(FLOORS)


@pytest.mark.parametrize("name", [name for name, of in NAMES.items() if callable(of)])
def test_a_public_name_has_an_example(name):
    """Its own, or, of parameters and states, that of `init`, which makes them; of tables, that of their class."""
    of = NAMES[name]
    assert has_example(of) or has_example(getattr(of, "init", None))


@pytest.mark.parametrize("name", PARTS)
def test_a_public_method_says_what_it_does(name):
    assert inspect.getdoc(PARTS[name])
    assert has_example(PARTS[name]) or isinstance(PARTS[name], property)


def test_the_reference_leaves_no_public_name_out():
    pages = "\n".join(reference.page(floor) for floor in FLOORS)
    entries = {line.split(":: adjax.")[1] for line in pages.splitlines() if ":: adjax." in line}
    functions_of_modules = {f"plot.{name}" for name in members(adjax.plot)}
    assert entries == (set(NAMES) - {"plot"}) | functions_of_modules


def test_a_docstring_is_shown_as_it_was_meant():
    text = "Doubles `x`s with `any_mode`; a|b, *args, x_.\n\n    y = 2 x\n\n    z\n\nArgs:\n    x: any.\n\n>>> 1\n1"
    assert to_rest(text).rstrip() == (
        "Doubles ``x``\\ s with :py:obj:`any_mode <adjax.any_mode>`; a\\|b, \\*args, x\\_.\n\n"
        ".. code-block:: text\n\n    y = 2 x\n\n    z\n\nArgs:\n    x: any.\n\n>>> 1\n1"
    )
