"""Rules about data, network, training and export that a type cannot say. Pure; every problem is listed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from toolkit.errors import ConfigError
from toolkit.learn.catalogue import NETWORKS, check_format
from toolkit.learn.settings import DataKind, DataSettings, ExportSettings, ModelSettings, TrainSettings, Where


def check(
    data: DataSettings,
    model: ModelSettings,
    train: TrainSettings,
    export: ExportSettings,
    size: Sequence[int],
) -> list[str]:
    """Return every problem, one line each, beginning with the key to change. ``size``: [height, width]."""
    return [*_ranges(data, model, train, export), *_fit(model, train, export, size)]


def _ranges(
    data: DataSettings, model: ModelSettings, train: TrainSettings, export: ExportSettings
) -> Iterator[str]:
    at_least: dict[str, tuple[float, float]] = {
        "data.seed": (data.seed, 0),
        "data.samples": (data.samples, 0),
        "data.attempts": (data.attempts, 1),
        "model.classes": (model.classes, 2),
        "train.epochs": (train.epochs, 0),
        "train.batch_size": (train.batch_size, 1),
        "train.lr_init": (train.lr_init, 0),
        "train.lr_end": (train.lr_end, 0),
        "train.warmup_epochs": (train.warmup_epochs, 0),
        "train.weight_decay": (train.weight_decay, 0),
        "train.seed": (train.seed, 0),
        "train.threads": (train.threads, 0),
        "train.workers": (train.workers, 1),
        "train.loaders": (train.loaders, 1),
        "train.patience": (1 if train.patience is None else train.patience, 1),
        "train.remote.attempts": (train.remote.attempts, 0),
        "train.crop": (train.crop, 0),
        "train.evaluate_every": (train.evaluate_every, 0),
        "train.keep_checkpoints": (train.keep_checkpoints, 1),
        "export.batch_size": (export.batch_size, 1),
    }
    for key, (value, least) in at_least.items():
        if not value >= least:
            yield f"{key}: {value:g} is too small: at least {least:g}"
    positive = {
        "data.timeout": data.timeout,
        "train.lr_max": train.lr_max,
        "train.loss_scale": train.loss_scale,
        "export.tolerance": export.tolerance,
    }
    for key, value in positive.items():
        if not value > 0:
            yield f"{key}: {value:g} is not a positive number"
    if data.kind is DataKind.cifar10:
        if data.test_fraction is not None:
            yield "data.test_fraction: CIFAR-10 brings its own split, leave it null"
    elif data.test_fraction is None or not 0 < data.test_fraction < 1:
        yield f"data.test_fraction: {data.test_fraction} is not between 0 and 1"
    if not 0 <= train.momentum < 1:
        yield f"train.momentum: {train.momentum:g} is not in 0 … 1 (1 left out)"
    if model.classes > 256:
        yield f"model.classes: {model.classes} is too large: a label is one byte, at most 256"
    if not export.input_name or not export.output_name or export.input_name == export.output_name:
        yield "export.input_name: input and output need names of their own"


def _fit(
    model: ModelSettings, train: TrainSettings, export: ExportSettings, size: Sequence[int]
) -> Iterator[str]:
    if model.name not in NETWORKS:
        near = difflib.get_close_matches(model.name, NETWORKS, n=1)
        yield f"model.name: no network is called {model.name!r}" + (
            f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(NETWORKS))}"
        )
    elif size and min(size) < NETWORKS[model.name].smallest:
        least = NETWORKS[model.name].smallest
        yield f"preprocess.size: {list(size)} is too small, {model.name} takes {least} a side"
    if train.epochs > 0 and train.warmup_epochs > train.epochs:
        yield f"train.warmup_epochs: {train.warmup_epochs} is more than train.epochs={train.epochs}"
    if train.patience is not None and not train.evaluate_every:
        yield "train.patience: needs evaluations on the way, train.evaluate_every is 0"
    if train.where is Where.ssh and not train.remote.host:
        yield "train.remote.host: train.where=ssh needs a host of the inventory"
    try:
        check_format(export.format, train.device_target)
    except ConfigError as error:
        yield str(error).replace("export.format=", "export.format: ", 1)
