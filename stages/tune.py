"""What AOE found out on the chip about the network: a bank of tilings that ATC uses."""

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
from toolkit.cann import atc
from toolkit.cann.host import ConvertHost
from toolkit.cann.tools import AOE_FLAGS, BANK_VARIABLE, aoe_command
from toolkit.config.schema import Config
from toolkit.errors import ConfigError
from toolkit.pipeline import Context
from toolkit.ui.words import counted

NAME = "tune"
VERSION = 1
HELP = "tune the network on the chip with AOE (tune=aoe)"
TOOL = "aoe"


def needs(config: Config) -> Sequence[str]:
    return (_atc_input.source(config),)


def needs_host(config: Config) -> bool:
    """Does it run on the machine that has CANN's tools?"""
    return True


def settings(config: Config) -> Mapping[str, Any]:
    if config.tune.kind == "none":
        raise ConfigError("tune: there is nothing to do", hint="tune=aoe")
    chosen = atc.given(config.atc)
    return {
        "kind": config.tune.kind,
        "jobs": list(config.tune.jobs),
        "atc": {name: chosen[name] for name in AOE_FLAGS if name in chosen},
        "soc_version": config.board.soc_version if config.board else None,
        "aipp": preprocess.aipp_config(config.preprocess) if config.preprocess.aipp else None,
    }


def tools(config: Config) -> Mapping[str, str]:
    return converting_cann(config)


def files(config: Config) -> Mapping[str, Path]:
    return _atc_input.flag_files(config)


def run(context: Context) -> Mapping[str, Any]:
    config = context.config
    flags, sent = _atc_input.prepare(context)
    host = cast(ConvertHost, context.services["convert_host"])
    bank, commands = context.work / "bank", []
    shutil.rmtree(bank, ignore_errors=True)
    version = ""
    for job in config.tune.jobs:
        argv = aoe_command(job, flags)
        commands.append(argv)
        context.say(shlex.join(argv))
        results = context.work / "results"
        shutil.rmtree(results, ignore_errors=True)
        known = {f"out/bank/{path.relative_to(bank)}": path for path in bank.rglob("*") if path.is_file()}
        report = host.run(
            argv,
            {**sent, **known},
            into=results,
            limit=config.tune.limit,
            emit=context.emit,
            board=config.board.cann.version if config.board else "",
            variables={BANK_VARIABLE: "{work}/out/bank"},
        )
        version = report.version
        keep_log(context, "aoe", argv, report.output)
        if report.status != 0:
            raise failure("aoe", argv, report.status, report.output, host.name, log_file(context, "aoe"))
        shutil.rmtree(bank, ignore_errors=True)
        shutil.copytree(results / "bank", bank)
    (bank / ".keep").unlink(missing_ok=True)
    shutil.copytree(bank, context.out, dirs_exist_ok=True)
    count = sum(path.is_file() for path in context.out.rglob("*"))
    summary = f"{counted(count, 'file')} in the bank, tuned on {host.name}" if count else "nothing better was found"
    return {"summary": summary, "command": commands, "host": host.name, "cann": version}
