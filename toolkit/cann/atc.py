"""The command line of ATC, CANN's converter of models to ``.om``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.config.schema import AtcSettings
from toolkit.errors import ConfigError

# What --framework takes (Ascend GE documents, ATC option --framework).
FRAMEWORKS = {"air": "1", "onnx": "5", "pb": "3", "prototxt": "0"}

SUCCESS = "ATC run success"
_CODE = re.compile(r"\b(E[A-Z0-9]\d{4}|E\d{5})\b")


# What the conversion decides itself, and what to set in its place.
DECIDED = {
    "model": "model.from=PATH takes a network of your own",
    "framework": "the file that is converted decides it: export.format, or model.from",
    "output": "the om comes into the release; deploy convert prints where it is kept",
    "mode": "an om is made; for another mode run atc yourself, the run's convert/atc.log has the command line",
    "om": "it belongs to other modes of atc, which convert has no use for",
    "json": "it belongs to other modes of atc, which convert has no use for",
    "singleop": "a network is converted; for single operators run atc yourself",
}

# Flags whose lists have semicolons between their items; those of all others have commas.
_SEMICOLONS = (
    "input_shape",
    "input_shape_range",
    "input_hint_shape",
    "input_fp16_nodes",
    "out_nodes",
    "output_type",
    "optimization_switch",
)


def given(settings: AtcSettings) -> dict[str, str]:
    """The flags that the config sets, as ATC takes them."""
    return {key: text(key, value) for key, value in vars(settings).items() if value is not None}


def text(flag: str, value: Any) -> str:
    """A flag's value as ATC takes it. A list is joined with commas; a list of lists with semicolons and commas."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, list | tuple) for item in value)
        return (";" if nested or flag in _SEMICOLONS else ",").join(text("", item) for item in value)
    return str(value)


def problems(settings: AtcSettings) -> Iterator[str]:
    """What is wrong with the flags, each beginning with its key."""
    for key, value in vars(settings).items():
        if value is None:
            continue
        if key in DECIDED:
            yield f"atc.{key}: convert sets it: {DECIDED[key]}"
        elif isinstance(value, dict):
            yield f"atc.{key}: a text, a number, true, false or a list, not a mapping"
        elif re.search(r"[\0\r\n]", text(key, value)):
            yield f"atc.{key}: {value!r} has a line break"
    if settings.external_weight is not None and text("", settings.external_weight) != "0":
        yield "atc.external_weight: a release holds one om with its weights; leave it at 0"


def flags(settings: AtcSettings, **derived: str) -> dict[str, str]:
    """All flags to give: those set in the config win over those derived by the pipeline."""
    return {**derived, **given(settings)}


def command(chosen: Mapping[str, str]) -> list[str]:
    """``atc --flag=value …`` as an argument list; mandatory flags first, the others in alphabetic order."""
    first = ["model", "framework", "output", "soc_version"]
    names = [name for name in first if name in chosen] + sorted(set(chosen) - set(first))
    return ["atc", *(f"--{name}={chosen[name]}" for name in names)]


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
