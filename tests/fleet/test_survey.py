"""Many boards asked at once: those that answer, and Ctrl-C while some hang."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from fleet_boards import APP, Fleet

from toolkit.fleet.job import Held
from toolkit.fleet.survey import Probe, survey
from toolkit.remote.address import Address, Limits
from toolkit.ui.events import ignore


def probe(fleet: Fleet, name: str) -> Probe:
    address = Address(name, "local", client="local", interpreters=(str(fleet.home(name) / "python"),))
    return Probe(name, address, Limits(silence=60), "~/PROJECTS", APP, None, "", "")


def alive(pids: list[int]) -> list[psutil.Process]:
    """Those that do not end within a few seconds."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    return psutil.wait_procs(processes, timeout=20)[1]


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_does_not_wait_for_boards_that_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Nor does a second one, while the lines are cut, leave the rest of them as they are."""
    close, closed = Held.close, []

    def close_and_press(line: Held) -> None:
        close(line)
        closed.append(line)
        if again and len(closed) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Held, "close", close_and_press)
    fleet = Fleet(tmp_path / "boards", 5)
    hanging = ["b-1", "b-2"]
    for name in fleet.names[1:]:
        begins, pid = fleet.home(name) / "begins", fleet.home(name) / "pid"
        hang = f"echo $$ > {begins}; mv {begins} {pid}; exec cat > /dev/null"
        (fleet.home(name) / "python").write_text(f"#!/bin/sh\n{hang}\n")
    places = {name: fleet.home(name) / "pid" for name in fleet.names}
    pressed: list[float] = []

    def press() -> None:
        end = time.monotonic() + 60
        while not all(places[name].exists() for name in hanging) and time.monotonic() < end:
            time.sleep(0.02)  # nothing to wait on but the boards' disks
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        survey([probe(fleet, name) for name in fleet.names], 2, ignore)
    assert time.monotonic() - pressed[0] < 30, "not as long as the boards may be silent"
    presser.join()
    assert not alive([int(places[name].read_text()) for name in hanging]), "their lines were cut"
    assert not [name for name in ("b-3", "b-4") if places[name].exists()], "nobody else was asked"


def test_a_board_that_is_no_board_is_one_of_the_facts(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "boards", 3)
    (fleet.home("b-1") / "python").write_text("#!/bin/sh\nexit 1\n")
    facts = survey([probe(fleet, name) for name in fleet.names], 2, ignore)
    assert {name: bool(found.unreachable) for name, found in facts.items()} == {"b-0": False, "b-1": True, "b-2": False}
