"""Training on another machine: a real SSH server, a real training, cut in the middle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from learning import digits_spec

from toolkit.errors import InputError, Interrupted, LineLost, UsageError
from toolkit.learn import over_ssh
from toolkit.learn.settings import DataSettings, ModelSettings, RemoteSettings, TrainSettings, Where
from toolkit.remote.address import Address, Limits
from toolkit.sim import SimBoard, Simulation
from toolkit.ui.events import Event, ignore

pytestmark = pytest.mark.learn


class Machine:
    """A simulated training host."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        (place,) = simulation.addresses
        self.home = Path(place.home)
        address = Address(
            name=place.name,
            host=place.host,
            port=place.port,
            user=place.user,
            key_file=place.key_file,
            host_key=place.host_key,
            known_hosts=(),
            ssh_config="",
        )
        environment = "export ONEDNN_MAX_CPU_ISA=AVX2\n"
        self.host = over_ssh.TrainHost(address, Limits(), "~/learning", environment, sys.executable)

    @property
    def work(self) -> Path:
        return self.home / "learning" / "training" / "work" / "host"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Simulation([SimBoard("gpu-1", toolkit=False)], tmp_path_factory.mktemp("hosts")) as simulation:
        yield Machine(simulation)


def train(
    machine: Machine,
    name: str,
    data: Path | None,
    out: Path,
    emit: Callable[[Event], None] = ignore,
    remote: RemoteSettings | None = None,
    attach: bool = False,
    **recipe: Any,
) -> dict[str, Any]:
    settings = TrainSettings(**{"epochs": 2, "where": Where.ssh, **recipe}, remote=remote or RemoteSettings("gpu-1"))
    return over_ssh.train(
        machine.host,
        name,
        data,
        ModelSettings(),
        digits_spec(),
        settings,
        DataSettings(),
        out=out,
        work=out.parent,
        emit=emit,
        attach=attach,
        wait=lambda seconds: None,
    )


def test_a_cut_line_does_not_end_the_training_and_it_is_found_again(
    machine: Machine, few: Path, tmp_path: Path
) -> None:
    events: list[Event] = []

    def cut(event: Event) -> None:
        events.append(event)
        if event.data.get("epoch") == 1 and not any("line up again" in item.text for item in events):
            machine.simulation.cut("gpu-1")

    report = train(machine, "cut", few, tmp_path / "out", cut)
    warnings = [event.text for event in events if event.kind == "warning"]
    assert any("taking the line up again" in text for text in warnings)
    assert any("found on gpu-1" in event.text for event in events)
    done = [event.data["done"] for event in events if event.kind == "progress"]
    assert done == sorted(set(done)), "no line twice, none lost"
    assert done[-1] == 2 * 15
    assert report["resumed_from"] == 0, "it was not started anew"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.ckpt", "last.ckpt", "best.ckpt", "history.csv", "curves.png"}
    assert report["summary"].endswith("on gpu-1")
    assert not (machine.work / "job-cut").exists()


def test_ctrl_c_leaves_it_running_and_the_same_call_follows_it(
    machine: Machine, few: Path, tmp_path: Path
) -> None:
    before: list[Event] = []

    def press(event: Event) -> None:
        if event.data.get("epoch") == 2:
            raise KeyboardInterrupt
        before.append(event)

    with pytest.raises(UsageError, match="no such training on gpu-1"):
        train(machine, "left", few, tmp_path / "out", epochs=3, attach=True)
    with pytest.raises(Interrupted, match="goes on on gpu-1") as caught:
        train(machine, "left", few, tmp_path / "out", press, epochs=3)
    assert "deploy cancel" in caught.value.hint
    events: list[Event] = []
    report = train(machine, "left", few, tmp_path / "out", events.append, epochs=3, attach=True)
    done = [event.data["done"] for event in [*before, *events] if event.kind == "progress"]
    assert before
    assert done == sorted(set(done)), "told where it stopped being told, nothing twice"
    assert [event.text for event in events if "found on gpu-1" in event.text]
    assert not [event.text for event in events if "files sent" in event.text]
    assert (report["resumed_from"], report["steps"]) == (0, 3 * 15)


def test_only_what_changed_is_sent(machine: Machine, few: Path, tmp_path: Path) -> None:
    if not (machine.work / "blobs").exists():  # another test of this module has sent them, if it ran here
        train(machine, "before", few, tmp_path / "out", epochs=0)
    kept = {path.name for path in (machine.work / "blobs").iterdir()}
    events: list[Event] = []
    train(machine, "again", few, tmp_path / "out", events.append, epochs=0)
    (sent,) = [event.text for event in events if "files sent" in event.text]
    assert sent.startswith("0 of ")
    assert {path.name for path in (machine.work / "blobs").iterdir()} == kept


def test_a_training_is_cancelled_and_gone_on_with(machine: Machine, few: Path, tmp_path: Path) -> None:
    def press(event: Event) -> None:
        if event.data.get("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(machine, "ended", few, tmp_path / "out", press, epochs=30)
    cancel = RemoteSettings("gpu-1", cancel=True)
    with pytest.raises(Interrupted, match="is cancelled"):
        train(machine, "ended", few, tmp_path / "out", epochs=30, remote=cancel)
    with pytest.raises(UsageError, match="already ended on gpu-1"):
        train(machine, "ended", few, tmp_path / "out", epochs=30, remote=cancel)
    with pytest.raises(UsageError, match="no such training on gpu-1"):
        train(machine, "never", few, tmp_path / "out", remote=cancel)
    assert running(machine.work / "job-ended") == []
    checkpoints = list((machine.work / "job-ended" / "state").glob("*/epoch-*.ckpt"))
    assert checkpoints, "what it learned is kept"


def test_the_workers_errors_are_told_as_its_own(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gpu-1: .*Ascend") as caught:
        train(machine, "wrong", None, tmp_path / "out", epochs=0, device_target="Ascend")
    assert "\n" not in str(caught.value)


def test_a_host_that_stays_away_ends_it_with_what_to_do(machine: Machine, few: Path, tmp_path: Path) -> None:
    def off(event: Event) -> None:
        if event.kind == "progress":
            machine.simulation.power_off("gpu-1")

    try:
        with pytest.raises((LineLost, Exception), match="gpu-1") as caught:
            train(machine, "off", few, tmp_path / "out", off, remote=RemoteSettings("gpu-1", attempts=1))
        assert "the same command finds it again" in caught.value.hint  # type: ignore[attr-defined]
    finally:
        machine.simulation.power_on("gpu-1")


def running(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found
