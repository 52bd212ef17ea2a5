"""What the tests of learning share: shipped configs, and a training that was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolkit.learn.settings import TrainSettings, from_json
from toolkit.preprocess import Preprocess
from toolkit.ui.events import Event

CONF = Path(__file__).resolve().parents[2] / "conf"


def shipped(group: str, name: str) -> dict[str, Any]:
    """The keys of a shipped config."""
    values: dict[str, Any] = yaml.safe_load((CONF / group / f"{name}.yaml").read_text("utf-8"))
    return values


def digits_recipe() -> TrainSettings:
    return from_json(TrainSettings, shipped("train", "digits"))


def digits_spec() -> Preprocess:
    return Preprocess(**shipped("preprocess", "digits"))


@dataclass
class Trained:
    """A training that was done: its folder of results and what it reported."""

    out: Path
    report: dict[str, Any]
    events: list[Event] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        return self.out / "model.ckpt"
