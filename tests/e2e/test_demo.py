"""``deploy +board=sim`` and what a second run, and each changed setting, does again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import Demo

BUILD = ["data", "train", "export", "convert", "package"]


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder below ``folder`` with its inode, size and time of change."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            found |= snapshot_file(Path(root) / name)
    return found


def snapshot_file(path: Path) -> dict[str, tuple[int, int, int]]:
    """One entry of :func:`snapshot`."""
    stat = path.lstat()
    return {str(path): (stat.st_ino, stat.st_size, stat.st_mtime_ns)}


@pytest.mark.e2e
def test_first_run_does_everything_for_real(first_demo: Demo) -> None:
    first = first_demo.first
    assert first.code == 0, first.err
    assert first.ran == BUILD
    (train,) = first.of("done", stage="train")
    assert train["data"]["notes"]["accuracy"] >= 0.985
    assert set(first.boards) == {"sim-1", "sim-2", "sim-3"}
    for outcome in first.boards.values():
        assert outcome["status"] == "ok"
        assert outcome["connections"] == 1
        assert outcome["figures"]["accuracy"] >= 0.9
        # float16 on the board, float32 here: different, but by no more than half precision explains
        assert 0 < outcome["figures"]["difference"] < 0.02


@pytest.mark.e2e
def test_results_and_pictures_come_back(first_demo: Demo) -> None:
    run = first_demo.run_folder
    for board in ("sim-1", "sim-2", "sim-3"):
        results = [json.loads(line) for line in (run / board / "results.jsonl").read_text().splitlines()]
        assert len(results) == 20
        log = (run / board / "infer.log").read_text()
        assert log.count("======== top5 inference results: =============\n") == 20
        assert "@progress" not in log
        for result in results:
            assert len(result["logits"]) == 10
            assert set(result["ms"]) >= {"decode", "preprocess", "execute", "postprocess"}
            with Image.open(run / board / result["picture"]) as annotated:
                red, green, blue = np.moveaxis(np.asarray(annotated.convert("RGB")), 2, 0)
            reds = int(((red > 200) & (green < 60) & (blue < 60)).sum())
            assert reds > 10, "the class is written in red"
    assert (run / "convert" / "atc.log").read_text().startswith("$ atc --model=")
    journal = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    assert [item["stage"] for item in journal if item["kind"] == "done"] == BUILD
    assert {path.stem for path in (run / "receipts").iterdir()} == {"sim-1", "sim-2", "sim-3"}
    assert {path.name for path in first_demo.home.iterdir()} == {".deploy", "runs", "deploy.lock"}, "no other litter"


@pytest.mark.e2e
def test_second_run_sends_and_writes_nothing(demo: Demo) -> None:
    boards = demo.home / ".deploy" / "sim"

    def state() -> list[dict[str, tuple[int, int, int]]]:
        homes = [boards / name / "home" for name in ("sim-1", "sim-2", "sim-3")]
        return [snapshot(home / "HIAI_PROJECTS") | snapshot_file(home / ".bashrc") for home in homes]

    before = state()
    again = demo.deploy("+board=sim")
    assert again.code == 0, again.err
    assert again.ran == []
    assert state() == before
    for outcome in again.boards.values():
        assert outcome["status"] == "unchanged"
        assert (outcome["connections"], outcome["requests"]) == (1, 1)
        assert outcome["sent"] < 21_000, "the agent and one request"
        assert outcome["figures"]["accuracy"] >= 0.9, "the board remembers its last run"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("data.seed=7", BUILD),
        ("train.seed=7", BUILD[1:]),
        ("train.lr_max=0.04", BUILD[1:]),
        ("model=resnet18", BUILD[1:]),
        ("preprocess.mean=[0.4,0.5,0.5]", BUILD[1:]),
        ("export.output_name=scores", BUILD[2:]),
        ("atc.precision_mode=must_keep_origin_dtype", BUILD[3:]),
        ("preprocess.aipp=true", BUILD[3:]),
        ("data.samples=10", BUILD[4:]),
        ("app.labels=[a,b,c,d,e,f,g,h,i,j]", BUILD[4:]),
        ("infer.top_k=3", []),
        ("verify.max_difference=0.1", []),
        ("train.keep_checkpoints=1", []),
        ("ssh.limits.silence=60", []),
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(demo: Demo, override: str, runs: list[str]) -> None:
    planned = demo.deploy("plan", "+board=sim", override, "--detailed-exitcode")
    assert planned.code == (3 if runs else 0), planned.err
    (result,) = planned.of("result")
    assert [step["stage"] for step in result["plan"] if step["runs"]] == runs
    if runs:
        first = next(step for step in result["plan"] if step["runs"])
        key = override.split("=")[0].removeprefix("train.").removeprefix("model")
        assert any(key.split(".")[-1] in reason for reason in first["reasons"]), first["reasons"]


@pytest.mark.e2e
def test_a_plan_ends_with_0_unless_asked(demo: Demo) -> None:
    planned = demo.deploy("plan", "+board=sim", "train.lr_max=0.04", json_lines=False)
    assert planned.code == 0, planned.err
    assert "train" in planned.out


@pytest.mark.e2e
def test_top_k_only_runs_again(demo: Demo) -> None:
    again = demo.deploy("+board=sim", "infer.top_k=3", "board.count=1")
    # One board is named after its profile: this is a fresh one.
    assert again.code == 0, again.err
    third = demo.deploy("+board=sim", "infer.top_k=2", "board.count=1")
    assert third.ran == []
    (outcome,) = third.boards.values()
    assert outcome["status"] == "ok"
    assert any(item.startswith("push") for item in outcome["skipped"])
    assert outcome["sent"] < 30_000


@pytest.mark.e2e
def test_aipp_in_the_om_gives_the_same_classes(demo: Demo) -> None:
    done = demo.deploy("+board=sim", "preprocess.aipp=true", "board.count=1")
    assert done.code == 0, done.err
    assert done.ran == ["convert", "package"]
    (outcome,) = done.boards.values()
    assert outcome["figures"]["agreement"] == 1.0


@pytest.mark.e2e
def test_a_disagreeing_board_is_refused_and_keeps_what_it_had(demo: Demo) -> None:
    before = demo.deploy("+board=sim", "board.count=1").boards["200dk"]["release"]
    refused = demo.deploy(
        "+board=sim", "board.count=1", "verify.max_difference=1e-9", "app.labels=[a,b,c,d,e,f,g,h,i,j]"
    )
    assert refused.code == 6
    (outcome,) = refused.boards.values()
    assert (outcome["status"], outcome["cause"]) == ("failed", "gate")
    assert "verify.max_difference" in outcome["message"]
    current = demo.home / ".deploy/sim/200dk/home/HIAI_PROJECTS/digits/current"
    assert os.readlink(current).endswith(before)


@pytest.mark.e2e
def test_own_model_files_come_in_at_any_point(demo: Demo, tmp_path: Path) -> None:
    onnx = demo.artefact("export") / "model.onnx"
    om = demo.artefact("convert") / "model.om"
    checkpoint = demo.artefact("train") / "model.ckpt"
    for file, runs in ((onnx, ["export"]), (om, ["convert", "package"]), (checkpoint, ["export"])):
        done = demo.deploy("package", "+board=sim", f"model.from={file}")
        assert done.code == 0, done.err
        assert done.ran[: len(runs)] == runs
        assert "train" not in done.ran
