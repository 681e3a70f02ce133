"""Gathers what the site is made of into one folder: docs/, the executed notebooks, and the pages made by program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from tools.docs import benchmarks, reference

ROOT = Path(__file__).resolve().parents[2]
MEASURED = (ROOT / "docs" / "benchmarks.json", ROOT / "benchmarks" / "results" / "latest.json")

INCLUDED = ("README.md", "CHANGELOG.md", "adjax/layers/affine.py")  # pages show parts of these


def gather(target: Path) -> None:
    """Fill the folder anew."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target)
    for name in INCLUDED:
        shutil.copy(ROOT / name, target)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        write(target / "notebooks" / notebook.name, folded(notebook))
    for floor, text in reference.pages().items():
        write(target / "reference" / f"{floor}.rst", text)
    write(target / "generated" / "transformations.md", transformations())
    for name, text in benchmarks.tables(benchmarks.read(MEASURED)).items():
        write(target / "generated" / f"{name}.md", text)


def transformations() -> str:
    """The table of transformations, from a process of its own: one with eight devices, in float64."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-m", "tools.docs.transformations"]
    environment = {**os.environ, **settings}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def folded(notebook: Path) -> str:
    """A notebook in which the cells that JupyterLab folds are folded by the site as well, and none starts with air."""
    read = nbformat.read(notebook, as_version=4)
    for cell in read.cells:
        cell.source = cell.source.strip("\n")
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    return nbformat.writes(read)
