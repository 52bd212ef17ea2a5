"""Ctrl-C while boards are asked: it ends with 130, soon, leaves no process behind, and a record of each board."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.commands.conftest import BOARDS, Fleet
from tests.e2e.conftest import environment
from tests.e2e.test_interruptions import processes_of
from toolkit.fleet.receipts import check


@pytest.mark.e2e
def test_bench_in_the_middle(own_fleet: Fleet) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", "bench", "+board=sim", "bench.count=1000000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(own_fleet.home),
        start_new_session=True,
    )
    # Under way once the first board's program has made its folder.
    work = own_fleet.app("sim-1") / "work"
    while process.poll() is None and not (work.is_dir() and any(work.glob("bench-*/results.jsonl"))):
        time.sleep(0.05)  # nothing to wait on but the board's disk
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert processes_of(own_fleet.home) == []

    run = max((own_fleet.home / "runs").iterdir())
    receipts = {path.stem: json.loads(path.read_text()) for path in (run / "receipts").iterdir()}
    assert set(receipts) == set(BOARDS)
    assert {(item["verb"], item["cause"]) for item in receipts.values()} == {("bench", "interrupted")}
    assert receipts["sim-1"]["message"] == "sim-1: interrupted", "the board is not blamed"
    assert all("@" in item["by"] and item["began"] <= item["ended"] for item in receipts.values())
    outcomes = [line for line in (run / "journal.jsonl").read_text().splitlines() if '"outcome"' in line]
    assert len(outcomes) == 3
    assert check(own_fleet.home) == []
