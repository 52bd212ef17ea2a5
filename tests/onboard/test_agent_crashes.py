"""Killed anywhere, and the power lost anywhere: by enumeration of every step, not by luck.

For each scenario the agent is killed before each of its changes of the disk (in the middle, of a write).
Then the disk is made to look as after a mere kill, and as after a power failure of three kinds. Each time:
no half release is current, no damaged content counts as good, and the next rollout gets there without a
person.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_board import (
    APP,
    ROOT,
    Durable,
    ForkedLine,
    Made,
    board,
    copy_tree,
    deploy,
    left_over,
    make_release,
    problems,
    recording,
    records,
    tidy,
)

from toolkit.errors import LineLost
from toolkit.remote.agent import BoardAgent
from toolkit.remote.boot import HEADER

BASHRC = "# people's own\nalias ll='ls -l'\n"

MODEL = b"model" * 40
LARGE = random.Random(0).randbytes(400_000)
CONTENTS = {
    "first": {
        "model.om": MODEL,
        "infer.py": b"print(1)\n",
        "env.sh": b"true\n",
        "pictures/a.jpg": b"\xff\xd8a",
    },
    "second": {
        "model.om": MODEL,
        "infer.py": b"print(2)\n",
        "env.sh": b"true\n",
        "pictures/ä.jpg": b"\xff\xd8b",
    },
    "third": {"model.om": MODEL + b"3", "infer.py": b"print(1)\n"},
    "fourth": {"model.om": MODEL + b"4"},
    "fifth": {"model.om": MODEL + b"5"},
    # Large enough to be sent as what differs.
    "large": {"model.om": LARGE},
    "larger": {"model.om": LARGE[:100_000] + b"inserted" + LARGE[100_000:-100] + b"tuned" * 20},
}

# Which folders keep their unflushed names (by step and folder), and what becomes of unflushed content.
CRASHES: dict[str, tuple[Callable[[int], Callable[[int], bool]], str]] = {
    "names kept, content zeros": (lambda step: lambda folder: True, "zeros"),
    "names and content lost": (lambda step: lambda folder: False, "lost"),
    "some names lost, content zeros": (
        lambda step: lambda folder: bool((step * 7 + folder * 3) % 2),
        "zeros",
    ),
}


@dataclass(frozen=True)
class Scenario:
    """``before``: already deployed; ``act``: what is cut short; ``then``: what the next rollout wants."""

    before: tuple[str, ...]
    act: Callable[[BoardAgent, dict[str, Made]], object]
    then: str
    killed_only: bool = False


def install(name: str, *older: str) -> Callable[[BoardAgent, dict[str, Made]], object]:
    def act(agent: BoardAgent, made: dict[str, Made]) -> object:
        agent.inspect(ROOT, APP, made[name].wish())
        agent.lock("tests")
        report = made[name].install(agent, *(made[one] for one in older))
        assert report.deltas == len(older)
        agent.switch(made[name].id, 60)
        agent.confirm({"run_key": name, "release": made[name].id})
        return None

    return act


def environment(agent: BoardAgent, made: dict[str, Made]) -> object:
    agent.inspect(ROOT, APP)
    return agent.set_environment("export CHANGED=1")


def revert(agent: BoardAgent, made: dict[str, Made]) -> object:
    agent.inspect(ROOT, APP)
    return agent.revert()


def unconfirmed_revert(agent: BoardAgent, made: dict[str, Made]) -> object:
    """An agent finds a switch that nobody confirmed, from before a reboot."""
    return agent.inspect(ROOT, APP)


SCENARIOS = {
    "first install": Scenario((), install("first"), "first"),
    "update": Scenario(("first",), install("second"), "second"),
    "changed model": Scenario(("large",), install("larger", "large"), "larger"),
    "another release instead": Scenario(("first",), install("second"), "third", killed_only=True),
    "environment": Scenario(("first",), environment, "first"),
    "prune": Scenario(("first", "second", "third", "fourth"), install("fifth"), "fifth"),
    "revert": Scenario(("first", "second"), revert, "second"),
    "repair": Scenario(("first", "damage"), install("first"), "first"),
    "reverts by itself": Scenario(("first",), unconfirmed_revert, "second"),
}

POINTS: dict[str, int] = {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("releases")
    return {
        name: make_release(folder, contents, f"export RELEASE={name}") for name, contents in CONTENTS.items()
    }


def prepare(home: Path, scenario: Scenario, made: dict[str, Made]) -> None:
    home.mkdir()
    (home / ".bashrc").write_text(BASHRC)
    for name in scenario.before:
        if name == "damage":
            folder = home / "PROJECTS" / APP / "releases" / made["first"].id
            (folder / "model.om").write_bytes(b"?" * len(MODEL))
            (folder / "infer.py").unlink()
        else:
            deploy(home, made[name])
    if scenario.act is unconfirmed_revert:
        with board(home, patch=no_watcher) as agent:
            agent.inspect(ROOT, APP, made["second"].wish())
            made["second"].install(agent)
            agent.switch(made["second"].id, 1e-9)


def no_watcher(namespace: dict[str, object]) -> None:
    """The board was switched off before the watcher could do its work."""
    namespace["App"].watch = lambda self, pending: None  # type: ignore[attr-defined]


def check(home: Path, made: dict[str, Made], then: str, where: str, repair: bool = False) -> None:
    """The disk is sound as it lies, and the next rollout gets to ``then``."""
    known = {one.id: one for one in made.values()}
    if not repair:
        assert problems(home, known) == [], where
    deploy(home, made[then], always=repair)
    assert problems(home, known) == [], where
    if left_over(home):
        tidy(home)
        assert left_over(home) == [], where
    app = home / "PROJECTS" / APP
    assert os.readlink(app / "current") == "releases/" + made[then].id, where
    block = f"# >>> ascend-deploy: app >>>\nexport RELEASE={then}\n# <<< ascend-deploy: app <<<\n"
    assert (home / ".bashrc").read_text() == BASHRC + block, where


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_step(name: str, tmp_path: Path, made: dict[str, Made]) -> None:
    scenario = SCENARIOS[name]
    start = tmp_path / "start"
    prepare(start, scenario, made)
    step, finished = 0, False
    while not finished:
        step += 1
        home, log = tmp_path / "board", tmp_path / "log"
        copy_tree(start, home)
        line = ForkedLine(home, recording(log, step))
        agent = BoardAgent(line, board_address(), limits())
        try:
            scenario.act(agent, made)
            finished = True
        except LineLost:
            pass
        finally:
            agent.close()
        disk = Durable.of(start)
        disk.top = str(home)
        for record in records(log):
            disk.take(record)
        # Neighbouring steps lose nearly the same: two of the three kinds of power failure, by turns.
        for number, (kind, (keep, data)) in enumerate(CRASHES.items()):
            if scenario.killed_only or number == step % len(CRASHES):
                continue
            crashed = tmp_path / "crashed"
            disk.materialise(home, crashed, keep(step), data)
            check(crashed, made, scenario.then, f"{name}, step {step}, {kind}", name == "repair")
            shutil.rmtree(crashed)
            count(name)
        check(home, made, scenario.then, f"{name}, step {step}, killed", name == "repair")
        count(name)
        shutil.rmtree(home)
        log.unlink(missing_ok=True)
    assert step > 3


def test_whoever_looks_next_finishes_a_revert_with_its_environment(tmp_path: Path, made: dict[str, Made]) -> None:
    """Nothing needs to be deployed for that: what ``current`` is and what people who log in get belong together."""
    start = tmp_path / "start"
    prepare(start, SCENARIOS["revert"], made)
    seen, step, finished = set(), 0, False
    while not finished:
        step += 1
        home = tmp_path / "board"
        copy_tree(start, home)
        agent = BoardAgent(ForkedLine(home, recording(tmp_path / "log", step)), board_address(), limits())
        try:
            revert(agent, made)
            finished = True
        except LineLost:
            pass
        finally:
            agent.close()
        with board(home) as looking:
            current = looking.inspect(ROOT, APP).current
        name = next(name for name, one in made.items() if one.id == current)
        assert f"export RELEASE={name}\n" in (home / ".bashrc").read_text(), f"step {step}"
        seen.add(name)
        shutil.rmtree(home)
        (tmp_path / "log").unlink(missing_ok=True)
    assert seen == {"first", "second"}, "killed before the switch, and after it"


@pytest.mark.parametrize("name", ["first install", "update", "changed model", "revert", "environment"])
def test_line_cut_after_every_frame(name: str, tmp_path: Path, made: dict[str, Made]) -> None:
    scenario = SCENARIOS[name]
    start = tmp_path / "start"
    prepare(start, scenario, made)
    for where in [*frame_ends(tmp_path, start, scenario, made)]:
        home = tmp_path / "board"
        copy_tree(start, home)
        line = ForkedLine(home, cut_after=where)
        agent = BoardAgent(line, board_address(), limits())
        with pytest.raises(LineLost):
            scenario.act(agent, made)
        agent.close()
        check(home, made, scenario.then, f"{name}, cut after {where} bytes")
        count(name)
        shutil.rmtree(home)


def frame_ends(tmp_path: Path, start: Path, scenario: Scenario, made: dict[str, Made]) -> list[int]:
    """Positions in what the controller sends: after each frame, and in the middle of each."""
    home = tmp_path / "whole"
    copy_tree(start, home)
    line = ForkedLine(home)
    agent = BoardAgent(line, board_address(), limits())
    scenario.act(agent, made)
    agent.close()
    sent = bytes(line.written)
    position = HEADER.size + HEADER.unpack_from(sent)[1]
    ends = [20, position // 2, position]
    while position < len(sent):
        size = 5 + int.from_bytes(sent[position + 1 : position + 5], "big")
        ends += [position + size // 2, position + size]
        position += size
    assert position == len(sent)
    return ends


def count(name: str) -> None:
    POINTS[name] = POINTS.get(name, 0) + 1


def test_there_were_enough_points(request: pytest.FixtureRequest) -> None:
    wanted = {item.name for item in request.session.items if item.fspath == request.node.fspath}
    if len(wanted) < len(SCENARIOS) + 5:
        return  # only part of this file was asked for
    print(POINTS)
    assert sum(POINTS.values()) >= 500, POINTS


def board_address():  # type: ignore[no-untyped-def]
    from agent_board import BOARD

    return BOARD


def limits():  # type: ignore[no-untyped-def]
    from toolkit.remote.address import Limits

    return Limits(silence=20, board=60)


assert signal.SIGKILL
