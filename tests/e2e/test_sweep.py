"""Sweeps: one call, many settings, one table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Deploy, environment, run

pytestmark = pytest.mark.e2e


def test_a_sweep_trains_each_setting_and_ends_with_a_table(tmp_path: Path) -> None:
    arguments = ("train", "-m", "app=digits", "train.epochs=1", "train.lr_max=0.01,0.05", "data.test_fraction=0.8")
    done = run(tmp_path, *arguments, cwd=tmp_path)
    assert done.code == 0, done.err
    (result,) = [event for event in done.of("result") if "sweep" in event]
    rows = result["sweep"]
    assert [row["train.lr_max"] for row in rows] == ["0.01", "0.05"]
    assert all(set(row) == {"train.lr_max", "accuracy", "loss", "seconds", "artefact"} for row in rows)
    assert len({row["artefact"] for row in rows}) == 2
    assert rows[0]["loss"] != rows[1]["loss"]
    trained = done.of("done", stage="train")
    assert [row["accuracy"] for row in rows] == [event["data"]["notes"]["accuracy"] for event in trained]
    assert len(done.of("done", stage="data")) == 1, "shared by both"
    # The same again, for people: nothing is trained anew, and nothing lies about.
    shown = run(tmp_path, *arguments, json_lines=False, cwd=tmp_path)
    table = shown.out.splitlines()[-3:]
    assert table[0].split() == ["train.lr_max", "accuracy", "loss", "seconds", "artefact"]
    assert table[1].split()[-1] == rows[0]["artefact"][:12]
    assert set(os.listdir(tmp_path)) - {"home"} == {".deploy", "runs"}  # home: the test's own


def test_a_setting_that_fails_does_not_end_the_sweep(deploy: Deploy) -> None:
    settings = ("train", "-m", "app=digits", "train.epochs=0", "model.classes=10,1,10,20")
    done = deploy(*settings)
    (result,) = [event for event in done.of("result") if "sweep" in event]
    assert [row["model.classes"] for row in result["sweep"]] == ["10", "1", "20"]
    assert ["error" in row for row in result["sweep"]] == [False, True, False]
    assert "model.classes" in result["sweep"][1]["error"]
    assert done.code == 2
    assert len(done.of("error")) == 1
    assert len(done.of("done", stage="train")) == 2, "10 stands there twice"
    assert len(done.of("result", stage="train")) == 2
    shown = deploy(*settings, json_lines=False).out.splitlines()[-4:]
    assert shown[0].split() == ["model.classes", "seconds", "artefact", "error"]
    assert [line.split()[0] for line in shown[1:]] == ["10", "1", "20"]
    assert shown[2].split()[:3] == ["1", "–", "–"]
    assert "model.classes" in shown[2]


def test_an_interrupted_sweep_shows_what_it_came_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stages", "train", "-m", "app=digits", "train.epochs=0,999,998", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path)) as sweep:
        assert sweep.stdout is not None
        next(line for line in sweep.stdout if '"progress"' in line and '"epoch"' in line)
        sweep.send_signal(signal.SIGINT)
        rest = [json.loads(line) for line in sweep.stdout]
        assert sweep.wait(60) == 130
    ((found,),) = [event["sweep"] for event in rest if "sweep" in event]
    assert found["train.epochs"] == "0"
