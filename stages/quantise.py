"""The exported network in int8, by AMCT on the machine that converts, calibrated with training pictures."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from stages._hosts import converting_cann
from stages._tool_log import failure, keep_log, log_file
from toolkit import preprocess
from toolkit.cann import tools as cann_tools
from toolkit.cann.host import ConvertHost
from toolkit.config.schema import Config
from toolkit.errors import ConfigError, InputError
from toolkit.pipeline import Context

NAME = "quantise"
VERSION = 1
HELP = "quantise the network to int8 with AMCT (quantise=amct)"
TOOL = "amct_onnx"


def needs(config: Config) -> Sequence[str]:
    return ("export", "data")


def needs_host(config: Config) -> bool:
    """Does it run on the machine that has CANN's tools?"""
    return True


def settings(config: Config) -> Mapping[str, Any]:
    if config.quantise.kind == "none":
        raise ConfigError("quantise: there is nothing to do", hint="quantise=amct")
    return {
        "kind": config.quantise.kind,
        "pictures": config.quantise.pictures,
        "preprocess": preprocess.spec_json(_spec(config)),
    }


def tools(config: Config) -> Mapping[str, str]:
    return converting_cann(config)


def files(config: Config) -> Mapping[str, Path]:
    return {"quantise.config": Path(config.quantise.config).expanduser()} if config.quantise.config else {}


def run(context: Context) -> Mapping[str, Any]:
    from toolkit.cann.onnx_model import Reference  # NumPy: each verb that plans asks this stage for its settings

    config = context.config
    model = context.inputs["export"] / "model.onnx"
    if not model.exists():
        raise InputError("quantise=amct: AMCT reads ONNX only", hint="export.format=onnx")
    port = Reference(model).input
    shape = tuple(max(1, size) for size in port.shape)
    sent = {"in/model.onnx": model, **_calibration(context, shape)}
    batches = len(sent) - 1
    given = files(config).get("quantise.config")
    if given:
        sent[f"in/{given.name}"] = given
    argv = cann_tools.amct_command(
        "../in/model.onnx",
        "./model",
        port.name,
        shape,
        "../in/data",
        batches,
        f"../in/{given.name}" if given else "",
    )
    context.say(shlex.join(argv))
    host = cast(ConvertHost, context.services["convert_host"])
    results = context.work / "results"
    shutil.rmtree(results, ignore_errors=True)
    board = config.board.cann.version if config.board else ""
    report = host.run(
        argv, sent, into=results, limit=config.quantise.limit, emit=context.emit, board=board
    )
    keep_log(context, "amct", argv, report.output)
    made = results / f"model{cann_tools.DEPLOYABLE}"
    if report.status != 0 or not made.is_file():
        raise failure("amct_onnx", argv, report.status, report.output, host.name, log_file(context, "amct"))
    shutil.copyfile(made, context.out / "model.onnx")
    said = f"int8 with {batches * shape[0]} pictures on {host.name}"
    return {"summary": said, "command": argv, "host": host.name, "cann": report.version}


def _spec(config: Config) -> preprocess.Preprocess:
    """AIPP, where it is used, comes in front of the network only when ATC converts it."""
    return preprocess.Preprocess(**{**vars(config.preprocess), "aipp": False})


def _calibration(context: Context, shape: Sequence[int]) -> dict[str, Path]:
    """Files of one batch each, float32 of the model's shape, as AMCT reads them."""
    import numpy as np
    from PIL import Image

    from toolkit.learn.layout import read_split

    images, _ = read_split(context.inputs["data"], "train")
    spec, batch = _spec(context.config), shape[0]
    wanted = min(context.config.quantise.pictures, len(images))
    count = wanted // batch * batch
    if not count:
        raise InputError(
            f"quantise=amct: {wanted} calibration pictures do not fill one batch of the model's, {batch}",
            hint=f"quantise.pictures={batch} or more, of as many pictures in data.root",
        )
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    ready = [preprocess.apply(Image.fromarray(images[index]), spec) for index in chosen]
    if ready[0].shape != tuple(shape[1:]):
        raise InputError(f"quantise=amct: the model takes {list(shape[1:])}, preprocess gives {ready[0].shape}")
    folder = context.work / "data"
    folder.mkdir(exist_ok=True)
    found = {}
    for number in range(count // batch):
        path = folder / f"batch-{number:05d}.bin"
        path.write_bytes(np.stack(ready[number * batch : (number + 1) * batch]).astype(np.float32).tobytes())
        found[f"in/data/{path.name}"] = path
    return found
