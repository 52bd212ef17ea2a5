"""``deploy rollback``: back to what ran before, board by board."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Fleet, run
from toolkit.fleet.journal import read_journal
from toolkit.fleet.receipts import check

NEW = "app.labels=[a,b,c,d,e,f,g,h,i,j]"


def receipt(fleet: Fleet, run: str, board: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fleet.home / "runs" / run / "receipts" / f"{board}.json").read_text())
    return found


@pytest.mark.e2e
def test_there_and_back_again(own_fleet: Fleet) -> None:
    old = own_fleet.ask("status", "+board=sim")["sim-1"]["release"]
    assert own_fleet.deploy("+board=sim", NEW).code == 0
    # One board loses its memory of what it ran before.
    shutil.rmtree(own_fleet.app("sim-3"))

    done = own_fleet.deploy("rollback", "+board=sim")
    assert done.code == 4, done.out + done.err
    (result,) = done.of("result")
    found = {item["board"]: item for item in result["boards"]}
    for name in ("sim-1", "sim-2"):
        assert (found[name]["status"], found[name]["release"]) == ("reverted", old)
        new = found[name]["former"]
        assert os.readlink(own_fleet.app(name) / "current") == f"releases/{old}"
        assert os.readlink(own_fleet.app(name) / "previous") == f"releases/{new}"
    assert (found["sim-3"]["status"], found["sim-3"]["cause"]) == ("failed", "no-release")
    kept = {name: receipt(own_fleet, result["run"], name) for name in found}
    for name in ("sim-1", "sim-2"):
        assert (kept[name]["verb"], kept[name]["status"], kept[name]["release"]) == ("rollback", "reverted", old)
        assert kept[name]["previous"] == new, "what it ran before"
        assert "@" in kept[name]["by"]
        assert kept[name]["began"] <= kept[name]["ended"]
        assert len(kept[name]["former"]) == 64, "the receipt before it in the chain"
    assert (kept["sim-3"]["status"], kept["sim-3"]["cause"]) == ("failed", "no-release")

    # Said again, it does not go forward to what it was taken back from.
    inventory = own_fleet.inventory({"sim-2": {"board.faults.refuse_connections": True}})
    again = own_fleet.deploy("rollback", inventory, "hosts=sim-1,sim-2", "simulate=true", "app=digits")
    assert again.code == 4, again.out + again.err
    (result,) = again.of("result")
    one, two = sorted(result["boards"], key=lambda item: str(item["board"]))
    assert (one["status"], one["release"]) == ("unchanged", old)
    assert one["note"].startswith(f"already rolled back from {new[:12]}")
    assert os.readlink(own_fleet.app("sim-1") / "current") == f"releases/{old}"
    assert receipt(own_fleet, result["run"], "sim-2")["cause"] == two["cause"] == "refused"
    story = read_journal(own_fleet.home / "runs" / result["run"])
    assert {name: board.outcome and board.outcome["status"] for name, board in story.boards.items()} == {
        "sim-1": "unchanged",
        "sim-2": "unreachable",
    }
    assert check(own_fleet.home) == []

    # By the beginning of its id; a board that runs it already is left alone.
    inventory = own_fleet.inventory()
    arguments = ("rollback", inventory, "hosts=sim-1,sim-2", "simulate=true", "app=digits")
    assert own_fleet.deploy(*arguments, f"release={new[:8]}").code == 0
    again = own_fleet.ask(*arguments, f"release={new[:8]}")
    assert {item["status"] for item in again.values()} == {"unchanged"}
    nothing = own_fleet.ask(*arguments, "release=0123456789", code=5)
    assert all("no release on it begins with 0123456789" in item["message"] for item in nothing.values())
    ran = own_fleet.ask("verify", *arguments[1:])
    assert {item["status"] for item in ran.values()} == {"ok"}, "what was put back works"


@pytest.mark.e2e
def test_a_fleet_that_was_not_named_is_asked_about(tmp_path: Path) -> None:
    """Nothing listens at these addresses: they are not even tried."""
    boards = {f"cam-{number}": {"host": "127.0.0.1", "port": 1 + number} for number in range(3)}
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "cams.yaml").write_text(json.dumps({"defaults": {"profile": "200dk"}, "boards": boards}))
    refused = run(tmp_path, "rollback", "inventory=cams", json_lines=False)
    assert refused.code == 2
    assert "roll back 3 boards (cam-0, cam-1, cam-2)?" in refused.err
    assert "--yes" in refused.err
    assert not (tmp_path / "runs").exists()
    for named in (("hosts=cam-0,cam-1,cam-2",), ("--yes",)):
        tried = run(tmp_path, "rollback", "inventory=cams", *named)
        assert tried.code == 5
        (result,) = tried.of("result")
        assert {item["cause"] for item in result["boards"]} == {"refused"}
