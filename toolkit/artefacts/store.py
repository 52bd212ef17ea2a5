"""The store of artefacts below ``.deploy/``: folders named by the digest of what they hold, and who made
them.

::

    .deploy/artefacts/<digest>/…               immutable results of stages
    .deploy/records/<stage>/<fingerprint>.json which fingerprint gave which artefact
    .deploy/work/<stage>-<fingerprint>/        where a stage works; kept when it is interrupted
    .deploy/locks/                             one at a time per stage and fingerprint

A record or an artefact that is damaged counts as missing, never as an error: the stage simply runs again.

With a shared store (:mod:`toolkit.artefacts.shared`) this folder is its cache: what is missing here is
looked up there, brought when it is read, and what is made here is put there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from toolkit.artefacts.hashing import digest_folder
from toolkit.artefacts.shared import Damaged, SharedStore
from toolkit.errors import InputError


@dataclass(frozen=True)
class Artefact:
    """What a stage made. ``notes`` are small facts about it worth showing (an accuracy, a command line)."""

    digest: str
    path: Path
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Pins(Protocol):
    """Says which artefacts are to be used, whatever this machine would make (a lock file)."""

    def steps(self, stages: Any, config: Any, store: Store, wanted: Any) -> Any:
        """One :class:`toolkit.pipeline.Step` for each stage, each with its artefact."""


class Store:
    """Artefacts and records below one folder; ``shared`` is where other machines put theirs."""

    def __init__(self, root: Path, shared: SharedStore | None = None, pins: Pins | None = None) -> None:
        self.root = root
        self.shared = shared
        self.pins = pins
        self._checked: set[str] = set()
        self._damaged: set[str] = set()

    def find(self, stage: str, fingerprint: str) -> Artefact | None:
        """Return the artefact recorded for ``fingerprint``, or None if there is none that is whole.

        It may lie in the shared store: :meth:`bring` it before it is read.
        """
        record = self._record(stage, fingerprint)
        if record is not None and self.whole(str(record["digest"])):
            return self._artefact(record)
        if self.shared is None:
            return None
        theirs = self.shared.record(stage, fingerprint)
        if theirs is not None:
            record = theirs
            self._write_record(stage, fingerprint, record)
        elif record is None or not self.shared.has(str(record["digest"])):
            return None
        return None if record["digest"] in self._damaged else self._artefact(record)

    def _artefact(self, record: Mapping[str, Any]) -> Artefact:
        digest = str(record["digest"])
        return Artefact(digest, self.path(digest), record.get("notes", {}), float(record.get("seconds", 0)))

    def path(self, digest: str) -> Path:
        """Where an artefact lies, or would."""
        return self.root / "artefacts" / digest

    def whole(self, digest: str) -> bool:
        """Is the artefact in this folder, and what its digest says?"""
        if digest not in self._checked:
            path = self.path(digest)
            if not path.is_dir() or digest_folder(path) != digest:
                return False
            self._checked.add(digest)
        return True

    def at_hand(self, digest: str) -> bool:
        """Is the artefact here, or in the shared store?"""
        return self.whole(digest) or (self.shared is not None and self.shared.has(digest))

    def bring(self, artefact: Artefact) -> Artefact:
        """Make sure that an artefact is in this folder.

        :raises Damaged: the one in the shared store is not what its digest says; it counts as missing now.
        """
        digest = artefact.digest
        if self.whole(digest):
            return artefact
        if self.shared is None:
            raise InputError(f"the artefact {digest} is gone from {self.root}", hint="run it again")
        path = self.path(digest)
        if path.exists():
            shutil.rmtree(path)  # damaged
        try:
            self.shared.get(digest, path)
        except (Damaged, KeyError) as error:
            self._damaged.add(digest)
            raise error if isinstance(error, Damaged) else Damaged(digest, "it is gone") from error
        self._checked.add(digest)
        return artefact

    def share(self, stage: str, fingerprint: str, artefact: Artefact) -> None:
        """Give the shared store what it lacks of an artefact that is here."""
        if self.shared is None or not self.whole(artefact.digest):
            return
        damaged = artefact.digest in self._damaged
        if not damaged and self.shared.record(stage, fingerprint) is not None:
            return
        record = self._record(stage, fingerprint)
        if record is not None:
            self.shared.put(artefact.digest, artefact.path, again=damaged)
            self.shared.put_record(stage, fingerprint, record)
            self._damaged.discard(artefact.digest)

    def latest(self, stage: str, group: str) -> dict[str, Any] | None:
        """The parts of the newest fingerprint recorded for ``stage`` in ``group``, to explain a change."""
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
        """Move ``folder`` into the store, record it under ``fingerprint``, clear the stage's work folder."""
        digest = digest_folder(folder)
        final = self.path(digest)
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
        self._write_record(stage, fingerprint, record)
        self._checked.add(digest)
        shutil.rmtree(self.root / "work" / f"{stage}-{fingerprint[:16]}", ignore_errors=True)
        return Artefact(digest, final, notes, seconds)

    @contextlib.contextmanager
    def lock(self, stage: str, fingerprint: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to make this artefact; waits while another process of this folder makes it, and calls
        ``waiting`` before it does."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{stage}-{fingerprint[:16]}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write_record(self, stage: str, fingerprint: str, record: Mapping[str, Any]) -> None:
        write_atomically(
            self.root / "records" / stage / f"{fingerprint}.json",
            json.dumps(record, indent=1, sort_keys=True).encode(),
        )

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
