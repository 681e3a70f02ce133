"""How training shows itself: a bar that redraws itself on a terminal, a line now and then in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adjax.examples.terminal import Terminal

LINES = 8

Show = Callable[..., None]


@contextmanager
def progress(steps: int, terminal: Terminal) -> Iterator[Show]:
    """A function of the steps done and of what to say about them, a few words for each thing."""
    if not terminal.animated:
        yield _lines(steps, terminal)
        return
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24, complete_style="cyan", finished_style="green"),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=terminal.stream)) as bar:
        task = bar.add_task("", total=steps, status="compiling")

        def show(step: int, *words: str) -> None:
            bar.update(task, completed=step, status="  ".join(words))

        yield show


def _lines(steps: int, terminal: Terminal) -> Show:
    printed = 0

    def show(step: int, *words: str) -> None:
        nonlocal printed
        if step * LINES // steps > printed:
            printed = step * LINES // steps
            terminal.print("    ".join([f"step {step:>6}", *words]))

    return show
