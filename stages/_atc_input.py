"""What ATC and AOE get of the same network: its file, the files that flags name, the flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from toolkit import preprocess
from toolkit.cann import atc
from toolkit.config.schema import Config
from toolkit.errors import InputError
from toolkit.pipeline import Context

AIPP_FILE = "aipp.cfg"

# Flags that name a file of the user's own: it goes to the converting machine with the model.
FILE_FLAGS = (
    "insert_op_conf",
    "cal_conf",
    "op_debug_config",
    "raw_ge_options",
    "cluster_config",
    "hccl_sub_comm_config",
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


def source(config: Config) -> str:
    """The stage whose result is converted."""
    return "export" if config.quantise.kind == "none" else "quantise"


def flag_files(config: Config) -> Mapping[str, Path]:
    """Setting → file of the user's own that a flag of ATC names."""
    given = atc.given(config.atc)
    return {f"atc.{flag}": Path(given[flag]).expanduser() for flag in FILE_FLAGS if given.get(flag)}


def prepare(context: Context) -> tuple[dict[str, str], dict[str, Path]]:
    """The flags, and the files to send, by their names there. Paths are relative to the folder of results."""
    config = context.config
    model = _exported(context.inputs[source(config)])
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
    flags = atc.flags(config.atc, **derived)
    for key, path in flag_files(config).items():
        flag = key.removeprefix("atc.")
        # Not by its own name: ATC refuses paths with spaces and the like.
        suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]+", path.suffix) else ""
        sent[f"in/{flag}{suffix}"] = path
        flags[flag] = f"../in/{flag}{suffix}"
    return flags, sent


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
