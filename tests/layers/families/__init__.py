"""The layers under test: a module a family, found by glob, and every law runs over every case.

A module holds `CASES`, the first of which is taken through every row in several dtypes and the others through the rows
that differ by shape; `CERTIFIED`, at least six option sets a layer; `LAYOUTS`, over meshes of devices.
"""

import importlib
from pathlib import Path

NAMES = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
FAMILIES = {name: importlib.import_module(f"{__name__}.{name}") for name in NAMES}

MAIN = [family.CASES[0] for family in FAMILIES.values()]
VARIANTS = [case for family in FAMILIES.values() for case in family.CASES[1:]]
CERTIFIED = [case for family in FAMILIES.values() for case in family.CERTIFIED]
LAYOUTS = [layout for family in FAMILIES.values() for layout in family.LAYOUTS]
