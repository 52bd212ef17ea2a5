"""``deploy plan`` over fleets whose boards differ."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.commands.conftest import Fleet, Live
from toolkit.sim import SimBoard


@pytest.mark.e2e
def test_the_order_of_an_inventory_decides_nothing_and_silence_is_no_all_is_well(fleet: Fleet) -> None:
    off = {"sim-3": {"board.faults.refuse_connections": True}, "sim-2": {"rollout.keep_releases": 5}}
    arguments = ("plan", fleet.inventory(off), "simulate=true", "app=digits", "--detailed-exitcode")
    plans = []
    for _ in range(2):
        done = fleet.deploy(*arguments)
        assert done.code == 4, "one board could not be asked: what would change there nobody knows"
        plans += done.of("result")
        file = fleet.home / "inventory" / "ops.yaml"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "boards": dict(reversed(content["boards"].items()))}))
    assert plans[0]["digest"] == plans[1]["digest"]
    assert plans[0]["plan"] == plans[1]["plan"]
    boards = {board["board"]: board for board in plans[0]["boards"]}
    assert boards["sim-1"]["target"] == "200dk"
    assert len({board["target"] for board in boards.values()}) == 3
    assert {name: board["cause"] for name, board in boards.items()} == {"sim-1": "", "sim-2": "", "sim-3": "refused"}
    alone = fleet.deploy(*arguments, "hosts=sim-3")
    assert alone.code == 5
    assert fleet.deploy(*arguments, "hosts=sim-1").code == 0


@pytest.mark.e2e
def test_a_secret_that_is_not_set_is_its_board_s_trouble(live: Callable[..., Live]) -> None:
    boards = live(SimBoard("cam-1", cann_version="20.2"), SimBoard("cam-2", cann_version="20.2"))
    boards.inventory(pinned=True)
    file = boards.home / "inventory" / "live.yaml"
    content = json.loads(file.read_text())
    content["boards"]["cam-2"].pop("key_file")
    content["boards"]["cam-2"]["password"] = "${secret:env,SET_BY_NOBODY}"
    file.write_text(json.dumps(content))
    done = boards.deploy("plan", "inventory=live", "app=digits")
    assert done.code == 0, done.out + done.err
    (result,) = done.of("result")
    one, two = result["boards"]
    assert (one["cause"], two["cause"]) == ("", "input")
    assert "env:SET_BY_NOBODY is empty or not set" in two["reason"]
    assert two["hint"] == "export SET_BY_NOBODY=…"
