"""The command line of ATC, CANN's converter of models to ``.om``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict

from toolkit.config.schema import AtcSettings
from toolkit.errors import ConfigError

# What --framework takes (Ascend GE documents, ATC option --framework).
FRAMEWORKS = {"air": "1", "onnx": "5", "pb": "3", "prototxt": "0"}

SUCCESS = "ATC run success"
_CODE = re.compile(r"\b(E[A-Z0-9]\d{4}|E\d{5})\b")


def flags(settings: AtcSettings, **derived: str) -> dict[str, str]:
    """All flags to give: those set in the config win over those derived by the pipeline."""
    given = {key: str(value) for key, value in asdict(settings).items() if value is not None}
    return {**derived, **given}


def command(given: Mapping[str, str]) -> list[str]:
    """``atc --flag=value …`` as an argument list; mandatory flags first, the others in alphabetic order."""
    first = ["model", "framework", "output", "soc_version"]
    names = [name for name in first if name in given] + sorted(set(given) - set(first))
    return ["atc", *(f"--{name}={given[name]}" for name in names)]


def framework_of(suffix: str) -> str:
    """The value of ``--framework`` for a model file's suffix (without the dot). Raises ConfigError for MindIR."""
    if suffix not in FRAMEWORKS:
        raise ConfigError(
            f"export.format: ATC does not read .{suffix}",
            hint="export.format=onnx works on any machine, export.format=air where MindSpore runs on Ascend",
        )
    return FRAMEWORKS[suffix]


def error_codes(output: str) -> list[str]:
    """The error codes in ATC's output (``E10016``), in order, each once."""
    return list(dict.fromkeys(_CODE.findall(output)))
