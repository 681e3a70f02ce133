"""The program `python -m adjax train digits`, from its options to its exit status."""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

from adjax.examples.digits import compare, report
from adjax.examples.digits.data import Digits, load
from adjax.examples.digits.model import logits
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.digits.resume import train
from adjax.examples.digits.train import Training, batches
from adjax.examples.interrupt import INTERRUPTED, Interrupt
from adjax.examples.parallel.mesh import placement, simulate, whole
from adjax.examples.progress import progress
from adjax.examples.readers import BadOption
from adjax.examples.side_by_side import comparison
from adjax.examples.terminal import Terminal


def main(options: Options) -> int:
    """Train, report, compare, plot. Returns 0, or 130 if interrupted: then with the result so far.

    Raises:
        BadOption: the batch is larger than the training set, there are not enough devices, or the checkpoints are those
            of another run.
        NonFiniteLoss: the loss became infinite or NaN.
        MemoryError: the network does not fit into memory.
        NotSaved: the last state could not be written.
    """
    simulate(options.devices)
    placement(options)
    with jax.enable_x64(options.dtype == "float64"), Interrupt() as interrupt:
        try:
            return run(options, Terminal(), interrupt)
        except jax.errors.JaxRuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            raise MemoryError(f"out of memory with --width {options.width} --depth {options.depth}") from None


def run(options: Options, terminal: Terminal, interrupt: Interrupt) -> int:
    """What `main` does, until something does not fit."""
    data = load(options.seed)
    if options.batch > len(data.X_train):
        raise BadOption(f"--batch: there are {len(data.X_train)} training images, got {options.batch}")
    terminal.print(report.introduction(options, data, terminal) + "\n")
    training = show_training(options, data, terminal, interrupt)
    if not interrupt.requested:
        show_comparison(options, data, training, terminal, interrupt)
    if interrupt.requested:
        done = f"{training.checkpoints[-1].step} of {options.steps} steps"
        terminal.print("\n" + terminal.paint(f"Interrupted after {done}: this is the result so far.", "yellow"))
        return INTERRUPTED
    return 0


def show_training(options: Options, data: Digits, terminal: Terminal, interrupt: Interrupt) -> Training:
    """Train, and show how well the result reads the test images."""
    start = time.perf_counter()
    with progress(options.steps, terminal) as show:
        tell = lambda at: show(at.step, f"loss {at.train_loss:.3f}", f"test accuracy {at.test_accuracy:.1%}")
        training = train(options, data, tell, lambda: interrupt.requested)
    steps = training.checkpoints[-1].step - training.checkpoints[0].step
    seconds = f"{steps} steps in {time.perf_counter() - start:.1f} s, compilation included"
    terminal.print(terminal.paint(seconds, "dim") + "\n")
    apply = network(options.model).spelled
    read = jax.jit(functools.partial(logits, dtype=options.dtype, apply=apply))
    Z = read(whole(options, training.params), data.X_test)
    probabilities = np.asarray(jax.nn.softmax(Z))
    counts = report.confusion(data.y_test, probabilities.argmax(axis=1))
    terminal.print(report.accuracy(counts, terminal))
    if options.plot is not None:
        from adjax.examples.digits import plot

        plot.draw(options.plot, data, training.checkpoints, probabilities)
        terminal.print(terminal.paint(f"  plot          {options.plot}", "dim"))
    return training


def show_comparison(
    options: Options, data: Digits, training: Training, terminal: Terminal, interrupt: Interrupt
) -> None:
    """Show spelled adjoints beside plain autodiff, on one batch and the trained parameters."""
    X, y = next(batches(options, data))
    difference = compare.gradient_difference(options, training.params, X, y)
    speed = compare.speed(options, training.params, X, y, lambda: interrupt.requested)
    terminal.print("\n" + comparison(network(options.model).plain, difference, speed, terminal))
