"""Is this machine fit? One line each: what, and where it isn't, cause and fix.

    deploy doctor
    deploy doctor +board=200dk

Exits with 2 when something that is needed is missing.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from stages._fleet import local_atc, targets_of
from stages._invocation import Invocation
from toolkit import paths
from toolkit.cann.environment import toolkit_script
from toolkit.config.schema import Config

HELP = "is this machine fit: one line each, with cause and fix"

State = Literal["ok", "note", "bad"]
MARK = {"ok": "✓", "note": "·", "bad": "✗"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``fix`` is empty where nothing is wrong."""

    what: str
    state: State
    text: str
    fix: str = ""


def run(invocation: Invocation) -> int:
    findings = [finding for check in CHECKS for finding in check(invocation)]
    width = max(len(item.what) for item in findings)
    lines = []
    for item in findings:
        lines.append(f"{MARK[item.state]} {item.what:<{width}}  {item.text}")
        if item.fix:
            lines.append(f"  {'':<{width}}  what to do: {item.fix}")
    invocation.renderer.data({"findings": [vars(item) for item in findings]}, "\n".join(lines))
    return 2 if any(item.state == "bad" for item in findings) else 0


def _python(invocation: Invocation) -> Iterator[Finding]:
    text = f"{platform.python_version()} in {sys.prefix}"
    fit = (3, 10) <= sys.version_info[:2] <= (3, 12)
    fix = "" if fit else "MindSpore has packages for Python 3.10, 3.11 and 3.12: make the virtual environment with one"
    yield Finding("Python", "ok" if fit else "bad", text, fix)


def _packages(invocation: Invocation) -> Iterator[Finding]:
    for name in ("mindspore", "numpy", "onnxruntime", "onnx", "fabric", "pillow", "hydra-core"):
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "bad", "not installed", "pip install -e . in the project's folder")
            continue
        if name == "numpy" and found.startswith("2.") and importlib.util.find_spec("mindspore"):
            yield Finding(name, "bad", f"{found}: MindSpore's kernels want 1.x", "pip install 'numpy<2'")
        else:
            yield Finding(name, "ok", found)


def _processor(invocation: Invocation) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    wide = "avx512" in _cpu_flags()
    if wide and isa and "AVX512" in isa.upper():
        yield Finding(
            "processor",
            "note",
            f"{cores} cores with AVX-512, ONEDNN_MAX_CPU_ISA={isa}: convolutions are 40 to 90 times slower",
            "unset ONEDNN_MAX_CPU_ISA, or set it to AVX2",
        )
    else:
        yield Finding("processor", "ok", f"{cores} cores" + (", AVX-512 is left unused for training" if wide else ""))


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _disk(invocation: Invocation) -> Iterator[Finding]:
    folder = paths.base()
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        yield Finding("folder", "bad", f"{folder} cannot be written", "run in another folder, or set DEPLOY_HOME")
        return
    text = f"{folder}: {free / 1e9:.1f} GB free"
    if free < 2e9:
        yield Finding("folder", "note", text, "2 GB are needed for ResNet50 with its data; set DEPLOY_HOME elsewhere")
    else:
        yield Finding("folder", "ok", text)


def _atc(invocation: Invocation) -> Iterator[Finding]:
    config = invocation.config
    if config.simulate:
        yield Finding("atc", "ok", "comes with the simulated build host")
        return
    script = toolkit_script(config.board.cann) if config.board else ""
    if local_atc(script):
        yield Finding("atc", "ok", shutil.which("atc") or "found in CANN's environment")
    else:
        yield Finding(
            "atc",
            "note",
            "not on this machine",
            "name a machine with CANN's toolkit (convert.host=…), or try it with simulate=true",
        )


def _ssh(invocation: Invocation) -> Iterator[Finding]:
    keys = [path.name for path in sorted(Path.home().glob(".ssh/id_*")) if path.suffix != ".pub"]
    if keys:
        yield Finding("ssh key", "ok", ", ".join(keys))
    elif os.environ.get("SSH_AUTH_SOCK"):
        yield Finding("ssh key", "ok", "an ssh-agent runs")
    else:
        yield Finding(
            "ssh key", "note", "none in ~/.ssh and no ssh-agent", "ssh-keygen -t ed25519, then ssh-copy-id to the boards"
        )
    known = Path.home() / ".ssh" / "known_hosts"
    entries = len(known.read_text(errors="replace").splitlines()) if known.exists() else 0
    yield Finding("known hosts", "ok" if entries else "note", f"{entries} entries in ~/.ssh/known_hosts",
                  "" if entries else "deploy trust reads boards' keys and pins them")  # fmt: skip


def _boards(invocation: Invocation) -> Iterator[Finding]:
    config: Config = invocation.config
    if config.board is None and config.inventory is None:
        yield Finding("boards", "note", "none chosen", "+board=…, or inventory=…")
        return
    names = [board.name for target in targets_of(invocation) for board in target.boards]
    yield Finding("boards", "ok", f"{len(names)} chosen: {', '.join(names[:5])}" + (" …" if len(names) > 5 else ""))


CHECKS: tuple[Callable[[Invocation], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _processor,
    _disk,
    _atc,
    _ssh,
    _boards,
)
