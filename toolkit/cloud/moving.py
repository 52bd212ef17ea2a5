"""Files between folders and OBS inside ModelArts, where moxing is and has the keys; plain copies elsewhere.

What moxing does ("MoXing File Operations" in ModelArts' documentation): ``file.copy`` takes one file,
``file.copy_parallel`` a folder's contents, not the folder itself.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

from toolkit.errors import ConfigError, InputError

REMOTE = ("obs://", "s3://")


def is_remote(place: str) -> bool:
    """Whether only moxing, or OBS's own SDK, gets there."""
    return place.startswith(REMOTE)


def moxing() -> ModuleType | None:
    """The module of a ModelArts image, or None elsewhere."""
    try:
        return importlib.import_module("moxing")
    except ImportError:
        return None


def copy_folder(source: str, target: str) -> None:
    """Copy the contents of the folder ``source`` into the folder ``target``; either may be in OBS."""
    if not is_remote(source) and not Path(source).is_dir():
        raise InputError(f"{source}: there is no such folder")
    if is_remote(source) or is_remote(target):
        _needed(source, target).file.copy_parallel(source, target)
        return
    shutil.copytree(source, target, dirs_exist_ok=True)


def _needed(source: str, target: str) -> ModuleType:
    found = moxing()
    if found is None:
        where = source if is_remote(source) else target
        raise ConfigError(
            f"{where}: moxing, which reaches OBS, is only there in ModelArts",
            hint="elsewhere take deploy with store=obs, or a local folder",
        )
    return found
