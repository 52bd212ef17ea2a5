"""The network for one kind of chip: ATC, run on a machine that has CANN, makes ``model.om``."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from stages import _atc_input
from stages._hosts import converting_cann
from stages._tool_log import failure, keep_log, log_file
from toolkit import preprocess
from toolkit.artefacts.hashing import digest_file
from toolkit.cann import atc
from toolkit.cann.host import ConvertHost
from toolkit.cann.model_file import check_model_file
from toolkit.cann.tools import BANK_VARIABLE
from toolkit.config.schema import Config
from toolkit.learn.catalogue import check_format
from toolkit.pipeline import Context

NAME = "convert"
VERSION = 1
HELP = "convert the network to .om with ATC"
TOOL = "atc"


def _given_om(config: Config) -> Path | None:
    return Path(config.model.from_).expanduser() if config.model.from_.endswith(".om") else None


def needs(config: Config) -> Sequence[str]:
    if _given_om(config):
        return ()
    return (_atc_input.source(config), *(["tune"] if config.tune.kind != "none" else []))


def needs_host(config: Config) -> bool:
    """An om of the user's own is only copied: that needs no CANN."""
    return _given_om(config) is None


def settings(config: Config) -> Mapping[str, Any]:
    if _given_om(config):
        return {"given": ".om"}
    if not config.model.from_:
        # Said here too, so that nobody trains for hours before hearing it.
        atc.framework_of(check_format(config.export.format, config.train.device_target))
    board = config.board
    return {
        "atc": atc.given(config.atc),
        "soc_version": board.soc_version if board else None,
        "aipp": preprocess.aipp_config(config.preprocess) if config.preprocess.aipp else None,
    }


def tools(config: Config) -> Mapping[str, str]:
    return {} if _given_om(config) else converting_cann(config)


def files(config: Config) -> Mapping[str, Path]:
    given = _given_om(config)
    if not given:
        return _atc_input.flag_files(config)
    check_model_file("model.from", given, config.board.soc_version if config.board else "")
    return {"model.from": given}


def run(context: Context) -> Mapping[str, Any]:
    config = context.config
    given = _given_om(config)
    if given:
        shutil.copyfile(given, context.out / "model.om")
        return {"summary": f"{given.name}, as it is"}
    flags, sent = _atc_input.prepare(context)
    variables = {}
    if "tune" in context.inputs:
        bank = context.inputs["tune"]
        sent |= {f"bank/{path.relative_to(bank)}": path for path in bank.rglob("*") if path.is_file()}
        variables[BANK_VARIABLE] = "{work}/bank"
    argv = atc.command(flags)
    context.say(shlex.join(argv))
    host = cast(ConvertHost, context.services["convert_host"])
    results = context.work / "results"
    shutil.rmtree(results, ignore_errors=True)
    report = host.run(
        argv,
        sent,
        into=results,
        limit=config.convert.limit,
        emit=context.emit,
        board=config.board.cann.version if config.board else "",
        variables=variables,
    )
    keep_log(context, "atc", argv, report.output)
    # With code for the board's CPU in it, it is called model_linux_aarch64.om; atc.save_original_model adds one more.
    om = min(results.glob("model*.om"), key=lambda path: ("original" in path.name, path.name), default=None)
    if report.status != 0 or atc.SUCCESS not in report.output or om is None:
        raise failure("atc", argv, report.status, report.output, host.name, log_file(context, "atc"))
    shutil.copyfile(om, context.out / "model.om")
    cann = report.version or "unknown"
    return {
        "summary": f"{om.stat().st_size / 1e6:.1f} MB for {flags['soc_version']} on {host.name}, CANN {cann}",
        "command": argv,
        "host": host.name,
        "cann": report.version,
        "sha256": digest_file(context.out / "model.om"),
    }
