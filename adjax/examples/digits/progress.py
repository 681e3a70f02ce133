"""How training shows itself: a bar that redraws itself on a terminal, a line now and then in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adjax.examples.digits.train import Checkpoint
from adjax.examples.terminal import Terminal

LINES = 8


@contextmanager
def progress(steps: int, terminal: Terminal) -> Iterator[Callable[[Checkpoint], None]]:
    """A function of checkpoints that shows them."""
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

        def show(at: Checkpoint) -> None:
            bar.update(task, completed=at.step, status=f"loss {at.train_loss:.3f}  test {at.test_accuracy:.1%}")

        yield show


def _lines(steps: int, terminal: Terminal) -> Callable[[Checkpoint], None]:
    printed = 0

    def show(at: Checkpoint) -> None:
        nonlocal printed
        if at.step * LINES // steps > printed:
            printed = at.step * LINES // steps
            terminal.print(f"step {at.step:>6}    loss {at.train_loss:.3f}    test accuracy {at.test_accuracy:.1%}")

    return show
