"""The report of a run: one HTML file that needs no network, with outcomes, pictures, figures, receipts.

    deploy report
    deploy report run=20260301-1030

Writes runs/<id>/report.html of the newest run that deployed something, or of the one whose id begins like run=, and
opens it in a browser where there is one.
"""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from pathlib import Path

from stages._invocation import Invocation
from toolkit import paths, report
from toolkit.errors import InputError

HELP = "write and open the HTML report of a run"


def run(invocation: Invocation) -> int:
    folder = find(paths.runs(), invocation.config.run or "")
    path = report.write(folder)
    invocation.renderer.data({"run": folder.name, "report": str(path)}, paths.relative(path))
    if _somebody_looks(invocation):
        webbrowser.open(path.as_uri())
    return 0


def find(runs: Path, wanted: str) -> Path:
    """The run whose id begins with ``wanted``; "" = the newest that deployed something, else the newest.

    :raises InputError: there is none, or more than one.
    """
    ids = sorted(path.name for path in runs.iterdir() if (path / "journal.jsonl").is_file()) if runs.is_dir() else []
    if not ids:
        raise InputError(f"there are no runs in {paths.relative(runs)}", hint="deploy writes one each time")
    if not wanted:
        deployed = [name for name in reversed(ids) if _verb(runs / name) not in ("verify", "logs", "rollback")]
        return runs / (deployed or ids[::-1])[0]
    fits = [name for name in ids if name.startswith(wanted)]
    if len(fits) != 1:
        what = f"{len(fits)} runs begin like that" if fits else "there is no such run"
        shown = ", ".join((fits or ids)[-5:])
        raise InputError(f"run={wanted}: {what}", hint=f"there are: {shown}")
    return runs / fits[0]


def _verb(folder: Path) -> str:
    """What the run was, by the first line of its journal."""
    try:
        with (folder / "journal.jsonl").open(encoding="utf-8") as stream:
            return str(json.loads(stream.readline()).get("text", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _somebody_looks(invocation: Invocation) -> bool:
    flags = invocation.flags
    desktop = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(desktop) and sys.stdout.isatty() and not flags.json and not flags.quiet
