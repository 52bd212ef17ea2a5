"""Ctrl-C while boards are asked: it ends with 130, soon, leaves no process behind, and a record of each board."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from stages._boards import each
from tests.commands.conftest import BOARDS, Fleet
from tests.e2e.conftest import environment
from tests.e2e.test_interruptions import processes_of
from toolkit.errors import LineLost
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


def test_again_while_the_lines_are_cut() -> None:
    """The rest of them are cut all the same, and each board has its record."""
    boards: list[Any] = [SimpleNamespace(name=f"b-{number}") for number in range(4)]
    ended = {board.name: threading.Event() for board in boards}
    hang = threading.Barrier(3, timeout=20)
    cut: list[str] = []
    kept: dict[str, Any] = {}

    def work(board: Any) -> None:
        if board.name == "b-2":
            hang.wait()
            signal.raise_signal(signal.SIGINT)
            return  # which wakes the main thread
        if board.name != "b-3":
            hang.wait()
        ended[board.name].wait(20)
        raise LineLost(f"{board.name}: cut", cause="closed", host=board.name)

    def cut_all() -> None:
        for name, event in ended.items():
            cut.append(name)
            event.set()
            if len(cut) == 1:
                signal.raise_signal(signal.SIGINT)

    invocation: Any = SimpleNamespace(config=SimpleNamespace(engine=SimpleNamespace(workers=3)))
    with pytest.raises(KeyboardInterrupt):
        each(invocation, boards, work, cut_all, lambda answer: kept.update({answer.name: answer.failure()}))
    assert cut == list(ended)
    assert kept.keys() == ended.keys()
    assert {name: told.get("cause") for name, told in kept.items()} == {
        name: None if name == "b-2" else "interrupted" for name in ended
    }


def test_while_the_first_boards_are_asked_and_the_last_are_not_yet() -> None:
    begun, cut, kept = threading.Event(), threading.Event(), {}

    class Pressing(list[Any]):
        """Ctrl-C comes when half of them have been handed over, the first time that somebody goes through them."""

        def __iter__(self) -> Iterator[Any]:
            for number, board in enumerate(super().__iter__()):
                if number == 2 and not cut.is_set():
                    assert begun.wait(20)
                    signal.raise_signal(signal.SIGINT)
                yield board

    def work(board: Any) -> None:
        begun.set()
        cut.wait(20)
        raise LineLost(f"{board.name}: cut", cause="closed", host=board.name)

    invocation: Any = SimpleNamespace(config=SimpleNamespace(engine=SimpleNamespace(workers=1)))
    boards = Pressing(SimpleNamespace(name=f"b-{number}") for number in range(4))
    with pytest.raises(KeyboardInterrupt):
        each(invocation, boards, work, cut.set, lambda answer: kept.update({answer.name: answer.failure()["status"]}))
    assert cut.is_set()
    assert kept == {"b-0": "failed", "b-1": "skipped", "b-2": "skipped", "b-3": "skipped"}


LATE = """
import os, signal, threading, time
from stages.__main__ import main

def late():
    while threading.main_thread().is_alive():
        time.sleep(0.01)  # nothing tells that Python ends
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

threading.Thread(target=late).start()
main(["--help"])
"""


def test_while_python_waits_for_its_last_threads() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, check=False)
    assert "rollback" in done.stdout
    assert done.stderr == ""
