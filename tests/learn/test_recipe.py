"""What the recipe does to weights and pictures, against the same computed another way (``by_hand.py``)."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from learning import STEP, digits_spec

from toolkit.learn import training_job
from toolkit.learn.layout import read_split, write_classes, write_records
from toolkit.learn.settings import DIGIT_NAMES, DataSettings, ModelSettings
from toolkit.ui.events import ignore

pytestmark = pytest.mark.learn

HERE = Path(__file__).resolve().parent
CLOSE = 1e-5
"""Of weights after a step; what is wrong moves them by a hundredfold."""


def by_hand(folder: Path, *arguments: str) -> Any:
    environment = dict(os.environ, PYTHONPATH=f"{HERE.parents[1]}{os.pathsep}{HERE}", ONEDNN_MAX_CPU_ISA="AVX2")
    command = [sys.executable, str(HERE / "by_hand.py"), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_step_is_momentum_with_decay_for_weights_alone_and_an_unscaled_loss(tmp_path: Path) -> None:
    found = by_hand(tmp_path, "steps")
    assert max(found["apart"]) < CLOSE
    assert found["decayed"] == 10
    assert {name.rpartition(".")[2] for name in found["kept"]} == {"gamma", "beta", "bias"}


def test_crops_mirrors_and_the_workers_parts(tmp_path: Path) -> None:
    found = by_hand(tmp_path, "pictures")
    assert 250 < found.pop("mirrored") < 350, "half of 600"
    assert found == {
        "offsets": 9,
        "mirrored without flip": 0,
        "the same again": True,
        "the same in another epoch": False,
        "two workers see what one with twice the batch does": True,
        "the same order in another epoch": False,
        "records of an epoch": 600,
    }


def test_two_workers_take_the_step_of_their_mean_gradient(digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, name, count in (("train", "data_batch_1.bin", 32), ("test", "test_batch.bin", 10)):
        images, labels = read_split(digits, split)
        write_records(data / name, images[:count], labels[:count])
    write_classes(data, DIGIT_NAMES)
    settings = dataclasses.replace(STEP, workers=2)
    out = tmp_path / "out"
    report = training_job.train(
        data, ModelSettings(), digits_spec(), settings, DataSettings(), out=out,
        work=tmp_path / "work", emit=ignore,
    )  # fmt: skip
    found = by_hand(tmp_path, "workers", str(data), str(out / "last.ckpt"))
    assert found["apart"] < CLOSE
    assert found["apart from one of them"] > 100 * CLOSE
    one, other = found["losses"]
    assert report["loss"] == pytest.approx((one + other) / 2, abs=CLOSE)
    assert abs(one - other) > 100 * CLOSE
