"""The network for one kind of chip: ATC, run on a machine that has CANN, makes ``model.om``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from toolkit import preprocess
from toolkit.artefacts.hashing import digest_file
from toolkit.cann import atc, catalogue
from toolkit.cann.host import ConvertHost
from toolkit.config.schema import Config
from toolkit.errors import CommandFailed, InputError
from toolkit.learn.catalogue import check_format
from toolkit.pipeline import Context
from toolkit.ui.events import Event

NAME = "convert"
VERSION = 1
HELP = "convert the network to .om with ATC"

AIPP_FILE = "aipp.cfg"

# Flags that name a file of the user's own: it goes to the converting machine with the model.
FILE_FLAGS = (
    "insert_op_conf",
    "weight",
    "fusion_switch_file",
    "op_precision_mode",
    "compress_weight_conf",
    "compression_optimize_conf",
    "op_name_map",
    "modify_mixlist",
    "keep_dtype",
    "customize_dtypes",
)


def _given_om(config: Config) -> Path | None:
    return Path(config.model.from_).expanduser() if config.model.from_.endswith(".om") else None


def needs(config: Config) -> Sequence[str]:
    return () if _given_om(config) else ("export",)


def settings(config: Config) -> Mapping[str, Any]:
    if _given_om(config):
        return {"given": ".om"}
    if not config.model.from_:
        # Said here too, so that nobody trains for hours before hearing it.
        atc.framework_of(check_format(config.export.format, config.train.device_target))
    board = config.board
    return {
        "atc": {key: value for key, value in vars(config.atc).items() if value is not None},
        "soc_version": board.soc_version if board else None,
        "aipp": preprocess.aipp_config(config.preprocess) if config.preprocess.aipp else None,
    }


def tools(config: Config) -> Mapping[str, str]:
    return {} if _given_om(config) or config.board is None else {"cann": config.board.cann.version}


def files(config: Config) -> Mapping[str, Path]:
    given = _given_om(config)
    if given:
        return {"model.from": given}
    return {
        f"atc.{flag}": Path(str(value)).expanduser()
        for flag in FILE_FLAGS
        if (value := getattr(config.atc, flag)) and "/" in str(value) + "/"
    }


def run(context: Context) -> Mapping[str, Any]:
    config = context.config
    given = _given_om(config)
    if given:
        if given.stat().st_size == 0:
            raise InputError(f"model.from: {given} is empty")
        shutil.copyfile(given, context.out / "model.om")
        return {"summary": f"{given.name}, as it is"}
    model = _exported(context.inputs["export"])
    sent = {f"in/{model.name}": model}
    derived = {
        "model": f"../in/{model.name}",
        "framework": atc.framework_of(model.suffix.lstrip(".")),
        "output": "model",
        "soc_version": config.board.soc_version if config.board else "",
    }
    if config.preprocess.aipp:
        aipp = context.work / AIPP_FILE
        aipp.write_text(preprocess.aipp_config(config.preprocess))
        sent[f"in/{AIPP_FILE}"] = aipp
        derived["insert_op_conf"] = f"../in/{AIPP_FILE}"
    given_flags = atc.flags(config.atc, **derived)
    for key, path in files(config).items():
        flag = key.removeprefix("atc.")
        sent[f"in/{flag}-{path.name}"] = path
        given_flags[flag] = f"../in/{flag}-{path.name}"
    argv = atc.command(given_flags)
    context.say(" ".join(argv))
    host = cast(ConvertHost, context.services["convert_host"])
    results = context.work / "results"
    shutil.rmtree(results, ignore_errors=True)
    report = host.run(
        argv, sent, into=results, limit=config.convert.limit, emit=context.emit
    )
    _keep_log(context, argv, report.output)
    om = next(iter(sorted(results.glob("*.om"))), None)
    if report.status != 0 or atc.SUCCESS not in report.output or om is None:
        raise _failure(argv, report.status, report.output, host.name, context)
    shutil.copyfile(om, context.out / "model.om")
    size = om.stat().st_size
    return {
        "summary": f"{size / 1e6:.1f} MB for {given_flags['soc_version']} on {host.name}, CANN {report.version or 'unknown'}",
        "command": argv,
        "host": host.name,
        "cann": report.version,
        "sha256": digest_file(context.out / "model.om"),
    }


def _exported(folder: Path) -> Path:
    for suffix in ("air", "onnx", "pb"):
        path = folder / f"model.{suffix}"
        if path.exists():
            return path
    found = ", ".join(sorted(path.name for path in folder.iterdir()))
    raise InputError(
        f"ATC reads neither of: {found}",
        hint="export.format=onnx works on any machine, export.format=air where MindSpore runs on Ascend",
    )


def _keep_log(context: Context, argv: Sequence[str], output: str) -> None:
    folder = context.services.get("run_folder")
    if folder is not None:
        log = cast(Path, folder) / "convert" / "atc.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write("$ " + " ".join(argv) + "\n" + output + "\n")
        context.emit(Event("log", f"ATC's log: {log}"))


def _failure(
    argv: Sequence[str], status: int, output: str, host: str, context: Context
) -> CommandFailed:
    codes = atc.error_codes(output)
    entry = catalogue.explain(output)
    lines = [line for line in output.strip().splitlines() if line.strip()]
    what = next((line.strip() for line in lines if codes and codes[0] in line), lines[-1] if lines else "")
    message = f"atc failed on {host} with status {status}: {what}"
    if entry:
        message = f"atc failed on {host} ({', '.join(codes) or f'status {status}'}): {entry.cause}"
    return CommandFailed(
        message,
        host=host,
        hint=entry.fix if entry else "its whole output is in the run's folder, convert/atc.log",
        detail="\n".join(lines[-20:]),
        argv=argv,
        status=status,
    )
