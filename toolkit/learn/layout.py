"""CIFAR-10's binary layout: one label byte and 3,072 bytes of picture a record, planes red, green, blue of
32×32.

Described on https://www.cs.toronto.edu/~kriz/cifar.html ("Binary version"). A folder has ``data_batch_1.bin``
and so on to train with, ``test_batch.bin`` held out, and ``batches.meta.txt`` with the names of the classes,
one a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import InputError

SIDE = 32
PICTURE_BYTES = 3 * SIDE * SIDE
RECORD_BYTES = 1 + PICTURE_BYTES
META = "batches.meta.txt"
TEST = "test_batch.bin"
CIFAR10_RECORDS = 10_000
CIFAR10_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), TEST)

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


def read_records(path: Path) -> tuple[Images, Labels]:
    """Return the pictures uint8 [N,32,32,3] (RGB) and their labels int32 [N] of one file.

    InputError where the file can't be read, is empty, or isn't a whole number of records.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}", hint="point data.root at the extracted dataset"
        ) from None
    if not data or len(data) % RECORD_BYTES:
        raise InputError(
            f"{path}: {len(data):,} bytes are not a whole number of records of {RECORD_BYTES:,} bytes",
            hint="the file is cut or not in CIFAR-10's binary layout: fetch it again",
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int32)


def write_records(path: Path, images: Images, labels: npt.NDArray[Any]) -> None:
    """Write pictures uint8 [N,32,32,3] (RGB) and labels [N] (0…255) as one file."""
    records = np.empty((len(images), RECORD_BYTES), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = images.transpose(0, 3, 1, 2).reshape(len(images), PICTURE_BYTES)
    path.write_bytes(records.tobytes())


def read_classes(folder: Path) -> list[str]:
    """Return the names of the classes, in the order of their labels; InputError without a readable list."""
    path = folder / META
    try:
        names = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}", hint="it holds the class names, one a line") from None
    return [name.strip() for name in names if name.strip()]


def write_classes(folder: Path, names: Sequence[str]) -> None:
    """Write the names of the classes, one a line, as CIFAR-10 has them."""
    (folder / META).write_text("".join(f"{name}\n" for name in names), "utf-8")


def read_split(folder: Path, split: str) -> tuple[Images, Labels]:
    """Return ``train`` (data_batch_*.bin, in order of their numbers), ``test``, or ``all`` (train first)."""
    train = sorted(folder.glob("data_batch_*.bin"), key=lambda path: (len(path.name), path.name))
    test = [folder / TEST]
    paths = {"train": train, "test": test, "all": train + test}[split]
    if not paths:
        raise InputError(
            f"{folder}: no data_batch_*.bin in it", hint="point data.root at the extracted dataset"
        )
    parts = [read_records(path) for path in paths]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def cifar10_defects(folder: Path) -> list[str]:
    """Return all that is wrong with a folder which should be the real CIFAR-10, one line each."""
    problems = []
    for name in CIFAR10_FILES:
        path = folder / name
        expected = CIFAR10_RECORDS * RECORD_BYTES
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        size = path.stat().st_size
        if size != expected:
            problems.append(f"{name} has {size:,} bytes instead of {expected:,}")
            continue
        labels = np.memmap(path, np.uint8, "r").reshape(-1, RECORD_BYTES)[:, 0]
        wrong = np.flatnonzero(labels > 9)
        if wrong.size:
            problems.append(
                f"{name} has {wrong.size:,} labels outside 0..9 (record {wrong[0]:,}: {labels[wrong[0]]})"
            )
    try:
        count = len(read_classes(folder))
        if count != 10:
            problems.append(f"{META} names {count} classes instead of 10")
    except InputError:
        problems.append(f"{META} is missing")
    return problems
