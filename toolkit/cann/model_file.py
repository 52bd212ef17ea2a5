"""Is a model file that a user gives what its name says? Looked at before anything else runs.

Sources: om's header, hicann/ge ``inc/framework/common/types.h`` (``ModelFileHeader``); that an om holds the command
line of ATC and its ``soc_version``: ATC's options ``--mode`` and ``--json``.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
from pathlib import Path

from toolkit.errors import InputError

_OM_MAGIC = b"IMOD"
_OM_HEADER = 256  # bytes
_OM_LENGTH = struct.Struct("<I")
_OM_LENGTH_AT = 76
_SOC = re.compile(rb"soc_version[^A-Za-z0-9]{1,12}(Ascend[0-9A-Za-z_]+)")


def check_model_file(key: str, path: Path, soc_version: str = "") -> None:
    """Raise InputError unless ``path`` is a whole ``.onnx`` or ``.om`` file; of others only that it is not empty.

    ``key`` is the setting that names it. ``soc_version`` is the boards': an om for another chip is refused.
    """
    if not path.exists():
        raise InputError(f"{key}: {path} does not exist")
    if not path.is_file():
        raise InputError(f"{key}: {path} is not a file", hint="name the file itself, such as net.onnx or net.om")
    stat = path.stat()
    if stat.st_size == 0:
        raise InputError(f"{key}: {path} is empty", hint="copy it again")
    if path.suffix == ".onnx":
        problem, hint = _onnx(path, stat.st_size, stat.st_mtime_ns)
    elif path.suffix == ".om":
        problem, hint = _om(path, stat.st_size, stat.st_mtime_ns, soc_version)
    else:
        return
    if problem:
        raise InputError(f"{key}: {path} {problem}", hint=hint)


@functools.lru_cache(maxsize=8)
def _onnx(path: Path, size: int, changed: int) -> tuple[str, str]:
    """What is wrong with an ONNX file, "" where nothing is, and what to do. Read once while it stays the same."""
    import onnx

    again = "copy it again, or export it again; onnx.checker.check_model(PATH) looks closer"
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # protobuf raises classes of its own, which differ between its versions
        return f"is no ONNX model, or cut short ({size:,} bytes)", again
    if not model.graph.node or not model.graph.output:
        return f"is no ONNX model, or cut short: there is no network in its {size:,} bytes", again
    outside = sorted(
        {entry.value for item in model.graph.initializer for entry in item.external_data if entry.key == "location"}
    )
    if outside:
        one = "save it as one file: onnx.save(onnx.load(PATH), NEW, save_as_external_data=False)"
        return f"keeps its weights in another file, {outside[0]}, which would be left behind", one
    return "", ""


@functools.lru_cache(maxsize=64)
def _om(path: Path, size: int, changed: int, soc_version: str) -> tuple[str, str]:
    """The same of an om for boards of ``soc_version``; that is not looked at where it is empty."""
    again = "copy it again and compare its SHA-256, or convert again"
    with path.open("rb") as file:
        header = file.read(_OM_HEADER)
        if not header.startswith(_OM_MAGIC):
            return "is no om", "give what atc wrote, or the network it is made from: model.from=net.onnx"
        if len(header) < _OM_HEADER:
            return f"is cut short: {size:,} bytes", again
        (length,) = _OM_LENGTH.unpack_from(header, _OM_LENGTH_AT)
        if length != (size - _OM_HEADER) & 0xFFFFFFFF:
            return f"is cut short or damaged: {size:,} bytes, its header says {length + _OM_HEADER:,}", again
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            chips = {found.group(1).decode() for found in _SOC.finditer(content)}
    if soc_version and chips and not any(_same(chip, soc_version) for chip in chips):
        made_for = ", ".join(sorted(chips))
        return f"is for {made_for}, and the boards have {soc_version}", "convert the network for them, or choose boards"
    return "", ""


def _same(one: str, other: str) -> bool:
    """Part of a chip (Ascend310P3vir02) runs what the chip runs."""
    return one.split("vir")[0] == other.split("vir")[0]
