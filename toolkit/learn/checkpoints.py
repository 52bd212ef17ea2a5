"""Weights and optimizer state on disk.

An epoch's checkpoint is two files: ``epoch-0003.ckpt`` with all parameters of the training step (network,
momenta, step number) and ``epoch-0003.json`` with its SHA-256, what it was trained with, and the history so
far. Both are written beside and renamed, the JSON last: a checkpoint without a JSON that matches was cut and
is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import nn

from toolkit.errors import InputError


@dataclass(frozen=True)
class Saved:
    """An epoch's checkpoint that can be gone on from. ``state`` is the JSON's content."""

    path: Path
    epoch: int
    state: dict[str, Any]


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_weights(cell: nn.Cell, path: Path) -> None:
    """Write all parameters of ``cell`` to ``path``: beside it first, readable, flushed, then renamed."""
    beside = path.with_name(f".{path.stem}.writing.ckpt")
    beside.unlink(missing_ok=True)
    ms.save_checkpoint(cell, str(beside))
    os.chmod(beside, 0o644)  # MindSpore makes it 0400, which the next copy over it would stumble on
    _flush(beside)
    os.replace(beside, path)


def save_epoch(cell: nn.Cell, folder: Path, epoch: int, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of ``epoch`` with ``state`` (JSON types) and return its path."""
    path = folder / f"epoch-{epoch:04d}.ckpt"
    note = path.with_suffix(".json")
    note.unlink(missing_ok=True)
    save_weights(cell, path)
    beside = note.with_name(f".{note.name}.writing")
    beside.write_text(json.dumps({**state, "epoch": epoch, "sha256": sha256(path)}, indent=1), "utf-8")
    _flush(beside)
    os.replace(beside, note)
    return path


def newest(folder: Path, recipe: str) -> tuple[Saved | None, list[str]]:
    """Return the newest whole checkpoint of ``recipe``, and a warning for each one passed over."""
    warnings = []
    for path in sorted(folder.glob("epoch-*.ckpt"), reverse=True):
        try:
            state = json.loads(path.with_suffix(".json").read_text("utf-8"))
            whole = state["sha256"] == sha256(path)
            other = state["recipe"] != recipe
            epoch = int(state["epoch"])
        except (OSError, ValueError, KeyError, TypeError):
            whole, other, epoch, state = False, False, 0, {}
        if not whole:
            warnings.append(f"{path.name} is cut or damaged: going back to the checkpoint before it")
        elif not other:
            return Saved(path, epoch, state), warnings
    return None, warnings


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` epochs (at least one) and the rests of interrupted writing."""
    for path in sorted(folder.glob("epoch-*.ckpt"))[: -max(keep, 1)]:
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.writing*"):
        path.unlink(missing_ok=True)


def load(path: Path, cell: nn.Cell, what: str) -> int:
    """Load a checkpoint into ``cell``, called ``what`` in messages; return the number of parameters' values.

    All parameters of ``cell`` have to be there in the right shape; what the file has besides (an optimizer's
    state) is left alone. InputError, one line that says what is missing or differs, otherwise.
    """
    values = read(path)
    wanted = {parameter.name: parameter for parameter in cell.get_parameters()}
    missing = [name for name in wanted if name not in values]
    if missing:
        raise InputError(
            f"{path} is not a checkpoint of {what}: {_some(missing)} of {len(wanted)} parameters missing",
            hint="model.name, model.classes and preprocess.size must be those it was trained with",
        )
    different = [
        f"{name} is {list(values[name].shape)} instead of {list(parameter.shape)}"
        for name, parameter in wanted.items()
        if tuple(values[name].shape) != tuple(parameter.shape)
    ]
    if different:
        raise InputError(
            f"{path} is not a checkpoint of {what}: {_some(different)}",
            hint="model.name, model.classes and preprocess.size must be those it was trained with",
        )
    not_loaded, _ = ms.load_param_into_net(cell, {name: values[name] for name in wanted}, strict_load=True)
    if not_loaded:
        raise InputError(f"{path}: MindSpore did not load {_some(list(not_loaded))}")
    return sum(parameter.size for parameter in wanted.values())


def read(path: Path) -> dict[str, ms.Parameter]:
    """Return a checkpoint's parameters by name; InputError where it is missing, cut, or something else."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", hint="model.from wants a checkpoint that MindSpore wrote")
    if path.suffix != ".ckpt":
        raise InputError(f"{path}: not a MindSpore checkpoint, its name must end in .ckpt")
    try:
        values = dict(ms.load_checkpoint(str(path)))
    except Exception as error:  # MindSpore raises ValueError, RuntimeError and protobuf's own errors here
        raise InputError(
            f"{path}: MindSpore cannot read it, it is cut, damaged or not a checkpoint"
            f" ({path.stat().st_size:,} bytes; {type(error).__name__})",
            hint="copy it again, or take the checkpoint before it",
        ) from error
    if not values:
        raise InputError(
            f"{path}: no parameters in it", hint="copy it again, or take the checkpoint before it"
        )
    return values


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
