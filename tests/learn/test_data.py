"""Datasets: what is made is right and always the same; what is wrong is said, all of it, in one line."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from learning import shipped
from PIL import Image

from toolkit.errors import InputError
from toolkit.learn import data, digits
from toolkit.learn.layout import (
    CIFAR10_FILES,
    RECORD_BYTES,
    cifar10_defects,
    read_records,
    read_split,
    write_classes,
    write_records,
)
from toolkit.learn.settings import CIFAR10_NAMES, DIGIT_NAMES, DataKind, DataSettings, class_names, from_json
from toolkit.ui.events import ignore

CIFAR10 = from_json(DataSettings, shipped("data", "cifar10"))


def contents(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


# digits


def test_digits_are_split_1437_to_360_with_every_class_in_proportion(digits: Path) -> None:
    assert {path.name for path in digits.glob("*.*")} == {
        "data_batch_1.bin",
        "test_batch.bin",
        "batches.meta.txt",
    }
    assert (digits / "test_batch.bin").stat().st_size == 360 * 3073
    (_, train), (_, test) = read_split(digits, "train"), read_split(digits, "test")
    assert (len(train), len(test)) == (1437, 360)
    everywhere = np.bincount(np.concatenate([train, test]))
    assert np.abs(np.bincount(test) - everywhere * 360 / 1797).max() < 1


def test_no_picture_is_held_out_and_trained_with(digits: Path) -> None:
    made, labels = data.digits.enlarged()
    expected = Counter(image.tobytes() + bytes([label]) for image, label in zip(made, labels, strict=True))
    images, answers = read_split(digits, "all")
    assert Counter(i.tobytes() + bytes([a]) for i, a in zip(images, answers, strict=True)) == expected


def test_digits_look_like_scikit_learns(digits: Path) -> None:
    from sklearn.datasets import load_digits

    made, _ = data.digits.enlarged()
    small = np.stack([np.asarray(Image.fromarray(one).resize((8, 8), Image.Resampling.BOX)) for one in made])
    assert np.corrcoef(small.mean(axis=3).ravel(), load_digits().images.ravel())[0, 1] > 0.98
    assert (made[..., 0] == made[..., 1]).all()


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(digits: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    data.prepare(DataSettings(), again, ignore, tmp_path / "cache")
    data.prepare(DataSettings(seed=1), other, ignore, tmp_path / "cache")
    assert contents(again) == contents(digits)
    assert contents(other)["test_batch.bin"] != contents(digits)["test_batch.bin"]
    assert not (tmp_path / "cache").exists()


@given(
    labels=arrays.arrays(np.int32, st.integers(10, 300), elements=st.integers(0, 9)),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
)
def test_as_many_are_held_out_as_asked_for(labels: np.ndarray, fraction: float, seed: int) -> None:
    chosen = digits.held_out(labels, fraction, seed)
    assert chosen.sum() == int(np.ceil(fraction * len(labels)))
    share = np.bincount(labels, minlength=10) * chosen.sum() / len(labels)
    assert np.abs(np.bincount(labels[chosen], minlength=10) - share).max() < 1


# the layout


@given(count=st.integers(1, 20), seed=st.integers(0, 99))
def test_records_survive_being_written(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = random.integers(0, 256, count)
    path = tmp_path_factory.mktemp("records") / "data_batch_1.bin"
    write_records(path, images, labels)
    got, answers = read_records(path)
    assert (got == images).all()
    assert (answers == labels).all()
    # Label first, then the red plane, row by row, as the dataset's page has it.
    raw = path.read_bytes()
    assert raw[0] == labels[0]
    assert raw[1] == images[0, 0, 0, 0]
    assert raw[2] == images[0, 0, 1, 0]
    assert raw[1 + 1024] == images[0, 0, 0, 1]
    assert raw[1 + 32] == images[0, 1, 0, 0]


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_a_file_that_is_not_whole_records_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * size)
    with pytest.raises(InputError, match=r"not a whole number of records"):
        read_records(tmp_path / "test_batch.bin")


# real CIFAR-10


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files of CIFAR-10's size with labels 0..9 and noise for pictures, below a parent folder."""
    parent = tmp_path_factory.mktemp("parent")
    folder = parent / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (10_000, RECORD_BYTES), np.uint8)
    noise[:, 0] = np.arange(10_000) % 10
    for name in CIFAR10_FILES:
        (folder / name).write_bytes(noise.tobytes())
    write_classes(folder, CIFAR10_NAMES)
    return parent


