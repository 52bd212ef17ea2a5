"""``deploy verify``: files and answers, held against what was put there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.conftest import BOARDS, Fleet, run


@pytest.mark.e2e
def test_boards_as_they_should_be(fleet: Fleet) -> None:
    done = fleet.deploy("verify", "+board=sim")
    assert done.code == 0, done.out + done.err
    (result,) = done.of("result")
    for item in result["boards"]:
        assert (item["status"], item["damaged"], item["missing"], item["problems"]) == ("ok", [], [], [])
        assert item["figures"]["agreement"] == 1.0
        assert 0 < item["figures"]["difference"] < 0.02, "answers of the board's float16, not a copy of the reference"
        assert item["figures"]["pictures"] == 20
        results = fleet.home / "runs" / result["run"] / item["board"] / "results.jsonl"
        assert len(results.read_text().splitlines()) == 20
        assert not list((fleet.app(item["board"]) / "work").iterdir()), "nothing stays behind on the board"


@pytest.mark.e2e
def test_answers_that_disagree(fleet: Fleet) -> None:
    found = fleet.ask("verify", "+board=sim", "verify.max_difference=1e-9", code=6)
    assert {item["status"] for item in found.values()} == {"disagrees"}
    assert all("verify.max_difference" in item["problems"][0] for item in found.values())


@pytest.mark.e2e
def test_figures_out_of_their_limits(fleet: Fleet) -> None:
    found = fleet.ask("verify", "+board=sim", "verify.max_p99_ms=1e-6", "verify.min_agreement=0.5", code=6)
    assert all("more than verify.max_p99_ms" in item["problems"][0] for item in found.values())
    assert {len(item["problems"]) for item in found.values()} == {1}


@pytest.mark.e2e
def test_damaged_files_are_named_and_come_back(own_fleet: Fleet) -> None:
    labels = own_fleet.app("sim-1") / "current" / "labels.txt"
    labels.write_bytes(labels.read_bytes().replace(b"0", b"X"))
    (own_fleet.app("sim-2") / "current" / "pictures" / "0_00106.png").unlink()
    found = own_fleet.ask("verify", "+board=sim", code=7)
    assert (found["sim-1"]["status"], found["sim-1"]["damaged"]) == ("damaged", ["labels.txt"])
    assert found["sim-2"]["missing"] == ["pictures/0_00106.png"]
    assert found["sim-3"]["status"] == "ok"

    # The way out that it names.
    text = own_fleet.deploy("verify", "+board=sim", json_lines=False)
    assert text.code == 7
    assert f"rm -r {own_fleet.app('sim-1')}/blobs, then deploy" in text.out
    for name in BOARDS[:2]:
        shutil.rmtree(own_fleet.app(name) / "blobs")
    assert own_fleet.deploy("+board=sim").code == 0
    assert {item["status"] for item in own_fleet.ask("verify", "+board=sim").values()} == {"ok"}


@pytest.mark.e2e
def test_receipts_here_and_none_at_all(own_fleet: Fleet, tmp_path: Path) -> None:
    sound = own_fleet.deploy("verify", "--receipts", json_lines=False)
    assert (sound.code, sound.out) == (0, "3 receipts: every one is there, as it was written\n")
    shutil.rmtree(own_fleet.home / "runs")
    (own_fleet.home / ".deploy/receipts/sim-2.jsonl").unlink()
    removed = own_fleet.deploy("verify", "--receipts", json_lines=False)
    assert (removed.code, removed.out) == (7, "✗ sim-2: there are 0 receipts, and there were 1\n")
    nothing = run(tmp_path, "verify", "--receipts", json_lines=False)
    assert nothing.code == 0
    assert nothing.out.startswith("there are no receipts in ")
