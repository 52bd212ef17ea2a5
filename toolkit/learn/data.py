"""A dataset in CIFAR-10's binary layout, wherever it comes from, and held-out pictures as files."""

from __future__ import annotations

import csv
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.errors import InputError
from toolkit.learn import digits
from toolkit.learn.download import Download
from toolkit.learn.layout import (
    CIFAR10_FILES,
    CIFAR10_RECORDS,
    META,
    RECORD_BYTES,
    TEST,
    cifar10_defects,
    read_classes,
    read_records,
    read_split,
)
from toolkit.learn.settings import DataKind, DataSettings
from toolkit.ui.events import Emit, Event

FOLDER = "cifar-10-batches-bin"
LABELS = "labels.csv"


@dataclass(frozen=True)
class Prepared:
    """Numbers of pictures in a dataset, and the names of its classes in the order of their labels."""

    train: int
    test: int
    classes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.train:,} pictures to train with, {self.test:,} held out, {len(self.classes)} classes"


def prepare(settings: DataSettings, out: Path, emit: Emit, cache: Path) -> Prepared:
    """Put the dataset into ``out``: ``data_batch_*.bin``, ``test_batch.bin``, ``batches.meta.txt``.

    ``data.root`` is checked and copied; without it digits are made, and CIFAR-10 is taken from ``cache`` or
    downloaded into it. The same settings give the same bytes. InputError, one line that lists every defect,
    otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    if settings.root:
        _copy(_find_root(settings), out)
    elif settings.kind is DataKind.digits:
        assert settings.test_fraction is not None  # checks.py
        digits.write(out, settings.test_fraction, settings.seed)
    else:
        _copy(_cifar10_folder(settings, emit, cache), out)
    train, test = (len(read_split(out, split)[1]) for split in ("train", "test"))
    return Prepared(train, test, tuple(read_classes(out)))


def sample_pictures(settings: DataSettings, dataset: Path, out: Path, count: int) -> list[Path]:
    """Write ``count`` held-out pictures of ``dataset`` into ``out``, anew, and return their paths.

    PNG files of 32×32, named after class and record (``cat_00012.png``), and ``labels.csv`` with the columns
    ``picture,label`` (label: the class's number). Every class as often as the others, give or take one, drawn
    with ``data.seed``. Fewer where fewer are held out.
    """
    images, labels = read_records(dataset / TEST)
    names = read_classes(dataset)
    random = np.random.default_rng(settings.seed)
    queues = [list(random.permutation(np.flatnonzero(labels == label))) for label in range(len(names))]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        chosen.extend(int(queue.pop(0)) for queue in queues if queue)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows = []
    for record in sorted(chosen[:count], key=lambda record: (int(labels[record]), record)):
        word = re.sub(r"[^A-Za-z0-9]+", "-", names[int(labels[record])]).strip("-") or "class"
        path = out / f"{word}_{record:05d}.png"
        Image.fromarray(images[record]).save(path)
        rows.append((path.name, int(labels[record])))
    with (out / LABELS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("picture", "label"))
        writer.writerows(rows)
    return [out / name for name, _ in rows]


def _find_root(settings: DataSettings) -> Path:
    """Return the folder with the batches at or below ``data.root``, found whole."""
    root = Path(settings.root).expanduser()
    folder = next((place for place in (root, root / FOLDER) if (place / TEST).is_file()), None)
    if folder is None:
        folder = next((place for place in (root / FOLDER, root) if place.is_dir()), None)
    if folder is None:
        raise InputError(
            f"data.root={settings.root}: no such folder", hint="point it at the extracted dataset"
        )
    _refuse(settings, folder, _defects(settings, folder))
    return folder


def _defects(settings: DataSettings, folder: Path) -> list[str]:
    if settings.kind is DataKind.cifar10:
        return cifar10_defects(folder)
    problems = [f"{name} is missing" for name in (META, TEST) if not (folder / name).is_file()]
    batches = sorted(folder.glob("data_batch_*.bin"))
    if not batches:
        problems.append("data_batch_*.bin is missing")
    if problems:
        return problems
    classes = len(read_classes(folder))
    for path in (*batches, folder / TEST):
        try:
            highest = int(read_records(path)[1].max())
        except InputError as error:
            problems.append(str(error).replace(f"{path}: ", f"{path.name} has "))
            continue
        if highest >= classes:
            problems.append(f"{path.name} has label {highest}, {META} names {classes} classes")
    return problems


def _refuse(settings: DataSettings, folder: Path, problems: Sequence[str]) -> None:
    if problems:
        raise InputError(
            f"{folder}: not a whole {settings.name} dataset: {'; '.join(problems)}",
            hint="extract the archive again, or leave data.root empty",
        )


def _copy(folder: Path, out: Path) -> None:
    for path in (*sorted(folder.glob("data_batch_*.bin")), folder / TEST, folder / META):
        shutil.copyfile(path, out / path.name)


def _cifar10_folder(settings: DataSettings, emit: Emit, cache: Path) -> Path:
    """Return the extracted dataset in ``cache``, downloading and extracting what is missing."""
    folder = cache / FOLDER
    if folder.is_dir() and not cifar10_defects(folder):
        return folder
    download = Download(
        settings.url,
        cache / settings.archive,
        size=settings.size,
        md5=settings.md5,
        sha256=settings.sha256,
        timeout=settings.timeout,
        attempts=settings.attempts,
    )
    archive = download.target
    if archive.exists():
        problem = download.defect(archive)  # put there by hand, perhaps
        if problem:
            raise InputError(f"{archive}: {problem}", hint="remove it; it is downloaded then")
    else:
        emit(Event("log", f"downloading {settings.url}", stage="data"))
        download.fetch(emit)
    _extract(archive, folder)
    _refuse(settings, archive, cifar10_defects(folder))
    return folder


def _extract(archive: Path, folder: Path) -> None:
    """Extract the dataset's own files from ``archive`` as ``folder``, beside it first.

    Members are chosen by their names and written under names of ours, so no path, link or device in the
    archive can lead anywhere; none may be larger than a batch.
    """
    beside = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=folder.parent))
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                if name not in (*CIFAR10_FILES, META) or not member.isfile():
                    continue
                if member.size > CIFAR10_RECORDS * RECORD_BYTES:
                    raise InputError(f"{archive}: {name} has {member.size:,} bytes, too many for a batch")
                content = tar.extractfile(member)
                if content is not None:
                    with content, (beside / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
        os.chmod(beside, 0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"{archive} cannot be extracted: {error}", hint="remove it; it is downloaded again then"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
