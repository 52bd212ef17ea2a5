"""Digests of files, folders and plain data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        hasher = hashlib.sha256()
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def digest_data(value: Any) -> str:
    """SHA-256 of plain data (what JSON can hold), independent of the order of keys."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """``value`` as JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def walk_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file below ``folder`` as (path with slashes, path), sorted by the former.

    Links to files count as files; pipes, which keep a reader waiting, and links to nothing do not.
    """
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            path = Path(root) / name
            if path.is_file():
                found.append((path.relative_to(folder).as_posix(), path))
    yield from sorted(found)


def digest_folder(folder: Path) -> str:
    """SHA-256 over names and contents of all files below ``folder`` (not their times, modes or owners)."""
    return digest_data([[name, digest_file(path)] for name, path in walk_files(folder)])
