"""``deploy infer``, ``bench`` and ``logs``: what runs on the boards beside a rollout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stages.commands import logs
from tests.commands.conftest import BOARDS, Fleet


@pytest.fixture
def photos(fleet: Fleet, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    source = fleet.app("sim-1") / "current" / "pictures"
    for digit in (3, 7):
        picture = sorted(source.glob(f"{digit}_*.png"))[0]
        (folder / f"my {digit}.png").write_bytes(picture.read_bytes())
    (folder / "text.jpg").write_text("not a picture")
    return folder


@pytest.mark.e2e
def test_other_pictures(fleet: Fleet, photos: Path) -> None:
    before = {name: os.readlink(fleet.app(name) / "current") for name in BOARDS}
    done = fleet.deploy("infer", "+board=sim", f"infer.pictures={photos}", "infer.top_k=2")
    assert done.code == 0, done.out + done.err
    assert done.ran == [], "nothing is built"
    (result,) = done.of("result")
    for item in result["boards"]:
        classes = {entry["picture"]: entry.get("class") for entry in item["results"]}
        assert classes == {"my 3.png": "3", "my 7.png": "7", "text.jpg": None}
        assert item["figures"]["failed"] == ["text.jpg"]
        assert all(len(entry["top"]) == 2 for entry in item["results"] if "top" in entry)
        assert (Path(item["folder"]) / "my 3.png").stat().st_size > 0
        assert not list((fleet.app(item["board"]) / "work").iterdir())
    assert {name: os.readlink(fleet.app(name) / "current") for name in BOARDS} == before

    text = fleet.deploy("infer", "+board=sim", f"infer.pictures={photos}", json_lines=False)
    assert text.code == 0
    assert [line.split()[:4] for line in text.out.splitlines() if line.startswith("my 3")] == [
        ["my", "3.png", "all", "3"]
    ]


@pytest.mark.e2e
def test_nothing_to_run_with_and_nothing_to_run_on(fleet: Fleet, photos: Path) -> None:
    done = fleet.deploy("infer", "+board=sim", json_lines=False)
    assert done.code == 2
    assert done.err.splitlines()[0] == "error: infer: no pictures"
    found = fleet.ask("infer", "+board=sim", f"infer.pictures={photos}", "app.name=other", code=5)
    assert {item["cause"] for item in found.values()} == {"no-release"}


@pytest.mark.e2e
def test_bench(fleet: Fleet) -> None:
    done = fleet.deploy("bench", "+board=sim", "bench.count=40", "bench.warmup=3")
    assert done.code == 0, done.out + done.err
    (result,) = done.of("result")
    assert len(result["boards"]) == 3
    for item in result["boards"]:
        figures = item["figures"]
        assert figures["count"] == 40
        assert figures["min_ms"] <= figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"] <= figures["max_ms"]
        assert figures["min_ms"] <= figures["mean_ms"] <= figures["max_ms"]
        assert figures["throughput"] > 0
        assert figures["host_memory_mb"] > 10
        kept = json.loads((fleet.home / "runs" / result["run"] / item["board"] / "bench.json").read_text())
        assert len(kept["times"]) == kept["count"] == 40
        # One picture an execution: what it took and how many there were agree.
        assert kept["throughput"] == pytest.approx(40 / kept["seconds"], rel=0.01)
        assert sum(kept["times"]) <= kept["seconds"] * 1000


@pytest.mark.e2e
def test_logs(own_fleet: Fleet) -> None:
    folder = own_fleet.disk("sim-1") / "ascend" / "log" / "run" / "plog"
    folder.mkdir(parents=True)
    (folder / "plog-7.log").write_text("[INFO] start\n[ERROR] RUNTIME \x1b[31mdevice 507033\x1b[0m lost\n")
    (folder / "..;rm -rf;x.log").write_text("quiet\n")
    done = own_fleet.deploy("logs", "+board=sim")
    assert done.code == 0, done.out + done.err
    (result,) = done.of("result")
    logs = {item["board"]: item for item in result["boards"]}
    assert [entry["what"] for entry in logs["sim-2"]["journal"]][-1] == "settled"
    assert logs["sim-2"]["files"] == {}
    files = logs["sim-1"]["files"]
    assert len(files) == 2
    here = own_fleet.home / "runs" / result["run"] / "sim-1" / "logs"
    assert {Path(path).parent for path in files.values()} == {here}
    assert all(";" not in Path(path).name and ".." not in Path(path).name for path in files.values())
    (plog,) = [Path(path) for path in files.values() if "plog-7" in path]
    assert plog.read_text() == "[INFO] start\n[ERROR] RUNTIME device 507033 lost\n"
    assert "device is in a bad state" in logs["sim-1"]["explained"]
    text = own_fleet.deploy("logs", "+board=sim", json_lines=False)
    assert "\x1b" not in text.out
    assert "settled" in text.out


def test_a_log_whose_name_is_garbage_hurts_no_other(tmp_path: Path) -> None:
    a, b = f'{logs.MARK}["/a", 1]', f'{logs.MARK}["/b", 1]'
    printed = [a, "first", f"{logs.MARK}garbage", "whose is this?", b, "second"]
    kept = logs._keep(printed, tmp_path)
    assert {name: Path(path).read_text() for name, path in kept.items()} == {"/a": "first\n", "/b": "second\n"}
