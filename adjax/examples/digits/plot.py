"""The learning curves and the misclassified digits, drawn as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from adjax.examples.digits.data import Digits
from adjax.examples.digits.train import Checkpoint

COLOURS = {"train": "#9a9a9a", "test": "#1f5fbf"}
COLUMNS, MOST_ROWS = 8, 2
CURVES_HEIGHT = 3.6  # inches


def draw(path: Path, data: Digits, checkpoints: list[Checkpoint], probabilities: np.ndarray) -> None:
    """Write the figure; `probabilities` are those of the test images, (n, classes)."""
    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != data.y_test)
    wrong = wrong[np.argsort(-probabilities[wrong, predictions[wrong]], kind="stable")]
    rows = 1 if len(wrong) <= COLUMNS else MOST_ROWS

    figure = Figure(figsize=(10, CURVES_HEIGHT + 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    curves, images = figure.subfigures(2, 1, height_ratios=[CURVES_HEIGHT, 1.9 * rows], squeeze=False).flat
    loss, accuracy = curves.subplots(1, 2)
    _curves(loss, accuracy, checkpoints)
    images.suptitle(_images_title(len(wrong), min(len(wrong), rows * COLUMNS), len(data.y_test)), fontsize=12)
    for place, axes in enumerate(images.subplots(rows, COLUMNS).flat):
        axes.set_axis_off()
        if place < len(wrong):
            at = wrong[place]
            axes.imshow(data.images[at], cmap="gray_r", vmin=0, vmax=16)
            caption = f"{data.y_test[at]} read as {predictions[at]}\np = {probabilities[at, predictions[at]]:.2f}"
            axes.set_title(caption, fontsize=9)
    figure.savefig(path, format="png", dpi=120)


def _images_title(wrong: int, shown: int, total: int) -> str:
    if not wrong:
        return f"none of the {total} test images is misclassified"
    which = "" if shown == wrong else f", the {shown} most confident mistakes"
    return f"misclassified: {wrong} of {total} test images{which}"


def _curves(loss: Axes, accuracy: Axes, checkpoints: list[Checkpoint]) -> None:
    steps = [checkpoint.step for checkpoint in checkpoints]
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for part, colour in COLOURS.items():
            values = [getattr(checkpoint, f"{part}_{quantity}") for checkpoint in checkpoints]
            end = f"{values[-1]:.1%}" if quantity == "accuracy" else f"{values[-1]:.3f}"
            axes.plot(steps, values, color=colour, label=f"{part}, at the end {end}")
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper right" if quantity == "loss" else "lower right")
    loss.set_title("cross-entropy (log scale)", fontsize=12)
    loss.set_yscale("log")
    accuracy.set_title("accuracy", fontsize=12)
    accuracy.set_ylim(max(0.0, checkpoints[-1].test_accuracy - 0.1), 1.005)
    accuracy.yaxis.set_major_formatter(lambda value, position: f"{value:.0%}")
