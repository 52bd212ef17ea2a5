"""The data set in CIFAR-10's binary layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toolkit.paths as paths
from toolkit.config.schema import Config
from toolkit.learn.settings import DataKind, to_json
from toolkit.pipeline import Context

NAME = "data"
VERSION = 2
HELP = "prepare the data set (or check and use the one in data.root)"


def needs(config: Config) -> Sequence[str]:
    return ()


def settings(config: Config) -> Mapping[str, Any]:
    # Where the bytes come from and how patiently they are fetched decides nothing: they are checked.
    if config.data.root:
        deciding: tuple[str, ...] = ("kind",)
    elif config.data.kind is DataKind.digits:
        deciding = ("kind", "seed", "test_fraction")
    else:
        deciding = ("kind", "size", "md5", "sha256")
    every = to_json(config.data)
    return {key: every[key] for key in deciding}


def tools(config: Config) -> Mapping[str, str]:
    return {}


def files(config: Config) -> Mapping[str, Path]:
    return {"data.root": Path(config.data.root).expanduser()} if config.data.root else {}


def run(context: Context) -> Mapping[str, Any]:
    from toolkit.learn import data  # NumPy and Pillow: each verb that plans asks this stage for its settings

    chosen = context.config.data
    report = data.prepare(chosen, context.out, context.emit, paths.home() / "cache")
    return {"summary": str(report)}
