"""What a training job needs of us: our own worker as a zip file, the boot file, and the job as JSON."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toolkit

CODE = "toolkit.zip"
BOOT = "boot.py"
JOB = "job.json"
REQUIREMENTS = "pip-requirements.txt"  # ModelArts installs what it names before it starts the boot file
# Only what runs in the job: no key, no board and no command line is ever in there.
ROOMS = ("learn", "ui")
TIME = (2020, 1, 1, 0, 0, 0)  # the same files make the same bytes


def pack(folder: Path, job: Mapping[str, Any], requirements: Sequence[str]) -> list[Path]:
    """Write a job's code folder and return its files. The same inputs give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(toolkit.__file__).resolve().parent
    sources = [path for path in root.glob("*.py")]
    for room in ROOMS:
        sources += (root / room).rglob("*.py")
    with zipfile.ZipFile(folder / CODE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(sources):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, TIME), path.read_bytes(), zipfile.ZIP_DEFLATED)
    (folder / BOOT).write_bytes((Path(__file__).parent / BOOT).read_bytes())
    (folder / JOB).write_text(json.dumps(job, indent=1, sort_keys=True), "utf-8")
    (folder / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements), "utf-8")
    return [folder / name for name in (BOOT, CODE, JOB, REQUIREMENTS)]
