"""The data set in CIFAR-10's binary layout, and held-out pictures for the boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toolkit.paths as paths
from toolkit.config.schema import Config
from toolkit.learn import data
from toolkit.learn.settings import to_json
from toolkit.pipeline import Context

NAME = "data"
VERSION = 1
HELP = "prepare the data set (or check and use the one in data.root)"


def needs(config: Config) -> Sequence[str]:
    return ()


def settings(config: Config) -> Mapping[str, Any]:
    deciding = to_json(config.data)
    # Where the bytes come from and how patiently they are fetched decides nothing: they are checked.
    for key in ("root", "timeout", "attempts", "url"):
        deciding.pop(key, None)
    return deciding


def tools(config: Config) -> Mapping[str, str]:
    return {}


def files(config: Config) -> Mapping[str, Path]:
    return {"data.root": Path(config.data.root).expanduser()} if config.data.root else {}


def run(context: Context) -> Mapping[str, Any]:
    chosen = context.config.data
    report = data.prepare(chosen, context.out, context.emit, paths.home() / "cache")
    pictures = data.sample_pictures(chosen, context.out, chosen.samples)
    return {"summary": f"{report}, {len(pictures)} held-out pictures kept", "pictures": len(pictures)}
