"""Where things are: the checkout's data folders, and what a run writes."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONF = CHECKOUT / "conf"
INVENTORY = CHECKOUT / "inventory"


def base() -> Path:
    """The folder that everything is written below: ``DEPLOY_HOME``, or the one the command is run from."""
    return Path(os.environ.get("DEPLOY_HOME") or ".").resolve()


def home() -> Path:
    """``.deploy/``: artefact store, simulated boards, caches, locks."""
    return base() / ".deploy"


def runs() -> Path:
    """``runs/``: one folder a run."""
    return base() / "runs"


def relative(path: Path) -> str:
    """``path`` as people can type it where they are: from the working folder where it lies below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
