"""The controller is killed before each step that it takes on its own disk; what it finds next time is whole.

CPython announces every change of the file system to audit hooks (PEP 578): each is a point at which a forked
process kills itself. What lies there afterwards is judged, then the same work is done again without a kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.test_pipeline import CONFIG, kitchen
from toolkit.artefacts.hashing import digest_folder
from toolkit.artefacts.lock import Lock
from toolkit.artefacts.store import Store
from toolkit.fleet.journal import RunFolder, read_journal
from toolkit.fleet.receipts import Receipts, check
from toolkit.pipeline import build
from toolkit.remote.hostkeys import HostKey
from toolkit.remote.trust import pin
from toolkit.ui.events import Event

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
KEY = HostKey("ssh-ed25519", b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(32))


@dataclass(frozen=True)
class Work:
    """``do(home)`` is done, ``judge(home)`` asserts that what lies there is whole or missing, never half."""

    do: Callable[[Path], object]
    judge: Callable[[Path], object]


def build_all(home: Path) -> None:
    build(kitchen(), CONFIG, Store(home), ["c"])


def artefacts_are_whole(home: Path) -> None:
    for record in home.glob("records/*/*.json"):
        digest = json.loads(record.read_text())["digest"]
        assert digest_folder(home / "artefacts" / digest) == digest, "what a record vouches for is there"


def add_receipts(home: Path) -> None:
    receipts = Receipts(home / ".deploy" / "receipts")
    for number in (1, 2):
        run = f"run-{number}"
        receipts.add("board", {"run": run, "status": "ok"}, home / "runs" / run / "receipts" / "board.json")


def chain_is_whole(home: Path) -> None:
    assert check(home) == []


def write_lock(home: Path) -> None:
    for name in ("first", "second"):
        Lock((), (f"app.name={name}",), {"code": "1"}).write(home / "deploy.lock")


def lock_is_readable(home: Path) -> None:
    if (home / "deploy.lock").exists():
        assert Lock.read(home / "deploy.lock").overrides in (("app.name=first",), ("app.name=second",))


def pin_keys(home: Path) -> None:
    for name in ("one", "two"):
        pin(home / "ssh" / "known_hosts", name, [KEY])


def keys_are_whole_lines(home: Path) -> None:
    path = home / "ssh" / "known_hosts"
    lines = path.read_text().splitlines() if path.exists() else []
    assert [line.split()[0] for line in lines] in ([], ["one"], ["one", "two"])
    assert {line.split(" ", 1)[1] for line in lines} <= {str(KEY)}


def keep_journal(home: Path) -> None:
    run = RunFolder(home / "runs", "app: {}\n", "apply")
    run.show(Event("outcome", board="board", stage="verify", data={"status": "ok"}))
    run.show(Event("summary", data={"exit_code": 0}))
    run.close()


def journals_can_be_read(home: Path) -> None:
    for path in home.glob("runs/*/journal.jsonl"):
        read_journal(path)


WORKS = {
    "build": Work(build_all, artefacts_are_whole),
    "receipts": Work(add_receipts, chain_is_whole),
    "lock": Work(write_lock, lock_is_readable),
    "known_hosts": Work(pin_keys, keys_are_whole_lines),
    "journal": Work(keep_journal, journals_can_be_read),
}


def fork(work: Work, home: Path, die_at: int) -> tuple[int, int]:
    """Do it in a child that kills itself before its ``die_at``-th change; how it ended, and how many it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            seen = 0

            def hook(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal seen
                opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
                if event in CHANGES or opened:
                    seen += 1
                    if seen == die_at:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            work.do(home)
            os.write(writing, str(seen).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, int(said or 0)


@pytest.mark.parametrize("name", WORKS)
def test_killed_before_every_change(name: str, tmp_path: Path) -> None:
    work = WORKS[name]
    (tmp_path / "undisturbed").mkdir()
    status, points = fork(work, tmp_path / "undisturbed", 0)
    assert status == 0
    work.judge(tmp_path / "undisturbed")
    assert points >= 5
    for number in range(1, points + 1):
        home = tmp_path / str(number)
        home.mkdir()
        status, _ = fork(work, home, number)
        assert os.WTERMSIG(status) == signal.SIGKILL, (name, number)
        work.judge(home)
        work.do(home)
        work.judge(home)
