"""Files of earlier runs, found again by their content: what a board has is often still in our store."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from toolkit.artefacts.manifest import hash_stream

_lock = threading.Lock()


@dataclass(frozen=True)
class EarlierFiles:
    """Finds files below ``<root>/artefacts``; ``root`` is the store's folder. Can be pickled."""

    root: Path

    def __call__(self, sha256: str, size: int) -> Path | None:
        """The file with this content, ``size`` bytes long; None where there is none (any more)."""
        with _lock:  # many boards ask for the same: it is looked for once
            found = _find(self.root, sha256, size)
        return found if found is not None and _size(found) == size else None


@functools.lru_cache(maxsize=256)
def _find(root: Path, sha256: str, size: int) -> Path | None:
    """Look at the files of that very size only, the newest first: models of one kind are few."""
    candidates: list[tuple[float, Path]] = []
    for folder, _, names in os.walk(root / "artefacts"):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(folder, name))
                if status.st_size == size:
                    candidates.append((status.st_mtime, Path(folder, name)))
    for _, path in sorted(candidates, reverse=True):
        with contextlib.suppress(OSError), path.open("rb") as stream:
            if hash_stream(stream)[0] == sha256:
                return path
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
