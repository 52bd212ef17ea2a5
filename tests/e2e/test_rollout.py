"""Plans, waves, questions and catching up, as a user of the command line meets them; over real SSH."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Demo, Result, copy_of, environment
from toolkit.fleet.journal import read_journal
from toolkit.sim import SimBoard, Simulation

LABELS = "app.labels=[a,b,c,d,e,f,g,h,i,j]"


@dataclass
class Desk:
    """Three boards that are up by themselves, in an inventory; to the command line they are like any others."""

    demo: Demo
    simulation: Simulation
    root: Path

    def deploy(self, *arguments: str, **options: Any) -> Result:
        return self.demo.deploy("inventory=desk", "app=digits", *arguments, **options)

    def current(self, name: str) -> str:
        try:
            return os.readlink(self.root / name / "home/HIAI_PROJECTS/digits/current").rpartition("/")[2]
        except OSError:
            return ""

    @property
    def running(self) -> list[str]:
        return [self.current(board.name) for board in self.simulation.boards]


@pytest.fixture(scope="module")
def desk(first_demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("desk")
    demo = copy_of(first_demo, root / "demo")
    boards = [SimBoard(f"desk-{number}", cann_version="20.2") for number in (1, 2, 3)]
    with Simulation(boards, root / "boards") as simulation:
        entries = {
            place.name: {
                "profile": "200dk",
                "host": place.host,
                "port": place.port,
                "user": place.user,
                "key_file": str(place.key_file),
                "host_key": place.host_key,
            }
            for place in simulation.addresses
        }
        folder = demo.home / "inventory"
        folder.mkdir()
        (folder / "desk.yaml").write_text(yaml.safe_dump({"boards": entries}))
        yield Desk(demo, simulation, root / "boards")


@pytest.mark.e2e
def test_a_fleet_that_nobody_named_wants_yes(desk: Desk) -> None:
    refused = desk.deploy(json_lines=False)
    assert refused.code == 2
    assert "3 boards of inventory=desk that were not named" in refused.err
    assert "--yes" in refused.err
    assert desk.running == ["", "", ""]
    no = at_a_terminal(desk, "n\n", "inventory=desk", "app=digits")
    assert no[0] == 2
    assert "Deploy digits to 3 boards" in no[1]
    assert desk.running == ["", "", ""]
    named = desk.deploy("hosts='desk-1,desk-2'")
    assert named.code == 0, named.err
    assert named.ran == [], "the same artefacts as the demo's"
    assert [bool(release) for release in desk.running] == [True, True, False]


def at_a_terminal(desk: Desk, typed: str, *arguments: str) -> tuple[int, str]:
    """Run the command with a terminal for its input and output; exit code and what was shown."""
    near, far = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", *arguments],
        stdin=far,
        stdout=far,
        stderr=far,
        env={**environment(desk.demo.home), "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(far)
    os.write(near, typed.encode())
    shown = b""
    while True:
        try:
            piece = os.read(near, 4096)
        except OSError:  # the other end was closed
            break
        shown += piece
        if not piece:
            break
    os.close(near)
    return process.wait(timeout=60), shown.decode()


@pytest.mark.e2e
def test_a_plan_is_carried_out_exactly_or_refused(desk: Desk, tmp_path: Path) -> None:
    assert desk.deploy("--yes").code == 0
    before = desk.running
    bashrc = desk.root / "desk-2" / "home" / ".bashrc"
    bashrc.write_text(bashrc.read_text().replace("export LD_LIBRARY_PATH=", "export LD_LIBRARY_PATH=/mine:"))
    state = bashrc.read_text()
    file = tmp_path / "monday.plan"

    planned = desk.deploy("plan", LABELS, f"out={file}", "--detailed-exitcode", "rollout.waves=[1]")
    assert planned.code == 3, planned.err
    (result,) = planned.of("result")
    boards = {board["board"]: board for board in result["boards"]}
    assert [step["stage"] for step in result["plan"] if step["runs"]] == ["package"]
    assert boards["desk-1"]["steps"] == ["install", "run", "verify", "switch"]
    assert [line[:29] for line in boards["desk-2"]["environment"]] == [
        "- export LD_LIBRARY_PATH=/mine",
        '+ export LD_LIBRARY_PATH="$HOM',
    ] or len(boards["desk-2"]["environment"]) == 2
    assert (desk.running, bashrc.read_text()) == (before, state), "looking changes nothing"

    edited = json.loads(file.read_text())
    edited["boards"] = edited["boards"][:1]
    (tmp_path / "edited.plan").write_text(json.dumps(edited))
    assert "it was edited" in desk.demo.deploy("apply", f"plan={tmp_path / 'edited.plan'}", json_lines=False).err

    (tmp_path / "half.plan").write_text(file.read_text()[:3000])
    half = desk.demo.deploy("apply", f"plan={tmp_path / 'half.plan'}", json_lines=False)
    assert half.code == 2
    assert "half.plan: not a plan of this version" in half.err

    other = desk.demo.deploy("apply", f"plan={file}", "infer.top_k=4", json_lines=False)
    assert other.code == 7, other.out
    assert "infer.top_k: 5 → 4" in other.err

    done = desk.demo.deploy("apply", f"plan={file}")
    assert done.code == 0, done.err
    assert done.ran == ["package"]
    assert [event["data"]["waves"] for event in done.of("start", stage="rollout")] == [result["waves"]]
    assert result["waves"] == [["desk-1"], ["desk-2"], ["desk-3"]]
    assert {outcome["status"] for outcome in done.boards.values()} == {"ok"}
    assert len(set(desk.running)) == 1
    assert set(desk.running) != set(before)
    again = desk.demo.deploy("apply", f"plan={file}")
    assert again.code == 0, again.err
    assert {outcome["status"] for outcome in again.boards.values()} == {"unchanged"}, "progress is no difference"

    assert desk.deploy("hosts=desk-3", "app.labels=[k,b,c,d,e,f,g,h,i,j]").code == 0
    late = desk.demo.deploy("apply", f"plan={file}", json_lines=False)
    assert late.code == 7
    assert f"desk-3: runs {desk.current('desk-3')[:12]}" in late.err
    assert "desk-1" not in late.err


@pytest.mark.e2e
def test_a_board_that_was_off_is_caught_up(desk: Desk) -> None:
    """All are off at first, while there is something to build: it waits for one, then for the others."""
    names = [board.name for board in desk.simulation.boards]
    for name in names:
        desk.simulation.power_off(name)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "stages", "inventory=desk", "app=digits", "--yes", "--until-done", "--json"),
            *("rollout.retry_first=0.2", "rollout.retry_most=0.5", "app.labels=[o,b,c,d,e,f,g,h,i,j]"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(desk.demo.home),
    )
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        text = events[-1].get("text", "")
        if "none of 3 boards answers" in text and names[0] == "desk-1":
            desk.simulation.power_on(names.pop(0))
        elif "have not answered" in text:
            while names:
                desk.simulation.power_on(names.pop())
    assert process.wait(timeout=60) == 0
    assert [event["stage"] for event in events if event["event"] == "done"] == ["package"]
    boards = {board["board"]: board["status"] for board in events[-1]["boards"]}
    assert boards == {"desk-1": "ok", "desk-2": "ok", "desk-3": "ok"}


@pytest.mark.e2e
def test_killed_in_the_middle_it_tells_what_happened_and_goes_on(desk: Desk) -> None:
    before = desk.running
    labels = "app.labels=[l,b,c,d,e,f,g,h,i,j]"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "stages", "inventory=desk", "app=digits", "--yes", "--json", labels),
            *("rollout.waves=[1]", "rollout.confirm_within=2"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(desk.demo.home),
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("board") == "desk-2" and event.get("text") == "switching":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=30)
    process.stdout.close()

    story = read_journal(max((demo_run for demo_run in (desk.demo.home / "runs").iterdir()), key=lambda run: run.name))
    assert not story.ended
    assert story.pid == process.pid
    states = {name: board.state for name, board in story.boards.items()}
    assert states["desk-1"] == "ended"
    assert states["desk-2"] in ("switching", "confirmed", "ended")
    assert states["desk-3"] == "not-begun"
    assert story.boards["desk-1"].release == desk.current("desk-1")
    assert desk.current("desk-3") == before[2]

    (told,) = desk.deploy("status").of("result")
    assert told["cut_short"]["run"] == story.run
    assert told["cut_short"]["boards"] == {name: board.text for name, board in story.boards.items()}

    again = desk.deploy("--yes", labels)
    assert again.code == 0, again.err
    assert any(f"the run {story.run} " in event.get("text", "") for event in again.of("log"))
    assert again.boards["desk-1"]["status"] == "unchanged"
    assert again.boards["desk-3"]["status"] == "ok"
    assert len(set(desk.running)) == 1


@pytest.mark.e2e
def test_a_bad_release_touches_the_canary_only(demo: Demo) -> None:
    first = demo.deploy("+board=sim", "board.count=6")
    assert first.code == 0, first.err
    homes = [demo.home / ".deploy/sim" / name / "home" for name in first.boards]
    before = [os.readlink(home / "HIAI_PROJECTS/digits/current") for home in homes]
    bad = demo.deploy("+board=sim", "board.count=6", "rollout=canary", LABELS, "verify.max_difference=1e-9")
    assert bad.code == 6
    assert any(note.endswith("/report.html") for note in bad.of("result")[-1]["notes"]), "a failed run has one too"
    statuses = {name: board["status"] for name, board in bad.boards.items()}
    assert statuses == {"sim-1": "failed", **{f"sim-{number}": "skipped" for number in range(2, 7)}}
    assert bad.boards["sim-1"]["cause"] == "gate"
    assert {board["connections"] for name, board in bad.boards.items() if name != "sim-1"} == {0}
    assert [os.readlink(home / "HIAI_PROJECTS/digits/current") for home in homes] == before

    hot = demo.deploy("+board=sim", "board.count=6", "rollout=canary", LABELS, "rollout.gate.max_temperature=1")
    assert hot.code == 6
    assert hot.boards["sim-1"]["status"] == "reverted"
    assert "more than rollout.gate.max_temperature=1" in hot.boards["sim-1"]["message"]
    assert hot.boards["sim-1"]["figures"]["temperature"] > 20
    assert hot.boards["sim-1"]["figures"]["memory_mb"] > 10


@pytest.mark.e2e
def test_waves_of_an_inventory(demo: Demo) -> None:
    planned = demo.deploy(
        "plan", "inventory=factory", "simulate=true", "app=digits", "rollout=by_site", "rollout.apart=ring",
        "hosts='press-*,weld-2'",
    )  # fmt: skip
    assert planned.code == 0, planned.err
    (result,) = planned.of("result")
    assert result["waves"] == [["press-1", "press-2", "press-3"], ["weld-2"]]
    nobody = demo.deploy("plan", "+board=sim", "rollout=by_site", json_lines=False)
    assert nobody.code == 2
    assert "no board has the label site" in nobody.err


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("rollout.waves=[0]", "rollout.waves: 0 is neither"),
        ("rollout.failure_budget=many", "rollout.failure_budget: many is neither"),
        ("rollout.on_failure=panic", "rollout.on_failure: panic is not one of halt, revert_wave, revert_all"),
        ("rollout.pause=soon", "rollout.pause: soon is neither"),
        ("plan=nowhere.plan", "plan=nowhere.plan"),
    ],
)
def test_settings_that_make_no_sense(demo: Demo, override: str, text: str) -> None:
    done = demo.deploy("+board=sim", override, json_lines=False)
    assert done.code == 2
    assert text in done.err.replace("\n", " ")


@pytest.mark.e2e
def test_nobody_to_ask_between_waves(demo: Demo) -> None:
    done = demo.deploy("+board=sim", "rollout=careful", json_lines=False)
    assert done.code == 2
    assert "rollout.pause=ask: there is no terminal" in done.err


@pytest.mark.e2e
def test_stages_on_boards_stop_where_they_are_told_to(demo: Demo) -> None:
    other = "atc.precision_mode=must_keep_origin_dtype"

    def running() -> set[str]:
        (result,) = demo.deploy("status", "+board=sim").of("result")
        return {item["release"] for item in result["boards"]}

    def behind(*words: str) -> set[bool | None]:
        (result,) = demo.deploy("status", "+board=sim", *words).of("result")
        return {item["behind"] for item in result["boards"]}

    before = running()
    assert behind() == {False}
    pushed = demo.deploy("push", "+board=sim", other, "rollout.gate.min_accuracy=0.5")
    assert pushed.code == 0, pushed.out + pushed.err
    assert {item["status"] for item in pushed.boards.values()} == {"ok"}
    assert all("still runs" in item["message"] for item in pushed.boards.values())
    assert running() == before, "nothing is switched"
    assert behind(other) == {True}
    assert all(item["sent"] > 100_000 for item in pushed.boards.values())
    again = demo.deploy("push", "+board=sim", other)
    assert all(item["sent"] < 40_000 for item in again.boards.values()), "it is there"

    fetched = demo.deploy("fetch", "+board=sim", other)
    assert fetched.code == 0, fetched.out + fetched.err
    (run,) = {item.parent for item in (demo.home / "runs").glob("*/sim-1") if "fetch" in journal_of(item.parent)}
    assert len(list((run / "sim-2").glob("*.png"))) == 20
    assert running() == before

    whole = demo.deploy("+board=sim", other)
    assert whole.code == 0, whole.out + whole.err
    assert all(item["sent"] < 40_000 for item in whole.boards.values())
    assert running().isdisjoint(before)


def journal_of(run: Path) -> str:
    """The journal's first line, which names the verb."""
    return (run / "journal.jsonl").read_text().splitlines()[0]
