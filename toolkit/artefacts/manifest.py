"""The manifest of a release: which files, with which content, and what they were made from.

A release is named by its manifest: ``Release.id`` is the SHA-256 of the manifest's canonical JSON (sorted
keys, no spaces, UTF-8), the very bytes that lie on the board as ``manifest.json``. Two machines which build
from the same inputs get the same id, and a board can prove with nothing but a hash function what it has.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.errors import InputError

RESERVED = ("manifest.json", ".deploy", ".last_run", ".signature")
"""Names at the top of a release's folder that belong to the agent."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True, order=True)
class ReleaseFile:
    """One file: ``path`` relative with ``/``, ``sha256`` hex, ``size`` bytes, ``mode`` 0o644 or 0o755."""

    path: str
    sha256: str
    size: int
    mode: int = 0o644

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.path in RESERVED or self.path.endswith(".deploy.tmp"):
            raise InputError(f"a release cannot hold a file named {self.path}", hint="rename it")
        if not _SHA256.match(self.sha256) or self.size < 0:
            raise InputError(f"{self.path}: not a SHA-256 and a size: {self.sha256!r}, {self.size}")
        # The mode is part of the release's name: reduced to what a hard link can carry on every board.
        object.__setattr__(self, "mode", 0o755 if self.mode & stat.S_IXUSR else 0o644)


@dataclass(frozen=True)
class Release:
    """An immutable set of files for a board. ``meta``: JSON, what it was made from, for people."""

    app: str
    files: tuple[ReleaseFile, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _APP.match(self.app):
            raise InputError(
                f"{self.app!r} cannot name an app", hint="use letters, digits, '.', '_' and '-', at most 100"
            )
        object.__setattr__(self, "files", tuple(sorted(self.files)))
        paths = [file.path for file in self.files]
        taken = set(paths)
        if len(taken) < len(paths):
            raise InputError(f"a path stands twice in the release of {self.app}")
        for path in paths:
            parts = path.split("/")
            for depth in range(1, len(parts)):
                if "/".join(parts[:depth]) in taken:
                    raise InputError(f"{'/'.join(parts[:depth])} is both a file and a folder of the release")

    @cached_property
    def text(self) -> str:
        """The canonical manifest, as it lies on the board."""
        content = {
            "app": self.app,
            "files": [
                {"path": file.path, "sha256": file.sha256, "size": file.size, "mode": file.mode}
                for file in self.files
            ],
            "meta": self.meta,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @cached_property
    def id(self) -> str:
        """SHA-256 (hex) of :attr:`text` in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files, each content counted once."""
        return sum({file.sha256: file.size for file in self.files}.values())

    @staticmethod
    def from_text(text: str) -> Release:
        """Read a manifest. Raises InputError where it is damaged."""
        try:
            content = json.loads(text)
            files = tuple(
                ReleaseFile(str(item["path"]), str(item["sha256"]), int(item["size"]), int(item["mode"]))
                for item in content["files"]
            )
            return Release(str(content["app"]), files, dict(content["meta"]))
        except (ValueError, KeyError, TypeError) as problem:
            raise InputError(f"not a release's manifest: {problem}") from problem

    @staticmethod
    def of_files(app: str, files: Mapping[str, Path], meta: Mapping[str, Any] | None = None) -> Release:
        """The release of files on this machine, given as release path → file. Reads and hashes each one."""
        entries = []
        for path, file in files.items():
            with file.open("rb") as stream:
                digest, size = hash_stream(stream)
            entries.append(ReleaseFile(path, digest, size, file.stat().st_mode))
        return Release(app, tuple(entries), meta or {})


def blobs_of(release: Release, files: Mapping[str, Path]) -> Callable[[str], BinaryIO]:
    """An opener of a release's contents by SHA-256, from the files :meth:`Release.of_files` was given."""
    by_digest = {entry.sha256: files[entry.path] for entry in release.files}

    def open_blob(sha256: str) -> BinaryIO:
        return by_digest[sha256].open("rb")

    return open_blob


def hash_stream(stream: BinaryIO) -> tuple[str, int]:
    """SHA-256 (hex) and length in bytes of what is left of ``stream``."""
    digest, size = hashlib.sha256(), 0
    while block := stream.read(1 << 20):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def check_path(path: str, *, what: str = "a release") -> None:
    """Refuse a path that would leave its folder or that some board could not hold."""
    parts = path.split("/")
    if (
        not path
        or len(path.encode("utf-8", "replace")) > 1000
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 240 for part in parts)
        or not _printable(path)
    ):
        raise InputError(
            f"{path!r} cannot be a path in {what}",
            hint="use a relative path with '/', no '..', no control codes",
        )


def _printable(characters: Iterable[str]) -> bool:
    return all(c.isprintable() for c in characters)
