"""What the tests of learning share: shipped configs, and a training that was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolkit.learn.settings import Decay, TrainSettings, from_json
from toolkit.preprocess import Preprocess
from toolkit.ui.events import Event

CONF = Path(__file__).resolve().parents[2] / "conf"

STEP = TrainSettings(
    epochs=1, batch_size=16, lr_init=0.05, lr_max=0.05, warmup_epochs=0, decay=Decay.constant, momentum=0.9,
    weight_decay=0.02, loss_scale=1024.0, threads=1,
)  # fmt: skip
"""One step with a weight decay large enough to be seen."""


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
