"""The stages' side of training in ModelArts: from the config to the job, and back from its results."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cloud import jobs
from toolkit.errors import ConfigError, InputError
from toolkit.learn import training_job
from toolkit.learn.catalogue import check_format
from toolkit.learn.settings import RemoteSettings, Where
from toolkit.ui.events import Emit

if TYPE_CHECKING:
    from toolkit.config.schema import Config


def job_of(config: Config) -> dict[str, dict[str, Any]]:
    """What the worker in the cloud shall do, without paths: no key and no host of anybody's is in it."""
    train = dataclasses.replace(config.train, where=Where.local, remote=RemoteSettings())
    check_format(config.export.format, config.train.device_target)
    nowhere = Path("/")
    trains = training_job.train_job(None, config.model, config.preprocess, train, nowhere)
    exports = training_job.export_job(
        nowhere, config.model, config.preprocess, config.export, config.train.device_target, nowhere
    )
    for job in (trains, exports):
        for key in ("data", "out", "state", "checkpoint"):
            job.pop(key, None)
        job["model"].pop("from_", None)
    return {"train": trains, "export": exports}


def train(
    config: Config, data: Path | None, *, out: Path, work: Path, emit: Emit, attach: bool = False
) -> dict[str, Any]:
    """Train in ModelArts; ``out`` becomes what a local training leaves there, with ``export/`` besides."""
    cloud = jobs.Cloud(config.store.obs, config.modelarts)
    report = jobs.train(cloud, job_of(config), data, app=config.app.name, out=out, work=work, emit=emit, attach=attach)
    done = training_job.finished(report, config.model, config.train, config.data, out)
    return {**done, "summary": f"{done['summary']}, in ModelArts"}


def exported(config: Config, trained: Path, out: Path) -> Mapping[str, Any] | None:
    """Take the exported network that came with the training, if it is the one that is wanted now.

    None where another format or shape is wanted and this machine can export it from the checkpoint.
    ConfigError where only an Ascend could.
    """
    folder = trained / "export"
    if not folder.is_dir():
        return None
    try:
        made = json.loads((folder / "export.json").read_text("utf-8"))
        result, settings = dict(made["export"]), made["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: not what a training in ModelArts leaves", hint="train it anew") from None
    if settings != job_of(config)["export"]:
        if check_format(config.export.format, config.train.device_target) == "air":
            raise ConfigError(
                "export: the AIR of the training was made with other settings; only an Ascend exports AIR",
                hint="train it anew, or take export.format=onnx",
            )
        return None
    for path in sorted(folder.iterdir()):
        if path.name != "export.json":
            shutil.copyfile(path, out / path.name)
    return {**result, "summary": f"{result['file']}, made in ModelArts"}
