"""One rollout to simulated boards of every shipped profile: what differs is converted apart, the rest is shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Demo
from toolkit.paths import CONF

# host is a machine that is no board.
PROFILES = sorted(path.stem for path in (CONF / "board").glob("*.yaml") if path.stem not in ("sim", "host"))


@pytest.mark.e2e
def test_every_profile_gets_its_release(demo: Demo, tmp_path: Path) -> None:
    boards: dict[str, object] = {
        name: {"profile": name, "host": f"192.0.2.{number}"} for number, name in enumerate(PROFILES, 1)
    }
    # The tutorial's kit with a later SD card: the same profile, another CANN, another environment.
    boards["200dk-new"] = {
        "profile": "200dk",
        "host": "192.0.2.100",
        "overrides": {"board.cann.version": "5.0.4"},
    }
    inventory = tmp_path / "all.yaml"
    inventory.write_text(json.dumps({"boards": boards}))
    done = demo.deploy(f"inventory={inventory}", "app=digits", "simulate=true")
    assert done.code == 0, done.err
    assert done.boards.keys() == boards.keys()
    for name, outcome in done.boards.items():
        assert outcome["status"] == "ok", (name, outcome)
        assert outcome["figures"]["agreement"] == 1.0
    assert "train" not in done.ran, "the network is trained once for all"
    converted = done.of("done", stage="convert")
    socs = {event["data"]["notes"]["command"][4] for event in converted}
    assert {"--soc_version=Ascend310B4", "--soc_version=Ascend310P3"} <= socs
    assert len(converted) < len(boards), "once for each distinct chip and CANN, not for each board"
    releases = {name: outcome["release"] for name, outcome in done.boards.items()}
    assert releases["200dk"] != releases["200dk-new"]
    assert done.of("progress", board="ai1s"), "its progress is told by name"
