"""Files that a board sends: written below one folder of ours, whatever the board calls them."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from toolkit.artefacts.manifest import check_path
from toolkit.errors import BoardRefused, InputError
from toolkit.remote.frames import Frames, typed

_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What our own disk says, whatever the board calls its files."""


class Incoming:
    """Takes ``F`` (name, size), ``D`` (bytes) and ``E`` (SHA-256) frames and makes files of them.

    Names must be relative, printable, without ``..``, and each may come once. Limits count what really comes,
    not what was announced. A file appears under its name when it is whole.
    """

    def __init__(self, frames: Frames, into: Path, name: str, limit_bytes: int, limit_files: int) -> None:
        self._frames, self._into, self._name = frames, into, name
        self._bytes, self._files = limit_bytes, limit_files
        self._stream: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._target = into
        self._left = 0
        self._taken: set[str] = set()
        self.paths: list[Path] = []

    def frame(self, kind: bytes, payload: bytes) -> None:
        """Take the next frame."""
        if kind == b"F" and self._stream is None:
            with typed(self._frames):
                header = self._frames.json(payload)
                name, size = header["name"], header["size"]
                if not isinstance(name, str) or not isinstance(size, int) or size < 0:
                    raise TypeError("name and size")
            self._begin(name, size)
        elif kind == b"D" and self._stream is not None and len(payload) <= self._left:
            self._left -= len(payload)
            self._digest.update(payload)
            self._stream.write(payload)
        elif kind == b"E" and self._stream is not None:
            self._end(payload)
        else:
            raise self._frames.garbage("pieces of a file that do not fit together")

    def _begin(self, name: str, size: int) -> None:
        try:
            check_path(name, what="a board's results")
            name.encode()
        except (InputError, UnicodeEncodeError) as problem:
            raise self._frames.garbage(f"a file with the name {name[:100]!a}") from problem
        self._files -= 1
        self._bytes -= size
        if self._files < 0 or self._bytes < 0:
            raise BoardRefused(
                f"{self._name}: the board sends more files or bytes than allowed (at {name})",
                cause="too-large",
                host=self._name,
                hint="raise the limit, or look at what the board sends",
            )
        # A name that differs in case alone would overwrite another on some disks.
        if name.casefold() in self._taken:
            raise self._frames.garbage(f"two files with the name {name}")
        self._taken.add(name.casefold())
        target = self._into.joinpath(*name.split("/"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(self._into.resolve()) or target.is_dir():
                raise FileExistsError(17, "is in the way")
        except OSError as problem:
            if problem.errno in _OURS:
                raise
            raise self._frames.garbage(f"a file {name} that cannot have its place") from problem
        self._target, self._left, self._digest = target, size, hashlib.sha256()
        part = self._part()
        part.unlink(missing_ok=True)
        self._stream = part.open("xb")

    def _part(self) -> Path:
        """Where the file grows: no name that :func:`check_path` lets through clashes with it."""
        return self._into / f".incoming-{os.getpid()}\x7f"

    def _end(self, digest: bytes) -> None:
        assert self._stream is not None  # frame() saw to it
        self._stream.close()
        self._stream = None
        if digest != self._digest.digest():
            raise self._frames.garbage(f"a file {self._target.name} that was damaged on its way")
        self._part().replace(self._target)
        self.paths.append(self._target)

    def close(self) -> None:
        """Drop what is not whole."""
        if self._stream is not None:
            self._stream.close()
            self._part().unlink(missing_ok=True)