@pytest.fixture
def linked(full_size: Path, tmp_path: Path) -> Path:
    """The same, as hard links: a test may replace files (not write into them)."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for path in (full_size / folder.name).iterdir():
        os.link(path, folder / path.name)
    return folder


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_a_whole_folder_or_its_parent_is_taken(full_size: Path, tmp_path: Path, below: str) -> None:
    settings = from_json(DataSettings, {**shipped("data", "cifar10"), "root": str(full_size / below)})
    prepared = data.prepare(settings, tmp_path / "out", ignore, tmp_path / "cache")
    assert (prepared.train, prepared.test, prepared.classes) == (50_000, 10_000, CIFAR10_NAMES)
    assert contents(tmp_path / "out") == contents(full_size / "cifar-10-batches-bin")


def test_every_defect_is_named_in_one_line(linked: Path, tmp_path: Path) -> None:
    (linked / "data_batch_2.bin").unlink()
    (linked / "data_batch_3.bin").unlink()
    (linked / "data_batch_3.bin").write_bytes(b"\0" * 3073 * 9_999)
    wrong = np.fromfile(linked / "data_batch_4.bin", np.uint8)
    wrong[7 * RECORD_BYTES] = 10
    (linked / "data_batch_4.bin").unlink()
    wrong.tofile(linked / "data_batch_4.bin")
    (linked / "batches.meta.txt").unlink()
    settings = from_json(DataSettings, {**shipped("data", "cifar10"), "root": str(linked)})
    with pytest.raises(InputError) as caught:
        data.prepare(settings, tmp_path / "out", ignore, tmp_path / "cache")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.hint
    for defect in (
        "data_batch_2.bin is missing",
        "data_batch_3.bin has 30,726,927 bytes instead of 30,730,000",
        "data_batch_4.bin has 1 labels outside 0..9 (record 7: 10)",
        "batches.meta.txt is missing",
    ):
        assert defect in message
    assert "data_batch_1.bin" not in message
    assert len(cifar10_defects(linked)) == 4


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = DataSettings(kind=DataKind.cifar10, root=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        data.prepare(settings, tmp_path / "out", ignore, tmp_path / "cache")


def test_a_prepared_folder_of_another_size_is_taken_for_digits(digits: Path, tmp_path: Path) -> None:
    prepared = data.prepare(DataSettings(root=str(digits)), tmp_path / "out", ignore, tmp_path / "cache")
    assert (prepared.train, prepared.test) == (1437, 360)
    assert contents(tmp_path / "out") == contents(digits)


def test_labels_beyond_the_named_classes_are_refused(digits: Path, tmp_path: Path) -> None:
    for path in digits.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_classes(tmp_path, ["zero", "one"])
    with pytest.raises(InputError, match=r"data_batch_1.bin has label 9, batches.meta.txt names 2 classes"):
        data.prepare(DataSettings(root=str(tmp_path)), tmp_path / "out", ignore, tmp_path / "cache")


def packed(folder: Path, archive: Path, extra: dict[str, bytes | str]) -> None:
    """Pack a folder, and besides, members by name: bytes as a file, text as a link to it."""
    with tarfile.open(archive, "w") as tar:
        for name, content in extra.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        tar.add(folder, folder.name)


def test_an_archive_put_into_the_cache_needs_no_network(full_size: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    cache, out = place / "cache", place / "out"
    cache.mkdir(parents=True)
    extra: dict[str, bytes | str] = {
        "../escaped.txt": b"x",
        "/tmp/data_batch_9.bin": b"x",
        "cifar-10-batches-bin/link": "/etc",
        "cifar-10-batches-bin/link/passwd": b"x",
    }
    packed(full_size / "cifar-10-batches-bin", cache / "cifar.tar", extra)
    settings = DataSettings(kind=DataKind.cifar10, url="http://127.0.0.1:9/cifar.tar", archive="cifar.tar")
    assert data.prepare(settings, out, ignore, cache).train == 50_000
    assert {path.name for path in (cache / "cifar-10-batches-bin").iterdir()} == {
        *CIFAR10_FILES,
        "batches.meta.txt",
    }
    assert {path.name for path in place.iterdir()} == {"cache", "out"}
    assert {path.name for path in cache.iterdir()} == {"cifar.tar", "cifar-10-batches-bin"}


def test_a_wrong_archive_in_the_cache_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"14 bytes instead of 170,052,171"):
        data.prepare(CIFAR10, tmp_path / "out", ignore, tmp_path)


def test_an_archive_without_the_dataset_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    packed(tmp_path / "other", tmp_path / "cifar.tar", {})
    settings = DataSettings(kind=DataKind.cifar10, url="http://127.0.0.1:9/cifar.tar", archive="cifar.tar")
    with pytest.raises(InputError, match=r"data_batch_1.bin is missing.*batches.meta.txt is missing"):
        data.prepare(settings, tmp_path / "out", ignore, tmp_path)


# samples


def test_samples_are_held_out_pictures_two_of_each_class(digits: Path, tmp_path: Path) -> None:
    paths = data.sample_pictures(DataSettings(), digits, tmp_path, 20)
    images, labels = read_split(digits, "test")
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = {row["picture"]: int(row["label"]) for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(path.name for path in paths)
    assert np.bincount(list(rows.values())).tolist() == [2] * 10
    for path in paths:
        record = int(path.stem.rsplit("_")[-1])
        assert (np.asarray(Image.open(path)) == images[record]).all()
        assert labels[record] == rows[path.name]


def test_samples_are_the_same_every_time_and_no_more_than_there_are(digits: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "test_batch.bin", *(part[:7] for part in read_split(digits, "test")))
    write_classes(tmp_path, DIGIT_NAMES)
    first = data.sample_pictures(DataSettings(), tmp_path, tmp_path / "out", 20)
    before = {path.name: path.read_bytes() for path in first}
    assert len(first) == 7
    assert {
        path.name: path.read_bytes() for path in data.sample_pictures(DataSettings(), tmp_path, tmp_path / "out", 20)
    } == before


def test_class_names_are_the_datasets_own(digits: Path) -> None:
    assert class_names(DataSettings()) == tuple((digits / "batches.meta.txt").read_text().split())
    assert class_names(CIFAR10)[3] == "cat"
