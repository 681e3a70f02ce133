"""What a training run tells at the end, as text of at most 80 columns."""

from __future__ import annotations

import jax
import numpy as np

from adjax.examples.digits.data import CLASSES, Digits
from adjax.examples.digits.model import master_dtype
from adjax.examples.digits.models import network
from adjax.examples.digits.options import Options
from adjax.examples.parallel.options import where
from adjax.examples.terminal import Terminal

MOST_PAIRS = 4
WIDTH = 80


def introduction(options: Options, data: Digits, terminal: Terminal) -> str:
    """What is trained, on what."""
    model = network(options.model)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), options, master_dtype(options.dtype)))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    images = f"{len(data.X_train)} training and {len(data.X_test)} test images of 8 × 8 pixels"
    parts = [model.sizes(options), f"{model.layers} in {options.dtype}, {count} parameters{where(options)}"]
    line = "    ".join(parts)
    return "\n".join(
        [
            f"{terminal.paint('Handwritten digits', 'bold')}    {terminal.paint(images, 'dim')}",
            *map(terminal.spell, [line] if len(line) <= WIDTH else parts),
        ]
    )


def confusion(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """counts[i, j]: test images of digit i that were read as j."""
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def accuracy(counts: np.ndarray, terminal: Terminal) -> str:
    """The headline, the accuracy digit by digit, and the pairs most confused."""
    correct, total = int(np.trace(counts)), int(counts.sum())
    tested = counts.sum(axis=1)
    rows = {
        "digit": range(CLASSES),
        "tested": tested,
        "correct": np.diag(counts),
        "correct %": [f"{share:.0f}" for share in 100 * np.diag(counts) / tested],
    }
    head, *table = (f"  {name:<9}" + "".join(f"{value!s:>6}" for value in values) for name, values in rows.items())
    headline = terminal.paint(f"Test accuracy  {correct / total:.2%}", "bold")
    return "\n".join(
        [
            headline + terminal.paint(f"    {correct} of {total} images", "dim"),
            terminal.paint(head, "dim"),
            *table,
            f"  confused      {most_confused(counts, terminal)}",
        ]
    )


def most_confused(counts: np.ndarray, terminal: Terminal) -> str:
    """`8 → 1 (2)`: two eights were read as ones; the most frequent mistakes first."""
    wrong = counts - np.diag(np.diag(counts))
    pairs = sorted(np.argwhere(wrong).tolist(), key=lambda pair: -wrong[tuple(pair)])
    shown = [f"{i} → {j} ({wrong[i, j]})" for i, j in pairs[:MOST_PAIRS]]
    more = sum(int(wrong[i, j]) for i, j in pairs[MOST_PAIRS:])
    return terminal.spell("   ".join(shown + [f"{more} more"] * bool(more)) or "none")
