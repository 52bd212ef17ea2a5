"""Shipped configs fit the settings; wrong settings are listed, every one; formats and recipes are what they
say."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning import CONF, shipped

from toolkit.errors import ConfigError
from toolkit.learn import catalogue, recipe
from toolkit.learn.checks import check
from toolkit.learn.settings import (
    DataSettings,
    Decay,
    Device,
    ExportSettings,
    Format,
    ModelSettings,
    TrainSettings,
    from_json,
    to_json,
)
from toolkit.preprocess import Preprocess

GROUPS: dict[str, type[Any]] = {
    "data": DataSettings,
    "model": ModelSettings,
    "train": TrainSettings,
    "export": ExportSettings,
}
FILES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def loaded(group: str, name: str) -> Any:
    values = shipped(group, name)
    if group == "model":
        values["from_"] = values.pop("from")
    return from_json(GROUPS[group], values)


@pytest.mark.parametrize(("group", "name"), FILES, ids="/".join)
def test_a_shipped_config_gives_every_setting_and_nothing_else(group: str, name: str) -> None:
    settings = loaded(group, name)
    keys = {field.name.rstrip("_") for field in dataclasses.fields(settings)}
    assert set(shipped(group, name)) == keys
    assert from_json(GROUPS[group], json.loads(json.dumps(to_json(settings)))) == settings


@pytest.mark.parametrize(
    ("data", "model", "train", "side"),
    [
        ("digits", "resnet8", "digits", 32),
        ("cifar10", "resnet18", "cifar10_resnet18", 32),
        ("cifar10", "resnet50", "cifar10_resnet50", 224),
    ],
)
def test_the_shipped_combinations_have_no_problem(data: str, model: str, train: str, side: int) -> None:
    parts = (loaded("data", data), loaded("model", model), loaded("train", train), loaded("export", "auto"))
    assert check(*parts, [side, side]) == []


def test_every_problem_is_listed_with_its_key() -> None:
    problems = check(
        DataSettings(test_fraction=1.0, samples=-1),
        ModelSettings(name="resnet9", classes=1),
        TrainSettings(epochs=2, warmup_epochs=5, batch_size=0, lr_max=float("nan"), momentum=1.0),
        ExportSettings(format=Format.air, batch_size=0, output_name="x"),
        [32, 32],
    )
    keys = {problem.split(":")[0] for problem in problems}
    assert keys == {
        "data.test_fraction", "data.samples", "model.name", "model.classes", "train.warmup_epochs",
        "train.batch_size", "train.lr_max", "train.momentum", "export.format", "export.batch_size",
        "export.input_name",
    }  # fmt: skip
    assert any("did you mean resnet8?" in problem for problem in problems)
    ignored = dataclasses.replace(loaded("data", "cifar10"), test_fraction=0.5)
    (problem,) = check(ignored, ModelSettings(), TrainSettings(), ExportSettings(), [32, 32])
    assert problem.startswith("data.test_fraction: CIFAR-10 brings its own split")


def test_pictures_too_small_for_the_network_are_a_problem() -> None:
    parts = (DataSettings(), ModelSettings(name="resnet50"), TrainSettings(), ExportSettings())
    assert check(*parts, [31, 224]) == ["preprocess.size: [31, 224] is too small, resnet50 takes 32 a side"]


@pytest.mark.parametrize(
    ("format", "device", "written"),
    [
        ("auto", "Ascend", "air"),
        ("auto", "CPU", "onnx"),
        ("auto", "GPU", "onnx"),
        ("onnx", "Ascend", "onnx"),
        ("air", "Ascend", "air"),
        ("mindir", "CPU", "mindir"),
        (Format.auto, Device.CPU, "onnx"),
    ],
)
def test_the_format_that_is_written(format: str, device: str, written: str) -> None:
    assert catalogue.check_format(format, device) == written


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_air_is_refused_without_ascend_and_the_way_out_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match="only on Ascend") as caught:
        catalogue.check_format("air", device)
    assert "export.format=onnx" in caught.value.hint


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"export\.format=om"):
        catalogue.check_format("om", "CPU")


def test_the_model_zoos_learning_rates() -> None:
    settings = loaded("train", "cifar10_resnet50")
    rates = recipe.learning_rates(settings, 1562)
    assert rates.shape == (90 * 1562,)
    assert rates.dtype == np.float32
    warmup = 5 * 1562
    assert rates[0] == pytest.approx(0.01 + 0.09 / warmup)
    assert rates[warmup - 1] == rates[warmup] == pytest.approx(0.1)
    total = len(rates)
    middle = (warmup + total) // 2
    assert rates[middle] == pytest.approx(0.1 * (1 - (middle - warmup) / (total - warmup)) ** 2)
    assert (np.diff(rates[warmup:]) <= 0).all()
    assert 0 < rates[-1] < 1e-9


@pytest.mark.parametrize(
    ("decay", "quarter", "end"),
    [
        (Decay.poly, 0.1 * 0.75**2, 0.1 * 0.01**2),
        (Decay.cosine, 0.02 + 0.08 * 0.8535534, 0.02),
        (Decay.linear, 0.08, 0.02),
        (Decay.constant, 0.1, 0.1),
    ],
)
def test_each_decay_has_its_own_curve(decay: Decay, quarter: float, end: float) -> None:
    settings = TrainSettings(epochs=12, warmup_epochs=2, decay=decay, lr_init=0.04, lr_max=0.1, lr_end=0.02)
    rates = recipe.learning_rates(settings, 10)
    assert rates[:20] == pytest.approx([0.04 + 0.003 * step for step in range(1, 21)])
    assert rates[45] == pytest.approx(quarter)
    assert rates[-1] == pytest.approx(end, abs=1e-3)


@given(
    epochs=st.integers(1, 20),
    warmup=st.integers(0, 25),
    steps=st.integers(1, 30),
    decay=st.sampled_from(Decay),
)
def test_learning_rates_stay_between_their_limits(epochs: int, warmup: int, steps: int, decay: Decay) -> None:
    settings = TrainSettings(
        epochs=epochs, warmup_epochs=warmup, decay=decay, lr_init=0.01, lr_max=0.1, lr_end=0.001
    )
    rates = recipe.learning_rates(settings, steps)
    assert rates.shape == (epochs * steps,)
    assert rates.max() <= 0.1 + 1e-6
    assert rates.min() >= (0 if decay is Decay.poly else 0.001 - 1e-6)
    if warmup < epochs:
        assert rates[warmup * steps] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"loaders": 7}, True),
        ({"keep_checkpoints": 5}, True),
        ({"evaluate_every": 3}, True),
        ({"seed": 2}, False),
        ({"epochs": 13}, False),
        ({"threads": 99}, False),
        ({"decay": Decay.poly}, False),
    ],
)
def test_a_recipes_digest_changes_with_what_decides_the_weights(change: dict[str, Any], same: bool) -> None:
    base = TrainSettings()
    before = recipe.digest(ModelSettings(), Preprocess(), base, "data")
    after = recipe.digest(ModelSettings(), Preprocess(), dataclasses.replace(base, **change), "data")
    assert (before == after) is same
    assert recipe.digest(ModelSettings(), Preprocess(), base, "other data") != before


def test_nothing_but_the_worker_imports_mindspore() -> None:
    """415 MB and two seconds that `deploy plan` must not pay."""
    modules = "checks, catalogue, data, download, digits, layout, recipe, settings, training_job, worker"
    heavy = "{'mindspore', 'sklearn', 'onnx', 'onnxruntime'}"
    code = f"import sys; from toolkit.learn import {modules}; sys.exit(bool({heavy} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
