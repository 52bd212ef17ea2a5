"""The store of artefacts below ``.deploy/``: folders named by the digest of what they hold, and who made them.

::

    .deploy/artefacts/<digest>/…               immutable results of stages
    .deploy/records/<stage>/<fingerprint>.json which fingerprint gave which artefact
    .deploy/work/<stage>-<fingerprint>/        where a stage works; kept when it is interrupted
    .deploy/locks/                             one at a time per stage and fingerprint

A record or an artefact that is damaged counts as missing, never as an error: the stage simply runs again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.artefacts.hashing import digest_folder


@dataclass(frozen=True)
class Artefact:
    """What a stage made. ``notes`` are small facts about it worth showing (an accuracy, a command line)."""

    digest: str
    path: Path
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Store:
    """Artefacts and records below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked: set[str] = set()

    def find(self, stage: str, fingerprint: str) -> Artefact | None:
        """Return the artefact recorded for ``fingerprint``, or None if there is none that is whole."""
        record = self._record(stage, fingerprint)
        if record is None:
            return None
        digest = str(record["digest"])
        path = self.root / "artefacts" / digest
        if digest not in self._checked:
            if not path.is_dir() or digest_folder(path) != digest:
                return None
            self._checked.add(digest)
        return Artefact(digest, path, record.get("notes", {}), float(record.get("seconds", 0)))

    def latest(self, stage: str, group: str) -> dict[str, Any] | None:
        """Return the parts of the newest fingerprint recorded for ``stage`` in ``group``, for explaining a change."""
        folder = self.root / "records" / stage
        newest: tuple[float, dict[str, Any]] | None = None
        for path in folder.glob("*.json") if folder.is_dir() else ():
            record = _read_json(path)
            if record and record.get("group") == group and (newest is None or record["time"] > newest[0]):
                newest = (record["time"], record["parts"])
        return newest[1] if newest else None

    def work_folder(self, stage: str, fingerprint: str) -> Path:
        """The folder in which a stage works; what an interrupted run left is still there."""
        path = self.root / "work" / f"{stage}-{fingerprint[:16]}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def keep(
        self,
        stage: str,
        fingerprint: str,
        folder: Path,
        *,
        parts: Mapping[str, Any],
        group: str,
        notes: Mapping[str, Any],
        seconds: float,
    ) -> Artefact:
        """Move ``folder`` into the store, record it under ``fingerprint``, and clear the stage's work folder."""
        digest = digest_folder(folder)
        final = self.root / "artefacts" / digest
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and digest_folder(final) != digest:
            shutil.rmtree(final)
        if not final.exists():
            _sync_tree(folder)
            os.replace(folder, final)
        record = {
            "digest": digest,
            "parts": dict(parts),
            "group": group,
            "notes": dict(notes),
            "seconds": round(seconds, 3),
            "time": time.time(),
        }
        write_atomically(
            self.root / "records" / stage / f"{fingerprint}.json",
            json.dumps(record, indent=1, sort_keys=True).encode(),
        )
        self._checked.add(digest)
        shutil.rmtree(self.root / "work" / f"{stage}-{fingerprint[:16]}", ignore_errors=True)
        return Artefact(digest, final, notes, seconds)

    @contextlib.contextmanager
    def lock(self, stage: str, fingerprint: str) -> Iterator[None]:
        """Hold the right to make this artefact; waits while another process of this folder makes it."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{stage}-{fingerprint[:16]}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _record(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        record = _read_json(self.root / "records" / stage / f"{fingerprint}.json")
        return record if record and "digest" in record else None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there wholly or not at all, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _sync_tree(folder: Path) -> None:
    """Make sure that what a record will vouch for has reached the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            handle = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
