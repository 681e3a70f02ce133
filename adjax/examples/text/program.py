"""The program `python -m adjax train text`, from its options to its exit status."""

from __future__ import annotations

import time

import jax

from adjax.examples import processes
from adjax.examples.interrupt import INTERRUPTED, Interrupt
from adjax.examples.parallel.mesh import placement, simulate, whole
from adjax.examples.parallel.options import where
from adjax.examples.progress import progress
from adjax.examples.side_by_side import comparison
from adjax.examples.terminal import Terminal
from adjax.examples.text import compare, resume, sample
from adjax.examples.text.data import Text, batches, load, windows
from adjax.examples.text.decoder import init
from adjax.examples.text.options import Options
from adjax.examples.text.train import Training, evaluate


def main(options: Options) -> int:
    """Train, report, write, compare. Returns 0, or 130 if interrupted: then with the result so far.

    Raises:
        BadOption: the text does not fit the options, or there are not enough devices.
        NonFiniteLoss: the loss became infinite or NaN.
        MemoryError: the network does not fit into memory.
    """
    simulate(options.devices)
    with processes.joined() if options.distributed else Interrupt() as interrupt:
        placement(options)
        try:
            return run(options, Terminal(processes.output()), interrupt)
        except jax.errors.JaxRuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            raise MemoryError(f"out of memory with --width {options.width} --context {options.context}") from None


def run(options: Options, terminal: Terminal, interrupt: Interrupt) -> int:
    """What `main` does, until something does not fit."""
    text = load(options)
    terminal.print(introduction(options, text, terminal) + "\n")
    start = time.perf_counter()
    with progress(options.steps, terminal) as show:
        tell = lambda at: show(at.step, f"train {at.train:.2f}", f"held out {at.held_out:.2f} bits")
        training = resume.train(options, text, tell, lambda: interrupt.requested)
    done = training.checkpoints[-1].step if training.checkpoints else training.first
    seconds = f"{done - training.first} steps in {time.perf_counter() - start:.1f} s, compilation included"
    terminal.print(terminal.paint(seconds, "dim") + "\n")
    terminal.print(held_out(options, text, training, terminal))
    if options.sample and not interrupt.requested:
        terminal.print("\n" + terminal.paint("It writes", "bold"))
        terminal.print(_indented(sample.write(whole(options, training.params), text, options)))
    if not (interrupt.requested or options.distributed):
        terminal.print("\n" + side_by_side(options, text, training, terminal, interrupt))
    if interrupt.requested:
        so_far = f"Interrupted after {done} of {options.steps} steps: this is the result so far."
        terminal.print("\n" + terminal.paint(so_far, "yellow"))
        return INTERRUPTED
    return 0


def introduction(options: Options, text: Text, terminal: Terminal) -> str:
    """What is trained, on what."""
    params = jax.eval_shape(lambda: init(jax.random.key(0), options, len(text.characters)))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    source = "Python's help topics" if options.file is None else options.file.name
    sizes = f"{len(text.train)} characters, {len(text.held_out)} held out, {len(text.characters)} different ones"
    shape = f"{options.depth} blocks of {options.heads} heads, width {options.width}, in {options.dtype}"
    return "\n".join(
        [
            f"{terminal.paint(source, 'bold')}    {terminal.paint(sizes, 'dim')}",
            terminal.spell(f"{shape}    {count} parameters"),
            terminal.spell(f"{options.batch} × {options.context} characters a step{where(options)}"),
        ]
    )


def held_out(options: Options, text: Text, training: Training, terminal: Terminal) -> str:
    """The headline."""
    every = windows(options, text.held_out)
    bits = evaluate(training.params, every, options)
    headline = terminal.paint(f"Held out  {bits:.3f} bits per character", "bold")
    return headline + terminal.paint(f"    {every[:, 1:].size} characters", "dim")


def side_by_side(
    options: Options, text: Text, training: Training, terminal: Terminal, interrupt: Interrupt
) -> str:
    """Spelled adjoints beside plain autodiff, on one batch and the trained parameters."""
    ids = next(batches(options, text.train))
    difference = compare.gradient_difference(options, training.params, ids)
    memory = compare.temporaries(options, training.params, ids)
    speed = compare.speed(options, training.params, ids, lambda: interrupt.requested)
    megabytes = tuple(
        f"  {'temporaries' if name == 'spelled' else '':<14}  {count / 1e6:>8.1f}  MB {name}"
        for name, count in memory.items()
    )
    return comparison("the same network", difference, speed, terminal, megabytes)


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
