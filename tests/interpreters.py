"""Real Python interpreters of other versions, for code that runs on boards with an older Python.

Looked for on PATH (``python3.7``) and in pyenv's folder. A virtual environment with packages is made once
below ``.venvs/`` in the checkout and used again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def find(version: str) -> Path | None:
    """Return the interpreter of ``version`` ("3.7"), or None where this machine has none."""
    if version == "{}.{}".format(*sys.version_info[:2]):
        return Path(sys.executable)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = sorted(root.glob(f"{version}.*/bin/python"))
    on_path = shutil.which(f"python{version}")
    if on_path:
        candidates.insert(0, Path(on_path))
    for candidate in candidates:
        # pyenv puts shims on PATH that fail unless the version is selected: ask it.
        answer = subprocess.run([candidate, "-c", "pass"], capture_output=True, check=False)
        if answer.returncode == 0:
            return candidate
    return None


def require(version: str) -> Path:
    """Like :func:`find`, and skip the test, naming the version, where it is missing."""
    found = find(version)
    if found is None:
        pytest.skip(f"no Python {version} on this machine")
    return found


def venv_with(version: str, *packages: str) -> Path:
    """Return a Python ``version`` interpreter that can import ``packages`` (pip requirement strings)."""
    base = require(version)
    key = hashlib.sha256("\n".join([str(base), *packages]).encode()).hexdigest()[:10]
    folder = CHECKOUT / ".venvs" / f"{version}-{key}"
    python = folder / "bin" / "python"
    done = folder / "complete"
    folder.parent.mkdir(exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        # Several processes may run the tests.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([base, "-m", "venv", str(folder)], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
            done.touch()
    return python
