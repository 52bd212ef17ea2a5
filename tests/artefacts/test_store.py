"""The artefact store: nothing half done or damaged is taken for done."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from toolkit.artefacts.hashing import canonical_json, digest_data, digest_folder
from toolkit.artefacts.store import Store, write_atomically


def keep(store: Store, text: str, fingerprint: str = "f" * 64) -> str:
    out = store.work_folder("stage", fingerprint) / "out"
    out.mkdir()
    (out / "file").write_text(text)
    artefact = store.keep(
        "stage", fingerprint, out, parts={"settings": {"a": 1}}, group="app", notes={"n": 1}, seconds=1
    )
    return artefact.digest


def test_what_was_kept_is_found_and_its_work_folder_is_gone(tmp_path: Path) -> None:
    digest = keep(Store(tmp_path), "content")
    found = Store(tmp_path).find("stage", "f" * 64)
    assert found is not None
    assert found.digest == digest == digest_folder(found.path)
    assert found.notes == {"n": 1}
    assert not list((tmp_path / "work").iterdir())


def test_a_damaged_artefact_counts_as_missing(tmp_path: Path) -> None:
    digest = keep(Store(tmp_path), "content")
    (tmp_path / "artefacts" / digest / "file").write_text("damaged")
    assert Store(tmp_path).find("stage", "f" * 64) is None
    assert keep(Store(tmp_path), "content") == digest, "made anew, it takes the damaged one's place"
    assert Store(tmp_path).find("stage", "f" * 64) is not None


def test_a_damaged_record_counts_as_missing(tmp_path: Path) -> None:
    keep(Store(tmp_path), "content")
    (tmp_path / "records" / "stage" / ("f" * 64 + ".json")).write_text('{"digest": ')
    assert Store(tmp_path).find("stage", "f" * 64) is None


def test_an_extra_file_in_an_artefact_is_damage(tmp_path: Path) -> None:
    digest = keep(Store(tmp_path), "content")
    (tmp_path / "artefacts" / digest / "more").write_text("")
    assert Store(tmp_path).find("stage", "f" * 64) is None


def test_two_fingerprints_can_share_an_artefact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert keep(store, "same", "a" * 64) == keep(store, "same", "b" * 64)
    assert len(list((tmp_path / "artefacts").iterdir())) == 1


def test_the_latest_parts_are_of_the_same_app(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "one")
    assert store.latest("stage", "app") == {"settings": {"a": 1}}
    assert store.latest("stage", "other") is None


def test_atomic_writes_leave_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
def test_digests_do_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert digest_data(value) == digest_data(turned)
    assert json.loads(canonical_json(value)) == value


def test_what_is_no_file_is_left_out_of_a_folders_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    before = digest_folder(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "dangling").symlink_to("nothing")
    assert digest_folder(tmp_path) == before
    (tmp_path / "b").symlink_to("a")
    assert digest_folder(tmp_path) != before, "a link to a file is a file"
