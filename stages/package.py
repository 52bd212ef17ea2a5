"""The release: the immutable folder that boards get."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import paths, pictures, preprocess
from toolkit.artefacts.hashing import digest_file
from toolkit.cann.environment import environment_script
from toolkit.config.schema import Config
from toolkit.errors import ConfigError, InputError
from toolkit.learn.settings import DataKind, class_names
from toolkit.pipeline import Context
from toolkit.ui.words import counted

if TYPE_CHECKING:
    # NumPy and Pillow only where a release is made: each verb that plans asks this stage for its settings.
    from toolkit.cann.onnx_model import Reference

NAME = "package"
VERSION = 3
HELP = "put the release together: om, board program, pre-processing, labels, pictures, environment"

PROGRAM = paths.CHECKOUT / "toolkit" / "onboard" / "infer.py"


def _uses_data(config: Config) -> bool:
    """Do the release's pictures come from the data set? Not where that would be the only reason to download it."""
    if config.infer.pictures:
        return False
    trained = config.train.epochs > 0 and not config.model.from_
    return trained or config.data.kind is DataKind.digits or bool(config.data.root)


def needs(config: Config) -> Sequence[str]:
    wanted = ["convert"]
    if not config.model.from_.endswith(".om"):
        wanted.append("export")
    if _uses_data(config):
        wanted.append("data")
    return wanted


def settings(config: Config) -> Mapping[str, Any]:
    return {
        "app": config.app.name,
        "labels": list(config.app.labels) or list(class_names(config.data)),
        "preprocess": preprocess.spec_json(config.preprocess),
        "environment": environment_script(_board(config).cann),
        "pictures": "own" if config.infer.pictures else "data" if _uses_data(config) else "drawn",
        **({"samples": config.data.samples, "seed": config.data.seed} if _uses_data(config) else {}),
    }


def tools(config: Config) -> Mapping[str, str]:
    return {"program": digest_file(PROGRAM)[:16]}


def files(config: Config) -> Mapping[str, Path]:
    if not config.infer.pictures:
        return {}
    folder = Path(config.infer.pictures).expanduser()
    # Told before a training, not after it.
    pictures.check_picture_folder(folder)
    pictures.read_labels(folder)
    return {"infer.pictures": folder}


def run(context: Context) -> Mapping[str, Any]:
    from toolkit.cann.onnx_model import Reference

    config, out = context.config, context.out
    shutil.copyfile(context.inputs["convert"] / "model.om", out / "model.om")
    shutil.copyfile(PROGRAM, out / "infer.py")
    (out / "spec.json").write_text(preprocess.spec_text(config.preprocess, app=config.app.name))
    (out / "env.sh").write_text(environment_script(_board(config).cann))
    known = _collect_pictures(context, out / "pictures")
    onnx = _reference_model(context)
    model = Reference(onnx) if onnx else None
    labels = _labels(config, model)
    (out / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    reference = _reference(config, out / "pictures", model, known, context)
    (out / "reference.json").write_text(
        json.dumps({"pictures": reference}, indent=0, sort_keys=True), encoding="utf-8"
    )
    count = len(reference)
    compared = "with reference" if onnx else "without reference: no ONNX to compute it from"
    return {"summary": f"{counted(count, 'picture')} {compared}", "pictures": count, "reference": onnx is not None}


def _board(config: Config) -> Any:
    if config.board is None:
        raise ConfigError("no board is chosen", hint="+board=sim, +board=200dk, or inventory=…")
    return config.board


def _collect_pictures(context: Context, folder: Path) -> Mapping[str, int]:
    """Copy the pictures flat into ``folder``; return the labels that are known, by name."""
    config = context.config
    folder.mkdir()
    if config.infer.pictures:
        source = Path(config.infer.pictures).expanduser()
    elif _uses_data(config):
        from toolkit.learn.data import sample_pictures

        source = context.work / "samples"
        sample_pictures(config.data, context.inputs["data"], source, config.data.samples)
    else:
        drawn = dict(pictures.draw_samples(folder))
        (folder / "labels.csv").unlink(missing_ok=True)
        return drawn
    for path in pictures.check_picture_folder(source):
        shutil.copyfile(path, folder / path.name)
    return pictures.read_labels(source)


def _labels(config: Config, model: Reference | None) -> list[str]:
    """The names of the classes: those given, or the data set's, or numbers for a network of another kind."""
    classes = model.outputs[0].shape[-1] if model else -1
    given = list(config.app.labels)
    if given and classes not in (-1, len(given)):
        raise InputError(
            f"app.labels: {counted(len(given), 'name')}, and the network tells {classes} classes apart",
            hint="one name for each class, in the order of the network's outputs",
        )
    names = given or list(class_names(config.data))
    return names if classes in (-1, len(names)) else [f"class {number}" for number in range(classes)]


def _reference_model(context: Context) -> Path | None:
    folder = context.inputs.get("export")
    if folder is None:
        return None
    return next((folder / name for name in ("reference.onnx", "model.onnx") if (folder / name).exists()), None)


def _reference(
    config: Config, folder: Path, model: Reference | None, labels: Mapping[str, int], context: Context
) -> list[dict[str, Any]]:
    """For each readable picture its label, where known, and the logits that ONNX Runtime gives in float32."""
    from PIL import Image

    names = sorted(path.name for path in folder.iterdir())
    spec = preprocess.Preprocess(**{**vars(config.preprocess), "aipp": False})
    if model:
        expected = tuple(config.preprocess.size)
        height_width = model.input.shape[-2:] if spec.layout == "NCHW" else model.input.shape[1:3]
        if any(have not in (-1, want) for have, want in zip(height_width, expected, strict=False)):
            raise InputError(
                f"the model takes pictures of {height_width[0]}x{height_width[1]}, "
                f"preprocess.size is {expected[0]}x{expected[1]}",
                hint=f"preprocess.size=[{height_width[0]},{height_width[1]}]",
            )
    entries: list[dict[str, Any]] = []
    for name in names:
        entry: dict[str, Any] = {"picture": name, "label": labels.get(name)}
        if model:
            try:
                with Image.open(folder / name) as image:
                    ready = preprocess.apply(image, spec)
            except Exception as error:  # Pillow raises nearly anything for broken files
                context.say(f"{name} cannot be read: {pictures.why_unreadable(error)}")
            else:
                entry["logits"] = [float(value) for value in next(model.logits([ready]))]  # type: ignore[list-item]
        entries.append(entry)
    return entries
