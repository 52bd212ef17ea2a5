"""Old files found again in the store by their content."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from toolkit.artefacts import earlier
from toolkit.artefacts.earlier import EarlierFiles


def put(root: Path, folder: str, data: bytes, age: float) -> tuple[str, Path]:
    path = root / "artefacts" / folder / "deep" / "model.om"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    os.utime(path, (age, age))
    return hashlib.sha256(data).hexdigest(), path


def test_found_by_content_and_only_files_of_that_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, path = put(tmp_path, "a", b"old model", 1000)
    new, _ = put(tmp_path, "b", b"new model", 2000)
    put(tmp_path, "c", b"another size", 3000)
    (tmp_path / "artefacts" / "link").symlink_to(path)
    hashed: list[str] = []
    hash_stream = earlier.hash_stream

    def counted(stream):  # type: ignore[no-untyped-def]
        hashed.append(stream.name.split("/")[-3])
        return hash_stream(stream)

    monkeypatch.setattr(earlier, "hash_stream", counted)
    find = pickle.loads(pickle.dumps(EarlierFiles(tmp_path)))
    for _ in range(3):
        assert find(old, 9) == path
    assert hashed == ["b", "a"]  # the newest first, and once for all boards
    assert find(new, 12) is None
    path.unlink()
    assert find(old, 9) is None


def test_no_store_is_no_error(tmp_path: Path) -> None:
    assert EarlierFiles(tmp_path / "nowhere")("0" * 64, 5) is None
