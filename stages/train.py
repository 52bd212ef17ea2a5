"""The trained network as a MindSpore checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolkit.config.schema import Config
from toolkit.learn import training_job
from toolkit.learn.settings import to_json
from toolkit.pipeline import Context

NAME = "train"
VERSION = 1
HELP = "train the network with MindSpore"


def needs(config: Config) -> Sequence[str]:
    return ("data",) if config.train.epochs > 0 else ()


def settings(config: Config) -> Mapping[str, Any]:
    model = to_json(config.model)
    model.pop("from_", None)
    if config.train.epochs == 0:
        # The seeded initial weights: nothing of the recipe, the data or the pictures decides them.
        return {
            "model": model,
            "epochs": 0,
            "seed": config.train.seed,
            "size": list(config.preprocess.size),
        }
    recipe = to_json(config.train)
    for key in ("where", "remote", "keep_checkpoints", "loaders"):
        recipe.pop(key, None)
    recipe["threads"] = training_job.threads(config.train)  # another number gives other weights
    spec = to_json(config.preprocess)
    for key in ("aipp",):
        spec.pop(key, None)
    return {"model": model, "train": recipe, "preprocess": spec}


def tools(config: Config) -> Mapping[str, str]:
    return {"mindspore": version("mindspore")}


def files(config: Config) -> Mapping[str, Path]:
    return {}


def run(context: Context) -> Mapping[str, Any]:
    config = context.config
    report = training_job.train(
        context.inputs.get("data"),
        config.model,
        config.preprocess,
        config.train,
        config.data,
        out=context.out,
        work=context.work,
        emit=context.emit,
    )
    return report
