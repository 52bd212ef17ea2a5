"""``deploy init``: a beginning in a folder of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Deploy


@pytest.mark.e2e
def test_what_it_puts_there_works(deploy: Deploy, tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = deploy("init", f"out={own}")
    assert done.code == 0, done.out + done.err
    (result,) = done.of("result")
    assert set(result["made"]) >= {"conf/app/mine.yaml", "conf/board/mine.yaml", "inventory/mine.yaml", "README.md"}

    planned = deploy("plan", "--config-dir", str(own / "conf"), "+board=sim", "app=mine")
    assert planned.code == 0, planned.out + planned.err
    (result,) = planned.of("result")
    assert [step["stage"] for step in result["plan"]] == ["data", "train", "export", "convert", "package"]

    printed = deploy("--cfg", "job", "--config-dir", str(own / "conf"), "+board=mine", "app=mine", json_lines=False)
    assert printed.code == 0
    assert "name: mine" in printed.out
    assert "version: 5.0.4" in printed.out

    # Its inventory has a board of its own profile.
    fleet = deploy(
        "status", "--config-dir", str(own / "conf"), f"inventory={own / 'inventory' / 'mine.yaml'}", "app=mine",
        "simulate=true", "hosts=site=hall,!line-1",
    )  # fmt: skip
    assert fleet.code == 0, fleet.out + fleet.err
    (result,) = fleet.of("result")
    assert [item["board"] for item in result["boards"]] == ["line-2"]


@pytest.mark.e2e
def test_nothing_is_overwritten(deploy: Deploy, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "conf" / "app").mkdir(parents=True)
    (own / "conf" / "app" / "mine.yaml").write_text("precious")
    done = deploy("init", f"out={own}")
    (result,) = done.of("result")
    assert result["kept"] == ["conf/app/mine.yaml"]
    assert (own / "conf" / "app" / "mine.yaml").read_text() == "precious"
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    again = deploy("init", f"out={own}")
    (result,) = again.of("result")
    assert result["made"] == []
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    (tmp_path / "file").write_text("")
    blocked = deploy("init", f"out={tmp_path / 'file'}", json_lines=False)
    assert blocked.code == 2
    assert "a file is in the way" in blocked.err
