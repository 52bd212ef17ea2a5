"""One prepared dataset and one real training, shared by all tests of learning."""

from __future__ import annotations

from pathlib import Path

import pytest
from learning import Trained, digits_recipe, digits_spec, shipped

from toolkit.learn import data, training_job
from toolkit.learn.layout import read_split, write_classes, write_records
from toolkit.learn.settings import DIGIT_NAMES, DataSettings, ModelSettings, from_json
from toolkit.ui.events import Event, ignore


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped digits in CIFAR-10's layout."""
    out = tmp_path_factory.mktemp("digits")
    data.prepare(from_json(DataSettings, shipped("data", "digits")), out, ignore, out / "cache")
    return out


@pytest.fixture(scope="session")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The shipped recipe on the digits, from start to end, in a folder that mindspore.export refuses."""
    root = tmp_path_factory.mktemp("a folder für alle")
    events: list[Event] = []
    report = training_job.train(
        digits,
        ModelSettings(),
        digits_spec(),
        digits_recipe(),
        DataSettings(),
        out=root / "out",
        work=root / "work",
        emit=events.append,
    )
    return Trained(root / "out", report, events)


@pytest.fixture(scope="session")
def few(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 training and 64 held-out digits: 15 steps an epoch."""
    out = tmp_path_factory.mktemp("few")
    for split, name, count in (("train", "data_batch_1.bin", 480), ("test", "test_batch.bin", 64)):
        images, labels = read_split(digits, split)
        write_records(out / name, images[:count], labels[:count])
    write_classes(out, DIGIT_NAMES)
    return out
