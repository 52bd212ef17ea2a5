"""Records into batches, with MindSpore's dataset pipeline.

The order of an epoch and its random crops and mirrors are drawn from (seed, epoch, record) with NumPy, not by
MindSpore's random operations: those draw from a state of the process and of each worker, so that neither a
resumed training nor another number of loaders would see the same pictures.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import numpy.typing as npt

from toolkit.learn.layout import Images, Labels
from toolkit.learn.settings import TrainSettings
from toolkit.preprocess import Preprocess, mindspore_transforms


class Records:
    """A random-access source: record ``i`` is a picture uint8 [H,W,3] and a label int32 [1].

    Scalar labels fail in GeneratorDataset with NumPy 2, hence the shape (1,).
    """

    def __init__(self, images: Images, labels: Labels, order: npt.NDArray[np.int64]) -> None:
        self.images = images
        self.labels = labels.astype(np.int32).reshape(-1, 1)
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        record = int(self.order[index])
        return self.images[record], self.labels[record]


class Varied(Records):
    """Records with random crops and mirrors, as ModelZoo's recipe for CIFAR-10 has them."""

    def __init__(
        self,
        images: Images,
        labels: Labels,
        order: npt.NDArray[np.int64],
        crop: int,
        flip: bool,
        seed: list[int],
    ) -> None:
        super().__init__(images, labels, order)
        self.crop = crop
        random = np.random.default_rng([*seed, 1])
        # Drawn for all records at once: what a record gets depends on neither loaders nor batches.
        self.offsets = random.integers(0, 2 * crop + 1, (len(images), 2))
        self.mirrored = (random.random(len(images)) < 0.5) & flip

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        image, label = super().__getitem__(index)
        record = int(self.order[index])
        if self.crop:
            height, width = image.shape[:2]
            padded = np.pad(image, ((self.crop, self.crop), (self.crop, self.crop), (0, 0)))
            top, left = self.offsets[record]
            image = padded[top : top + height, left : left + width]
        if self.mirrored[record]:
            image = image[:, ::-1]
        return np.ascontiguousarray(image), label


def loaders(wanted: int) -> int:
    """At most one a core: MindSpore raises ValueError for more."""
    return max(1, min(wanted, os.cpu_count() or 1))


def training_batches(
    images: Images, labels: Labels, spec: Preprocess, settings: TrainSettings, epoch: int, rank: int = 0
) -> Iterator[tuple[ms.Tensor, ms.Tensor]]:
    """Yield the batches of ``epoch`` (from 1), float32 [B,3,H,W] and int32 [B], whole ones only.

    Of ``settings.workers`` processes each, by its ``rank``, gets its own part of every step's pictures.
    """
    seed = [settings.seed, epoch]
    order = np.random.default_rng([*seed, 0]).permutation(len(images))
    if settings.workers > 1:
        whole = len(images) // (settings.batch_size * settings.workers)
        steps = order[: whole * settings.workers * settings.batch_size]
        order = steps.reshape(whole, settings.workers, settings.batch_size)[:, rank].reshape(-1)
    source: Records
    if settings.crop or settings.flip:
        source = Varied(images, labels, order, settings.crop, settings.flip, seed)
    else:
        source = Records(images, labels, order)
    yield from _batches(source, spec, settings.batch_size, settings.loaders, drop_remainder=True)


def evaluation_batches(
    images: Images, labels: Labels, spec: Preprocess, batch_size: int, wanted_loaders: int
) -> Iterator[tuple[ms.Tensor, npt.NDArray[np.int32]]]:
    """Yield every record once, in order: float32 [B,3,H,W], and the labels of those that count, int32 [≤ B].

    The last batch is filled up with the first record: another shape would be another graph to compile.
    """
    missing = -len(images) % batch_size
    order = np.concatenate([np.arange(len(images)), np.zeros(missing, np.int64)])
    left = len(images)
    batches = _batches(Records(images, labels, order), spec, batch_size, wanted_loaders, drop_remainder=False)
    for pictures, answers in batches:
        yield pictures, answers.asnumpy()[: min(left, batch_size)]
        left -= batch_size


def _batches(
    source: Records, spec: Preprocess, batch_size: int, wanted_loaders: int, *, drop_remainder: bool
) -> Iterator[tuple[ms.Tensor, ms.Tensor]]:
    dataset: Any = ds.GeneratorDataset(
        source, ["image", "label"], shuffle=False, num_parallel_workers=1, python_multiprocessing=False
    )
    # The network is always trained channels first; an exported one for NHWC turns its input by itself.
    channels_first = dataclasses.replace(spec, layout="NCHW")
    operations = mindspore_transforms(channels_first, False, source=source.images.shape[1:3])
    dataset = dataset.map(operations, ["image"], num_parallel_workers=loaders(wanted_loaders))
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder, num_parallel_workers=1)
    for pictures, answers in dataset.create_tuple_iterator(num_epochs=1):
        yield pictures, answers.reshape((-1,))
