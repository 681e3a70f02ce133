"""The text: characters as numbers, the last tenth held out, and windows of it drawn at random."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adjax.examples.readers import BadOption
from adjax.examples.text.options import Options

HELD_OUT = 0.1


class Text(NamedTuple):
    """A text as numbers of its characters: `characters[id]` is what an id stands for."""

    characters: str
    train: np.ndarray
    held_out: np.ndarray

    def spelled(self, ids: np.ndarray) -> str:
        """The characters of ids."""
        return "".join(self.characters[i] for i in ids)


def load(options: Options) -> Text:
    """The file, or Python's help topics.

    Raises:
        BadOption: the file is no text in UTF-8, or too short for the context.
        OSError: the file cannot be read.
    """
    text = topics() if options.file is None else _read(options.file)
    characters = "".join(sorted(set(text)))
    number = {character: i for i, character in enumerate(characters)}
    ids = np.fromiter((number[character] for character in text), np.int32, len(text))
    first = len(ids) - int(HELD_OUT * len(ids))
    if len(ids) - first <= options.context:
        raise BadOption(
            f"--context: a tenth of the text is held out, and its {len(ids) - first} characters must be more than a "
            f"context of {options.context}"
        )
    return Text(characters, ids[:first], ids[first:])


def topics() -> str:
    """The help topics that come with Python, some 500 000 characters of English."""
    from pydoc_data.topics import topics

    return "\n".join(topics.values())


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadOption(f"--file: {file} is no text in UTF-8: {error.reason} at byte {error.start}") from None


def batches(options: Options, ids: np.ndarray, first: int = 0) -> Iterator[np.ndarray]:
    """Those of the steps from `first` on, without end."""
    return (batch(options, ids, step) for step in itertools.count(first))


def batch(options: Options, ids: np.ndarray, step: int) -> np.ndarray:
    """Windows of context + 1 characters, drawn at random by the seed and the step, (n, t + 1)."""
    random = np.random.default_rng((options.seed, step))
    starts = random.integers(0, len(ids) - options.context, (options.batch, 1))
    return ids[starts + np.arange(options.context + 1)]


def windows(options: Options, ids: np.ndarray) -> np.ndarray:
    """The text cut into windows of context + 1 characters that share one, what is left over dropped: (n, t + 1)."""
    t = options.context
    starts = np.arange(0, len(ids) - t, t)
    return ids[starts[:, None] + np.arange(t + 1)]
