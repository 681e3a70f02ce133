"""Right but unusual rules, which must pass; each file's `RIGHT` is collected here."""

import importlib
import pkgutil

from tests.certify.rules import Right

RIGHT: list[Right] = [
    rule
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__))
    for rule in importlib.import_module(f"{__name__}.{module}").RIGHT
]
