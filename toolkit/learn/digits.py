"""scikit-learn's handwritten digits (``load_digits``: 1,797 pictures of 8×8, grey values 0…16) as
CIFAR-10-like ones.

The pictures are those of the UCI set "Optical Recognition of Handwritten Digits" (its test part). They come
with scikit-learn, so no network is needed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from toolkit.learn.layout import SIDE, TEST, Images, Labels, write_classes, write_records
from toolkit.learn.settings import DIGIT_NAMES


def enlarged() -> tuple[Images, Labels]:
    """Return all digits, in scikit-learn's order: uint8 [1797,32,32,3] and int32 [1797]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    size = (SIDE, SIDE)
    large = np.stack(
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC), np.uint8) for one in grey]
    )
    return np.repeat(large[:, :, :, None], 3, axis=3), digits.target.astype(np.int32)


def held_out(labels: Labels, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which records are held out, bool [N]: ``ceil(fraction * N)``, every class in proportion."""
    random = np.random.default_rng(seed)
    wanted = math.ceil(fraction * len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * wanted / len(labels)
    share = np.floor(exact).astype(int)
    # What rounding down left over goes to the classes that lost most by it.
    share[np.argsort(share - exact, kind="stable")[: wanted - share.sum()]] += 1
    chosen = np.zeros(len(labels), bool)
    for label, number in zip(classes, share, strict=True):
        chosen[random.permutation(np.flatnonzero(labels == label))[:number]] = True
    return chosen


def write(out: Path, fraction: float, seed: int) -> None:
    """Write the digits in CIFAR-10's layout: one batch to train with, one held out, the names."""
    images, labels = enlarged()
    test = held_out(labels, fraction, seed)
    write_records(out / "data_batch_1.bin", images[~test], labels[~test])
    write_records(out / TEST, images[test], labels[test])
    write_classes(out, DIGIT_NAMES)
