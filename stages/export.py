"""The network in a format that ATC reads, and as ONNX for the reference where that is possible."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolkit.cann.model_file import check_model_file
from toolkit.config.schema import Config
from toolkit.learn import training_job
from toolkit.learn.settings import Where, to_json
from toolkit.pipeline import Context

NAME = "export"
VERSION = 1
HELP = "export the network to AIR or ONNX"


def _given(config: Config) -> Path | None:
    """The file of the user's own that comes in here, if any."""
    return Path(config.model.from_).expanduser() if config.model.from_ else None


def needs(config: Config) -> Sequence[str]:
    return () if config.model.from_ else ("train",)


def settings(config: Config) -> Mapping[str, Any]:
    given = _given(config)
    if given is not None and given.suffix != ".ckpt":
        return {"given": given.suffix}
    model = to_json(config.model)
    model.pop("from_", None)
    return {
        "model": model,
        "export": to_json(config.export),
        "device_target": config.train.device_target.value,
        "size": list(config.preprocess.size),
        "layout": config.preprocess.layout,
    }


def tools(config: Config) -> Mapping[str, str]:
    given = _given(config)
    if given is not None and given.suffix != ".ckpt":
        return {}
    return {"mindspore": version("mindspore"), "onnx": version("onnx")}


def files(config: Config) -> Mapping[str, Path]:
    given = _given(config)
    if given is None:
        return {}
    check_model_file("model.from", given)
    return {"model.from": given}


def run(context: Context) -> Mapping[str, Any]:
    config, given = context.config, _given(context.config)
    if given is not None and given.suffix != ".ckpt":
        shutil.copyfile(given, context.out / f"model{given.suffix}")
        return {"summary": f"{given.name}, as it is"}
    if given is None and config.train.where is Where.modelarts:
        from toolkit.cloud import training as cloud_training  # and with it OBS and ModelArts, which few plans want

        exported = cloud_training.exported(config, context.inputs["train"], context.out)
        if exported is not None:
            return exported
    checkpoint = given if given is not None else context.inputs["train"] / "model.ckpt"
    return training_job.export(
        checkpoint,
        config.model,
        config.preprocess,
        config.export,
        config.train,
        out=context.out,
        work=context.work,
        emit=context.emit,
    )
