"""Chips that fail in a rollout, each in its own way."""

from __future__ import annotations

import os

import pytest

from tests.commands.conftest import BOARDS, Fleet


@pytest.mark.e2e
def test_boards_whose_chips_fail_keep_what_they_had_and_the_third_goes_on(own_fleet: Fleet) -> None:
    before = {name: os.readlink(own_fleet.app(name) / "current") for name in BOARDS}
    faults = {"sim-1": {"board.faults.execute_error": 507011}, "sim-2": {"board.faults": {"lose_device_after": 2}}}
    labels = "app.labels=[a,b,c,d,e,f,g,h,i,j]"  # another release
    done = own_fleet.deploy(own_fleet.inventory(faults), "simulate=true", "app=digits", labels, "--yes")
    assert done.code == 4, done.out + done.err
    boards = done.boards
    assert {name: (board["status"], board["stage"]) for name, board in boards.items()} == {
        "sim-1": ("failed", "infer"), "sim-2": ("failed", "infer"), "sim-3": ("ok", ""),
    }  # fmt: skip
    for name, code, hint in (("sim-1", 507011, "the chip failed while"), ("sim-2", 507010, "contact with the chip")):
        assert f"acl.mdl.execute failed: {code} " in boards[name]["message"]
        assert boards[name]["hint"].startswith(hint)
        assert os.readlink(own_fleet.app(name) / "current") == before[name]
    assert os.readlink(own_fleet.app("sim-3") / "current") == f"releases/{boards['sim-3']['release']}"
    assert boards["sim-3"]["switched"]
