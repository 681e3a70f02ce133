"""A function by its name on the command line."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from .errors import BadInput

OURS = str(Path(__file__).parent)
JAX = str(Path(jax.__file__).parent)


def load(target: str) -> Callable[..., Any]:
    """The function that `module:function` or `file.py:function` names; the function may be an attribute of another.

    Raises:
        BadInput: there is no such module, file or function, or importing it fails.

    >>> load("math:sqrt")(4.0)
    2.0
    """
    source, colon, path = target.rpartition(":")
    if not (colon and source and path):
        raise BadInput(f"expected MODULE:FUNCTION or FILE.py:FUNCTION, as in adjax:affine, got {target!r}")
    value: Any = _module(source)
    for name in path.split("."):
        if not hasattr(value, name):
            close = difflib.get_close_matches(name, dir(value), 1)
            raise BadInput(f"{source} has no {path!r}" + (f": did you mean {close[0]!r}?" if close else ""))
        value = getattr(value, name)
    if not callable(value):
        raise BadInput(f"{target} is no function: it is of type {type(value).__name__}")
    return value


def _module(source: str) -> ModuleType:
    is_file = source.endswith(".py")
    folder = str(Path(source).resolve().parent) if is_file else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if is_file and not Path(source).is_file():
        raise BadInput(f"there is no file {source!r}")
    try:
        return _from_file(Path(source).resolve()) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{source}.".startswith(f"{error.name}."):
            raise BadInput(f"there is no module {error.name!r} in this folder or on Python's path") from error
        raise BadInput(f"{source} does not import: {raised(error)}") from error


def _from_file(path: Path) -> ModuleType:
    """The file as a module, whose name is its path so that it hides no other; imported once."""
    name = str(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("Python does not know how to load it")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def raised(error: BaseException) -> str:
    """An exception in one line: its type, the beginning of its message, and where the user's code raised it."""
    first, _, second = str(error).strip().partition("\n")
    message = f"{first} {second.partition(chr(10))[0].strip()}".strip() if first.endswith(":") else first
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError):
        return said
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_the_users(f.filename)]
    return f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else said


def _is_the_users(file: str) -> bool:
    return file.endswith(".py") and not file.startswith((OURS, JAX)) and Path(file).parent.name != "importlib"
