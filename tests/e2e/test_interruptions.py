"""Ctrl-C in each stage: it ends with 130, leaves no process, and nothing half done is taken for done later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Demo, copy_of, environment, once, run

QUICK = ("+board=sim", "board.count=1", "train.epochs=1", "verify.max_difference=0.1")


def processes_of(home: Path) -> list[str]:
    """Command lines of all processes that were started with ``home`` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"DEPLOY_HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def left_after_a_moment(home: Path) -> list[str]:
    """Those that are still there when the killed ones have had time to be gone from /proc."""
    for _ in range(600):
        if not (left := processes_of(home)):
            break
        # Their end is an event of other processes: there is nothing to wait on but /proc.
        subprocess.run(["sleep", "0.05"], check=True)
    return left


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """One board, one epoch. To look at only."""
    return once("quick", tmp_path_factory, lambda home: run(home, *QUICK))


# What makes a stage run again, and nothing before it.
AGAIN = {
    "data": "data.seed=7",
    "train": "train.seed=7",
    "export": "export.output_name=scores",
    "convert": "atc.precision_mode=must_keep_origin_dtype",
    "package": "app.labels=[a,b,c,d,e,f,g,h,i,j]",
    "push": "app.labels=[a,b,c,d,e,f,g,h,i,j]",
    "env": "app.labels=[a,b,c,d,e,f,g,h,i,j]",
    "infer": "infer.top_k=3",
    "fetch": "infer.top_k=3",
    "verify": "infer.top_k=3",
}


@pytest.mark.e2e
@pytest.mark.parametrize("stage", AGAIN)
def test_ctrl_c_in_each_stage(quick: Demo, tmp_path: Path, stage: str) -> None:
    assert quick.first.code == 0, quick.first.err
    home = copy_of(quick, tmp_path / "run").home
    words = (*QUICK, AGAIN[stage])
    # A process group of its own gets the signal, as a terminal would send it.
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("stage") == stage and event["event"] in ("start", "progress"):
            os.killpg(process.pid, signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130, rest + errors
    assert "Traceback" not in errors
    assert left_after_a_moment(home) == []

    again = run(home, *words)
    assert again.code == 0, again.err
    (outcome,) = again.boards.values()
    assert outcome["status"] in ("ok", "unchanged")
    assert outcome["figures"]["agreement"] == 1.0
    assert run(home, *words).ran == []


@pytest.mark.e2e
def test_killed_outright_leaves_no_process(tmp_path: Path) -> None:
    home = tmp_path / "run"
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", *QUICK, "--json"], stdout=subprocess.PIPE, text=True, env=environment(home)
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("stage") == "convert" and event["event"] == "start":
            process.kill()
            break
    process.wait(timeout=30)
    process.stdout.close()
    assert left_after_a_moment(home) == []
    assert run(home, *QUICK).code == 0
