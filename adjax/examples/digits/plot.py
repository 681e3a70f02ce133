"""The learning curves and the misclassified digits, drawn as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from adjax.examples.digits.data import Digits
from adjax.examples.digits.train import Checkpoint

TRAIN, TEST = "#9a9a9a", "#1f5fbf"
COLUMNS, ROWS = 8, 2


def draw(path: Path, data: Digits, checkpoints: list[Checkpoint], probabilities: np.ndarray) -> None:
    """Write the figure; `probabilities` are those of the test images, (n, classes)."""
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    _curves(*above.subplots(1, 2), checkpoints)

    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != data.y_test)
    wrong = wrong[np.argsort(-probabilities[wrong, predictions[wrong]], kind="stable")]
    shown = wrong[: COLUMNS * ROWS]
    which = "all" if len(shown) == len(wrong) else f"the {len(shown)} most confident of"
    title = f"misclassified: {which} {len(wrong)}" if len(wrong) else "no test image is misclassified"
    below.suptitle(title + f" ({len(data.y_test)} test images)", fontsize=11)
    for axes, index in zip(below.subplots(ROWS, COLUMNS).flat, [*shown, *[None] * (COLUMNS * ROWS - len(shown))], strict=True):
        axes.set_axis_off()
        if index is not None:
            axes.imshow(data.images[index], cmap="gray_r", vmin=0, vmax=16)
            probability = probabilities[index, predictions[index]]
            axes.set_title(f"{data.y_test[index]} read as {predictions[index]}\np = {probability:.2f}", fontsize=9)
    figure.savefig(path, format="png", dpi=120)


def _curves(loss: Axes, accuracy: Axes, checkpoints: list[Checkpoint]) -> None:
    steps = [checkpoint.step for checkpoint in checkpoints]
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for part, colour in (("train", TRAIN), ("test", TEST)):
            values = [getattr(checkpoint, f"{part}_{quantity}") for checkpoint in checkpoints]
            end = f"{values[-1]:.1%}" if quantity == "accuracy" else f"{values[-1]:.3f}"
            axes.plot(steps, values, color=colour, label=f"{part}: {end}")
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    loss.set_title("cross-entropy", fontsize=11)
    loss.set_yscale("log")
    accuracy.set_title("accuracy", fontsize=11)
    accuracy.yaxis.set_major_formatter(lambda value, position: f"{value:.0%}")
