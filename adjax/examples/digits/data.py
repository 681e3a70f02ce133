"""The handwritten digits that scikit-learn bundles: 1797 real images of 8 x 8 pixels, ten classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CLASSES = 10
SIDE = 8
PIXELS = SIDE**2
TEST_SHARE = 0.2


class Digits(NamedTuple):
    """Images scaled for training and their labels, split in two.

    X is (n, 64): pixels less the mean training image, divided by their overall standard deviation. `images` are the
    test images as they were drawn, (n, 8, 8) in [0, 16].
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    images: np.ndarray


def load(seed: int) -> Digits:
    """Split the images at random into 80 % training and 20 % test, every digit in the same proportion in both.

    Mean and standard deviation are those of the training images: nothing of the test images enters training.
    """
    bundled = load_digits()
    train, test, y_train, y_test = train_test_split(
        bundled.images, bundled.target, test_size=TEST_SHARE, stratify=bundled.target, random_state=seed
    )
    mean, deviation = train.mean(axis=0), train.std(axis=(0, 1, 2))

    def scaled(images: np.ndarray) -> np.ndarray:
        return ((images - mean) / deviation).reshape(len(images), -1)

    return Digits(scaled(train), y_train, scaled(test), y_test, test)
