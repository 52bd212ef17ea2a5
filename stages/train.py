"""The trained network as a MindSpore checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages._training_host import training_host
from toolkit.config.schema import Config
from toolkit.errors import UsageError
from toolkit.learn import over_ssh, summaries, training_job
from toolkit.learn.settings import Where, to_json
from toolkit.pipeline import Context
from toolkit.ui.events import Event

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
    deciding: dict[str, Any] = {"model": model, "train": recipe, "preprocess": spec}
    if config.train.where is not Where.local:
        # Other machines (ModelArts': the only ones that export to AIR): their results are not those of this one.
        recipe["threads"] = config.train.threads
        deciding["where"] = config.train.where.value
    return deciding


def tools(config: Config) -> Mapping[str, str]:
    if config.train.where is Where.modelarts:
        chosen = config.modelarts
        return {"modelarts": chosen.image_url or chosen.engine_id or f"{chosen.engine_name} {chosen.engine_version}"}
    if config.train.where is Where.ssh:
        return {"host": config.train.remote.host}
    return {"mindspore": version("mindspore")}


def files(config: Config) -> Mapping[str, Path]:
    return {}


def run(context: Context) -> Mapping[str, Any]:
    report = _train(context)
    folder = context.services.get("run_folder")
    if folder is not None and report["history"]:
        plain = {"model": to_json(context.config.model), "train": to_json(context.config.train)}
        try:
            summaries.write(folder / "mlflow", report, plain, context.config.app.name)
        except Exception as error:  # MLflow's own and its stores': no reason to lose a training
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            context.emit(Event("warning", f"no MLflow summary: {first}"))
    return report


def _train(context: Context) -> dict[str, Any]:
    config, data = context.config, context.inputs.get("data")
    attach = bool(context.services.get("attach"))
    if config.train.where is Where.modelarts:
        from toolkit.cloud import training as cloud_training  # and with it OBS and ModelArts, which few plans want

        return cloud_training.train(
            config, data, out=context.out, work=context.work, emit=context.emit, attach=attach
        )
    if attach and config.train.where is Where.local:
        raise UsageError("--attach: nothing trains elsewhere with train.where=local", hint="leave --attach out")
    recipe = config.model, config.preprocess, config.train, config.data
    if config.train.where is Where.ssh:
        with training_host(config) as host:
            name = context.work.name
            return over_ssh.train(
                host, name, data, *recipe, out=context.out, work=context.work, emit=context.emit, attach=attach
            )
    return training_job.train(data, *recipe, out=context.out, work=context.work, emit=context.emit)
