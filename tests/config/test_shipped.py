"""Every option of every group that is shipped composes, and fits the schema and its checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from toolkit.config.store import load, register_resolvers
from toolkit.paths import CONF

# What an option wants besides itself.
WITH = {
    "data=cifar10": ["preprocess=cifar10"],
    "export=air": ["train.device_target=Ascend"],
    "export=mindir": ["train.device_target=Ascend"],
    "model=resnet50": ["preprocess=cifar10"],
    "preprocess=cifar10": ["data=cifar10"],
    "preprocess=cifar10_tutorial": ["data=cifar10"],
    "quantise=amct": ["export=onnx"],
    "sign=ssh-key": ["sign.key=id_ed25519"],
    "store=shared": ["store.url=shared"],
    "train=cifar10_resnet50": ["data=cifar10"],
    "train=cifar10_resnet18": ["data=cifar10"],
}


def options() -> Iterator[str]:
    """``group=option`` for all that can be typed."""
    root = (CONF / "deploy.yaml").read_text(encoding="utf-8")
    for group in re.findall(r"^  - (\w+): ", root, re.MULTILINE):
        for path in sorted((CONF / group).glob("*.yaml")):
            yield f"{group}={path.stem}"


@pytest.mark.parametrize("option", list(options()))
def test_it_composes_and_is_valid(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("deploy", ["+board=200dk", "app=digits", option, *WITH.get(option, [])])
    assert load(composed).board is not None


def test_nothing_is_shipped_that_cannot_be_picked() -> None:
    parts = {"access", "cann"}  # of board profiles
    picked = {option.split("=")[0] for option in options()} | {"board"}
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == picked | parts
