"""Run the notebooks: every notebooks/*.py (py:percent) is executed and written beside itself as .ipynb.

    python tools/notebooks.py             execute all and write the .ipynb files
    python tools/notebooks.py --check     execute all, write nothing, and fail where an .ipynb differs from its source
    python tools/notebooks.py 01_name     these alone

A notebook fails when a cell raises, when a cell writes to stderr (a warning shown to the reader), or when the whole
takes longer than LIMIT_S. The kernel is the interpreter that runs this file, whatever kernels the user has installed.
What is written depends on the source and the results alone: no times, no random cell ids, no versions in the metadata.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 60  # longer than this is a failure
STOP_S = 120  # longer than this is not waited for
VOLATILE_CELL_METADATA = ("execution", "lines_to_next_cell")
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


class NotebookFailure(Exception):
    """A notebook that does not run, or that is not the one its source describes; the text says which and why."""


def stable(notebook: NotebookNode) -> NotebookNode:
    """The same cells and outputs under fixed metadata and numbered cell ids."""
    notebook = nbformat.from_dict({**notebook, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        for key in VOLATILE_CELL_METADATA:
            cell.metadata.pop(key, None)
    return notebook


def read_source(text: str) -> NotebookNode:
    """The unexecuted notebook of a py:percent text."""
    return stable(jupytext.reads(text, fmt="py:percent"))


def drift(source: NotebookNode, written: NotebookNode) -> str | None:
    """Where the cells of a written notebook depart from those of its source; None where they agree."""
    for number, (ours, theirs) in enumerate(zip(source.cells, written.cells, strict=False), start=1):
        if ours.cell_type != theirs.cell_type:
            return f"cell {number} is {theirs.cell_type}, its source is {ours.cell_type}"
        if ours.source != theirs.source:
            return f"cell {number} differs from its source: {first_line(ours.source)!r}"
    if len(source.cells) != len(written.cells):
        return f"it holds {len(written.cells)} cells, its source {len(source.cells)}"
    return None


def first_line(source: str) -> str:
    """The first line that says something."""
    return next((line for line in source.splitlines() if line.strip()), "")


def stderr_text(notebook: NotebookNode) -> str | None:
    """What the first cell that wrote to stderr wrote there."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                return f"cell {number} ({first_line(cell.source)!r}) wrote to stderr:\n{output.text}"
    return None


def kernel_manager(private: str) -> AsyncKernelManager:
    """Starts this interpreter and no installed kernel, and talks to it through sockets in a private folder."""
    return AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        connection_file=os.path.join(private, "kernel.json"),
        transport="ipc" if os.name == "posix" else "tcp",
    )


def execute(notebook: NotebookNode, folder: Path, private: str) -> NotebookNode:
    """Execute in a fresh kernel; raise NotebookFailure naming the cell and its error."""
    deadline = time.monotonic() + STOP_S
    current = {"number": 0, "line": "the start of the kernel"}

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        current.update(number=cell_index + 1, line=first_line(cell.source))

    client = NotebookClient(
        notebook,
        km=kernel_manager(private),
        timeout_func=lambda _: max(1, int(deadline - time.monotonic())),
        on_cell_start=on_cell_start,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=kernel_environment(), cleanup_kc=True)
    except (CellControlSignal, DeadKernelError) as error:  # a cell raised or overran; the kernel died
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        raise NotebookFailure(f"cell {current['number']} ({current['line']!r}) failed:\n{text}") from None
    return stable(notebook)


def kernel_environment() -> dict[str, str]:
    """This process's, with inline figures, JAX on the CPU unless the caller chose, and this checkout importable."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        "JAX_PLATFORMS": "cpu",
        **os.environ,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": path,
    }


def compare(source: NotebookNode, target: Path) -> None:
    """Raise NotebookFailure where the written notebook is missing or has departed from its source."""
    if not target.exists():
        raise NotebookFailure(f"{target.name} is missing; `make notebooks` writes it")
    try:
        written = nbformat.read(target, as_version=4)
    except ValueError as error:
        raise NotebookFailure(f"{target.name} is not a notebook: {error}; `make notebooks` writes it anew") from None
    difference = drift(source, written)
    if difference:
        raise NotebookFailure(f"{target.name} is stale: {difference}; `make notebooks` writes it anew")


def run(path: Path, *, check: bool) -> float:
    """Execute one source, compare or write its notebook, and return the seconds it took."""
    source = read_source(path.read_text(encoding="utf-8"))
    target = path.with_suffix(".ipynb")
    if check:
        compare(source, target)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as private:
        executed = execute(source, path.parent, private)
    seconds = time.monotonic() - started
    warned = stderr_text(executed)
    if warned:
        raise NotebookFailure(warned)
    if seconds > LIMIT_S:
        raise NotebookFailure(f"took {seconds:.0f} s, longer than the {LIMIT_S} s that a notebook may take")
    if not check:
        nbformat.validate(executed)
        target.write_text(nbformat.writes(executed) + "\n", encoding="utf-8")
    return seconds


def orphans(folder: Path) -> list[str]:
    """Notebooks without a source: edited by hand, or left behind by a renamed one."""
    return [path.name for path in sorted(folder.glob("*.ipynb")) if not path.with_suffix(".py").exists()]


def main(argv: list[str] | None = None) -> int:
    """Run every notebook named, or all; exit status 1 when any failed."""
    parser = argparse.ArgumentParser(prog="tools/notebooks.py", description="Execute notebooks; write or check them.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where an .ipynb left its source")
    parser.add_argument("--folder", type=Path, default=ROOT / "notebooks", help="where the sources lie")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many at a time (default 2)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a notebook's name; all when none is named")
    options = parser.parse_args(argv)

    names = [Path(name).stem for name in options.names] or [path.stem for path in sorted(options.folder.glob("*.py"))]
    if not names:
        print(f"no notebook sources in {options.folder}", file=sys.stderr)
        return 1
    failures = [f"{name}: has no source beside it" for name in orphans(options.folder)]
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {name: pool.submit(run, options.folder / f"{name}.py", check=options.check) for name in names}
        for name, result in runs.items():
            try:
                seconds = result.result()
            except (NotebookFailure, FileNotFoundError) as failure:
                failures.append(f"{name}: {failure}")
                print(f"FAILED  {name}", flush=True)
            else:
                print(f"ok      {name}  {seconds:.1f} s", flush=True)
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
