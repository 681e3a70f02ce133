"""Wrong rules, one file a family of layers; each file's `MUTANTS` is collected here."""

import importlib
import pkgutil

from tests.certify.rules import Mutant

MUTANTS: list[Mutant] = [
    mutant
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__))
    for mutant in importlib.import_module(f"{__name__}.{module}").MUTANTS
]
