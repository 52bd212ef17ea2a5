"""``deploy doctor`` with boards: fit ones, faulty ones, others than the profile says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import BOARDS, Fleet, Live
from tests.e2e.conftest import Deploy, Result
from toolkit.sim import SimBoard

LINES = {
    "SSH", "host key", "disk", "clock", "Python", "NumPy", "Pillow", "acl", "npu-smi", "chip", "health", "temperature",
    "memory", "driver", "CANN", "permission", "environment",
}  # fmt: skip


def boards(done: Result) -> dict[str, dict[str, dict[str, Any]]]:
    """Board → what → finding."""
    (result,) = done.of("result")
    return {item["board"]: {one["what"]: one for one in item["findings"]} for item in result["boards"]}


@pytest.mark.e2e
def test_a_fit_fleet(fleet: Fleet) -> None:
    done = fleet.deploy("doctor", "+board=sim")
    assert done.code == 0, done.out
    found = boards(done)
    assert set(found) == set(BOARDS)
    for findings in found.values():
        assert set(findings) - {"font"} == LINES
        assert {item["state"] for what, item in findings.items() if what != "font"} == {"ok"}
    assert "Ascend310" in found["sim-1"]["acl"]["text"], "the device was really asked"


@pytest.mark.e2e
def test_faults_show(deploy: Deploy) -> None:
    faults = ("board.faults.health=Critical", "board.faults.temperature=104", "board.faults.memory_mb=1500")
    done = deploy("doctor", "+board=sim", "board.count=1", *faults)
    assert done.code == 5
    (found,) = boards(done).values()
    assert (found["health"]["state"], found["temperature"]["state"], found["memory"]["state"]) == ("bad", "bad", "note")
    assert "80E1800F" in found["health"]["text"]
    assert "board.memory_mb=1500" in found["memory"]["fix"]

    done = deploy("doctor", "+board=sim", "board.count=1", "board.faults.no_permission=true", json_lines=False)
    assert done.code == 5
    assert "usermod -aG HwHiAiUser" in done.out


@pytest.mark.e2e
def test_an_alarm_on_a_310b4_is_no_reason_to_stop(deploy: Deploy) -> None:
    done = deploy("doctor", "+board=200i_dk_a2", "simulate=true", "board.faults.health=Alarm")
    assert done.code == 0
    (found,) = boards(done).values()
    assert found["health"]["state"] == "note"
    assert "80E3A203" in found["health"]["text"]


@pytest.mark.e2e
def test_another_board_than_the_profile_says(live: Callable[..., Live]) -> None:
    """Real ones to the program: an Atlas 300I Duo's host with CANN 7.0.0 where a 200 DK was announced, one gone."""
    card = SimBoard(
        "card", product="Atlas 300I Duo", soc_version="Ascend310P3", npu_name="310P3", chips=2, run_mode="EP",
        memory_mb=43693, arch="x86_64", cann_version="7.0.0", driver_version="23.0.3", interpreters=("python3.7.5",),
    )  # fmt: skip
    there = live(card, SimBoard("gone", faults={"refuse_connections": True}))
    there.inventory(pinned=True, **{"board.cann.version": "5.0.4"})
    done = there.deploy("doctor", "inventory=live")
    assert done.code == 5
    found = boards(done)
    assert found["card"]["chip"]["fix"].startswith("board=300i_duo")
    assert "before 6.0.1" in found["card"]["CANN"]["text"]
    assert list(found["gone"]) == ["SSH"]
    assert found["gone"]["SSH"]["state"] == "bad"


@pytest.mark.e2e
def test_an_unknown_host_key(live: Callable[..., Live], tmp_path: Path) -> None:
    there = live(SimBoard("new"))
    there.inventory()
    done = there.deploy("doctor", "inventory=live")
    assert done.code == 5
    (findings,) = boards(done).values()
    assert list(findings) == ["host key"]
    assert "deploy trust" in findings["host key"]["fix"]
    assert not there.known_hosts.exists()
