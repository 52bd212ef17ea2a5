"""The stages as functions with plain arguments, for a ModelArts notebook.

>>> from toolkit.cloud import notebook
>>> data = notebook.prepare("digits", "work/data")
>>> trained = notebook.train(data, "work/trained", model="resnet8", preprocess="digits", epochs=12)
>>> exported = notebook.export(trained, "work/exported", model="resnet8", preprocess="digits")
>>> notebook.upload(exported, "obs://bucket/exported")

They do what ``deploy data``, ``train`` and ``export`` do, with the recipes of ``conf/`` as defaults. A folder
may be an ``obs://`` address: moxing copies it there, and brings what is read into a cache first. What happens is
printed, a line for each epoch; ``emit`` takes it instead.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import paths
from toolkit.cloud import moving
from toolkit.config import store
from toolkit.config.schema import Config
from toolkit.errors import ConfigError
from toolkit.learn import data as datasets
from toolkit.learn import training_job
from toolkit.learn.settings import Device, Format
from toolkit.ui.console import TextRenderer
from toolkit.ui.events import Emit


def prepare(name: str, out: str, *, root: str = "", emit: Emit | None = None) -> str:
    """Put a data set of ``conf/data`` (``digits``, ``cifar10``) into ``out`` and return that.

    ``root``: the folder of the extracted data set; without it digits are made and CIFAR-10 is downloaded.
    """
    settings = _config([f"data={name}"]).data
    settings.root = _here(root) if root else ""
    with _Result(out) as folder:
        datasets.prepare(settings, folder, emit or _shown(), paths.home() / "cache")
    return out


def train(
    data: str,
    out: str,
    *,
    model: str = "resnet50",
    preprocess: str = "cifar10",
    recipe: str = "cifar10_resnet50",
    device_target: str = "",
    emit: Emit | None = None,
    **changes: Any,
) -> str:
    """Train on the data set in ``data`` and return ``out``, which gets ``model.ckpt`` and ``history.csv``.

    ``model``, ``preprocess`` and ``recipe`` name files of ``conf/``; ``changes`` are settings of the
    recipe by name, such as ``epochs=3``. ``device_target``: CPU, GPU or Ascend; unless it is given, Ascend
    where moxing is there.
    """
    config = _config([f"model={model}", f"preprocess={preprocess}", f"train={recipe}"])
    settings = dataclasses.replace(config.train, device_target=_device(device_target), **_known(config.train, changes))
    with _Result(out) as folder, tempfile.TemporaryDirectory() as work:
        training_job.train(
            Path(_here(data)),
            config.model,
            config.preprocess,
            settings,
            config.data,
            out=folder,
            work=Path(work),
            emit=emit or _shown(),
        )
    return out


def export(
    trained: str,
    out: str,
    *,
    model: str = "resnet50",
    preprocess: str = "cifar10",
    format: str = "auto",
    device_target: str = "",
    emit: Emit | None = None,
) -> str:
    """Export ``trained``'s ``model.ckpt`` to ``out`` and return that: AIR on Ascend, ONNX elsewhere."""
    config = _config([f"model={model}", f"preprocess={preprocess}"])
    settings = dataclasses.replace(config.export, format=Format(format))
    train_settings = dataclasses.replace(config.train, device_target=_device(device_target))
    with _Result(out) as folder, tempfile.TemporaryDirectory() as work:
        training_job.export(
            Path(_here(trained)) / "model.ckpt",
            config.model,
            config.preprocess,
            settings,
            train_settings,
            out=folder,
            work=Path(work),
            emit=emit or _shown(),
        )
    return out


def upload(folder: str, url: str) -> str:
    """Copy a folder's contents to ``url`` (an ``obs://`` address, or a folder) and return that."""
    moving.copy_folder(folder, url)
    return url


def _config(overrides: Sequence[str]) -> Config:
    from hydra import compose, initialize_config_dir

    store.register_resolvers()
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        return store.load(compose("deploy", list(overrides)))


def _known(settings: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """``changes`` with enumerations by their members. ConfigError for a name that is no setting."""
    fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    unknown = sorted(set(changes) - set(fields))
    if unknown:
        raise ConfigError(f"{unknown[0]}: there is no such setting of a recipe", hint=f"there are: {', '.join(fields)}")
    return {
        name: type(fields[name])(value)
        if isinstance(value, str) and not isinstance(fields[name], (int, float))
        else value
        for name, value in changes.items()
    }


def _shown() -> Emit:
    return TextRenderer().show


def _device(name: str) -> Device:
    return Device(name) if name else Device.Ascend if moving.moxing() else Device.CPU


def _here(place: str) -> str:
    """A local folder with what is at ``place``."""
    if not moving.is_remote(place):
        return place
    target = paths.home() / "cache" / "moxing" / place.split("://", 1)[1].strip("/")
    target.mkdir(parents=True, exist_ok=True)
    moving.copy_folder(place, str(target))
    return str(target)


class _Result:
    """A local folder to write into that ends up where the caller wants it, if nothing fails."""

    def __init__(self, out: str) -> None:
        self._out = out
        self._temporary = tempfile.TemporaryDirectory() if moving.is_remote(out) else None

    def __enter__(self) -> Path:
        folder = Path(self._temporary.name if self._temporary else self._out)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._temporary is None:
            return
        try:
            if kind is None:
                moving.copy_folder(self._temporary.name, self._out)
        finally:
            self._temporary.cleanup()
