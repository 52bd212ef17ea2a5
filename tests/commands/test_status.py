"""``deploy status``: what runs where, and what is no longer as it was left."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.commands.conftest import BOARDS, Fleet
from toolkit.fleet.journal import RunFolder
from toolkit.ui.events import Event


@pytest.mark.e2e
def test_boards_as_the_rollout_left_them(fleet: Fleet) -> None:
    found = fleet.ask("status", "+board=sim")
    assert list(found) == list(BOARDS)
    releases = {item["release"] for item in found.values()}
    assert len(releases) == 1
    assert len(releases.pop()) == 64
    for item in found.values():
        assert (item["status"], item["healthy"], item["drifted"], item["behind"]) == ("ok", True, [], False)
        assert 0 < time.time() - item["since"] < 86400
        assert "@" in item["by"]
        assert item["figures"]["accuracy"] >= 0.9


@pytest.mark.e2e
def test_as_a_table(fleet: Fleet) -> None:
    done = fleet.deploy("status", "+board=sim", "app.labels=[k,l,m,n,o,p,q,r,s,t]", json_lines=False)
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["board", "release", "since", "by", "state"]
    assert [row.split()[0] for row in rows[:3]] == list(BOARDS)
    assert all(row.endswith("healthy") for row in rows[:3]), "that release is not built here: nothing to compare with"
    assert rows[3] == "digits: 3 of 3 boards healthy"


@pytest.mark.e2e
def test_what_drifted_is_named_and_who_does_not_answer(own_fleet: Fleet) -> None:
    one, two = own_fleet.disk("sim-1"), own_fleet.app("sim-2")
    (one / ".bashrc").write_text((one / ".bashrc").read_text().replace("acllib", "acllob"))
    blob = next(path for path in (two / "blobs").iterdir() if path.stat().st_size > 100_000)
    blob.unlink()
    # Its blob is whole: only the release's own name for it is gone. Sent is nothing, repaired it is.
    (one / "HIAI_PROJECTS/digits/current/labels.txt").unlink()
    (own_fleet.app("sim-3") / "current" / "manifest.json").unlink()
    found = own_fleet.ask("status", "+board=sim", "app.labels=[k,l,m,n,o,p,q,r,s,t]")
    assert found["sim-1"]["drifted"][1] == "1 file missing or cut short, such as labels.txt"
    assert "points to a release that is not there" in found["sim-3"]["drifted"][0]
    mended = own_fleet.deploy("+board=sim")
    assert mended.code == 0, mended.out + mended.err
    assert {board["status"] for board in mended.boards.values()} == {"ok"}
    assert {name: item["drifted"] for name, item in own_fleet.ask("status", "+board=sim").items()} == {
        name: [] for name in BOARDS
    }

    (one / ".bashrc").write_text((one / ".bashrc").read_text().replace("acllib", "acllob"))
    blob = next(path for path in (two / "blobs").iterdir() if path.stat().st_size > 100_000)
    blob.unlink()
    inventory = own_fleet.inventory({"sim-3": {"board.faults.refuse_connections": True}})
    found = own_fleet.ask("status", inventory, "simulate=true", "app=digits", code=4)
    assert found["sim-1"]["drifted"] == ["the environment in ~/.bashrc is another"]
    assert found["sim-1"]["healthy"] is False
    assert found["sim-2"]["drifted"] == ["1 file missing or cut short, such as model.om"]
    assert (found["sim-3"]["status"], found["sim-3"]["cause"]) == ("unreachable", "refused")

    # Somebody put something of his own in the place of our link.
    (own_fleet.app("sim-1") / "current").unlink()
    (own_fleet.app("sim-1") / "current").mkdir()
    shutil.rmtree(own_fleet.app("sim-2"))
    found = own_fleet.ask("status", "+board=sim")
    assert "was not made by this program" in found["sim-1"]["drifted"][0]
    assert (found["sim-2"]["release"], found["sim-2"]["drifted"]) == ("", [])
    assert found["sim-3"]["healthy"] is True


@pytest.mark.e2e
def test_nobody_answers(own_fleet: Fleet) -> None:
    before = os.stat(own_fleet.app("sim-1") / "current", follow_symlinks=False).st_mtime_ns
    done = own_fleet.deploy("status", "+board=sim", "board.faults.refuse_connections=true", json_lines=False)
    assert done.code == 5
    assert "✗ sim-1, sim-2, sim-3: " in done.out, "what is wrong with all is said once"
    assert os.stat(own_fleet.app("sim-1") / "current", follow_symlinks=False).st_mtime_ns == before

    # Nor is anything built for them; and each has its own end and its receipt.
    built = own_fleet.deploy("+board=sim", "data.seed=7", "board.faults.refuse_connections=true")
    assert (built.code, built.ran) == (5, [])
    assert {name: board["cause"] for name, board in built.boards.items()} == dict.fromkeys(BOARDS, "refused")
    run = max((own_fleet.home / "runs").iterdir())
    assert {path.stem for path in (run / "receipts").iterdir()} == set(BOARDS)


@pytest.mark.e2e
def test_a_killed_rollout_is_told_whatever_the_app(own_fleet: Fleet) -> None:
    for app in ("digits", "cats"):
        run = RunFolder(own_fleet.home / "runs", "", "apply")
        run.show(Event("start", stage="connect", board="sim-1", data={"app": app}))
        run.close()
    for app, told in (("digits", "(apply)"), ("dogs", "(apply, cats)")):
        done = own_fleet.deploy("status", "+board=sim", f"app.name={app}", json_lines=False)
        assert f"{told} was killed before its end" in done.out
        assert "sim-1: cut short in connect: it runs what it ran before" in done.out
