"""The peers' virtual environment: ``.venvs/benchmarks`` in the checkout, made when it is first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.fleet.boards import CHECKOUT

FOLDER = CHECKOUT / ".venvs" / "benchmarks"
PACKAGES = ("ansible-core==2.19.14", "mitogen==0.3.54", "pyinfra==3.10.0", "fabric==3.2.3")


def program(name: str) -> Path:
    """Path of a program of the peers' environment, whether it exists or not."""
    return FOLDER / "bin" / name


def make() -> None:
    """Make the environment, unless it has exactly these packages already."""
    stamp = FOLDER / "packages.txt"
    wanted = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {', '.join(PACKAGES)} into {FOLDER.relative_to(CHECKOUT)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    pip = [program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True)
    stamp.write_text(wanted)
