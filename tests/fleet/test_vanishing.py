"""A controller that vanishes after the switch: the board goes back by itself, and the journal says what it
knows."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from fleet_boards import Made, make_release

from tests.onboard.agent_board import ForkedLine, copy_tree, no_flush
from toolkit.config.schema import VerifySettings
from toolkit.fleet.job import BoardJob, Session, deploy_board
from toolkit.fleet.journal import RECENT, RunFolder, begun, cut_short, read_journal
from toolkit.fleet.outcome import Outcome
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Emit, Event, ignore

CUTS = 200
WITHIN = 1.0


def push(session: Session) -> None:
    session.install()


def switch(session: Session) -> None:
    """What the stage verify does once a release has proved itself."""
    session.agent.line.switch_began = session.agent.line.sent  # type: ignore[attr-defined]
    session.switch()
    session.confirm({})


def job_for(made: Made, home: Path) -> BoardJob:
    return BoardJob(
        board=home.name,
        address=Address(home.name, "local", client="local"),
        limits=Limits(silence=20, board=60),
        root="~/PROJECTS",
        app="app",
        release=made.release,
        files=made.files,
        environment="export A=1\n",
        reference=(),
        program={},
        interpreters=("python3",),
        run_id="run",
        holder="tests",
        out=home / "out",
        infer_limit=10,
        gate=VerifySettings(),
        confirm_within=WITHIN,
    )


def deploy(made: Made, home: Path, cut: int | None, emit: Emit = ignore) -> tuple[Outcome, ForkedLine]:
    lines: list[ForkedLine] = []

    def connect(address: Address, limits: Limits, emit: Emit) -> BoardAgent:
        lines.append(ForkedLine(home, no_flush, cut))
        return BoardAgent(lines[0], address, limits, emit)

    outcome = deploy_board(job_for(made, home), [("push", push), ("verify", switch)], emit, connect)
    return outcome, lines[0]


def current(home: Path) -> str:
    return os.readlink(home / "PROJECTS/app/current").rpartition("/")[2]


def test_a_disk_of_ours_that_says_no_is_no_defect(tmp_path: Path) -> None:
    made = make_release(tmp_path / "made", "one")
    (tmp_path / "out").write_text("a file where the folder of the results ought to be")

    def keep(session: Session) -> None:
        session.job.out.mkdir(parents=True, exist_ok=True)

    outcome = deploy_board(
        job_for(made, tmp_path),
        [("infer", keep)],
        ignore,
        lambda address, limits, emit: BoardAgent(ForkedLine(tmp_path, no_flush, None), address, limits, emit),
    )
    assert (outcome.status, outcome.cause, outcome.stage) == ("failed", "input", "infer")
    assert f"on this machine: {tmp_path / 'out'}: File exists" in outcome.message
    assert "DEPLOY_HOME" in outcome.hint


def test_two_hundred_cut_moments(tmp_path: Path) -> None:
    old, new = (make_release(tmp_path / "made", name) for name in ("old", "new"))
    first = tmp_path / "first"
    first.mkdir()
    assert deploy(old, first, None)[0].status == "ok"
    whole = tmp_path / "whole"
    copy_tree(first, whole)
    outcome, line = deploy(new, whole, None)
    assert outcome.status == "ok"
    begin, end = line.switch_began, line.sent  # type: ignore[attr-defined]

    chance = random.Random(2024)
    run = RunFolder(tmp_path / "runs", "", "apply")
    homes, cuts = [], {}
    for number in range(CUTS):
        home = tmp_path / f"b-{number}"
        copy_tree(first, home)
        # Times in the messages are now and then a few digits longer or shorter.
        cuts[home] = chance.randrange(begin + 8, end - 24)
        outcome, _ = deploy(new, home, cuts[home], run.show)
        assert (outcome.status, outcome.switched) == ("failed", True)
        homes.append(home)
    run.close()

    # Every one comes to an end by itself: nobody talks to the boards any more.
    waiting = [home for home in homes if (home / "PROJECTS/app/pending").exists()]
    for _ in range(400):
        waiting = [home for home in waiting if (home / "PROJECTS/app/pending").exists()]
        if not waiting:
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert not waiting
    assert {current(home) for home in homes} == {old.id}
    undone = sum("not confirmed within" in (home / "PROJECTS/app/journal").read_text() for home in homes)
    assert undone > CUTS / 4, "many of them had switched already"

    story = read_journal(run.path)
    assert len(story.boards) == CUTS
    assert {board.state for board in story.boards.values()} == {"ended"}

    for home in homes[:10]:
        assert deploy(new, home, None)[0].status == "ok"
        assert current(home) == new.id


# -- the reader


def journal_of(tmp_path: Path, *, upto: str) -> Path:
    """A journal whose writer was killed right after it wrote the entry ``upto``."""
    old, new = (make_release(tmp_path / "made", name) for name in ("old", "new"))
    home = tmp_path / "board"
    home.mkdir()
    deploy(old, home, None)
    run = RunFolder(tmp_path / "runs", "", "apply")
    deploy(new, home, None, run.show)
    run.close()
    path = run.path / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kept = []
    for line in lines:
        kept.append(line)
        entry = json.loads(line)
        if upto in (entry.get("text"), entry["kind"], entry.get("stage")):
            break
    path.write_text(
        "".join(kept) + lines[len(kept)][: len(lines[len(kept)]) // 2]
        if len(kept) < len(lines)
        else "".join(kept)
    )
    return path


@pytest.mark.parametrize(
    ("upto", "state", "says"),
    [
        ("connect", "begun", "it runs what it ran before"),
        ("push", "begun", "cut short in push: it runs what it ran before"),
        ("installed", "installed", "lies beside what it runs"),
        ("switching", "switching", "unless that was confirmed, it goes back by itself 1 s after the switch"),
        ("confirmed", "confirmed", "runs "),
        ("outcome", "ended", "ok"),
    ],
)
def test_what_a_killed_run_left(tmp_path: Path, upto: str, state: str, says: str) -> None:
    story = read_journal(journal_of(tmp_path, upto=upto))
    board = story.boards["board"]
    assert board.state == state
    assert says in board.text
    assert not story.ended
    assert story.pid == os.getpid()

    runs = tmp_path / "runs"
    assert begun(runs) == {story.run}
    (found,) = cut_short(runs)
    assert (found.run, found.boards["board"].text) == (story.run, board.text)
    # What only looks does not count, nor what turned to other boards; a run that still goes on may see to it.
    for verb, name in (("verify", "board"), ("apply", "other"), ("rollback", "board")):
        run = RunFolder(runs, "", verb)
        run.show(Event("start", stage="connect", board=name))
        assert (not cut_short(runs)) == (verb == "rollback"), verb
        run.show(Event("summary", data={"exit_code": 0}))
        run.close()
        assert (not cut_short(runs)) == (verb == "rollback"), verb
    assert begun(runs) == begun(tmp_path / "nowhere") == frozenset()
    assert cut_short(tmp_path / "nowhere") == []


def ended(runs: Path, verb: str, board: str, code: int | None = 0, app: str = "digits", status: str = "") -> str:
    """The id of a run that turned to one board; ``code`` None: it was killed."""
    run = RunFolder(runs, "", verb)
    run.show(Event("start", stage="rollout", data={"waves": [[board, "not-begun"]], "release": "r"}))
    run.show(Event("start", stage="connect", board=board, data={"app": app} if app else {}))
    if status:
        run.show(Event("outcome", stage="connect", board=board, data={"status": status}))
    if code is not None:
        run.show(Event("summary", data={"exit_code": code}))
    run.close()
    return run.id


def test_runs_that_change_no_board_hide_none_that_was_killed(tmp_path: Path) -> None:
    killed = ended(tmp_path, "apply", "a", None)
    # Runs of one second have no order by their ids: these are all of later ones.
    for number in range(RECENT + 5):
        run = RunFolder(tmp_path, "", ("verify", "status", "train", "package")[number % 4])
        run.close()
        run.path.rename(tmp_path / f"99991231-235959-{number:04x}")
    (found,) = cut_short(tmp_path)
    assert found.run == killed
    assert begun(tmp_path) == {killed}


def test_what_a_rollout_goes_on_with(tmp_path: Path) -> None:
    """Back to the last one of the same boards that came to its end; one of other boards does not end it."""
    ended(tmp_path, "apply", "a", None)
    ended(tmp_path, "apply", "a")
    killed = ended(tmp_path, "apply", "a", None)
    interrupted = ended(tmp_path, "apply", "a", 130)
    ended(tmp_path, "apply", "other", 4)
    assert begun(tmp_path, {"a": "digits", "b": "digits"}) == {killed, interrupted}
    assert begun(tmp_path, {"other": "digits"}) == frozenset()
    assert begun(tmp_path) == frozenset()
    assert begun(tmp_path, {"not-begun": "digits"}) > {killed, interrupted}, "it was nobody's turn"


@pytest.mark.parametrize("status", ["ok", "unreachable"])
def test_neither_another_app_nor_a_board_that_was_off_ends_what_was_killed(tmp_path: Path, status: str) -> None:
    killed = ended(tmp_path, "apply", "a", None)
    ended(tmp_path, "apply", "a", app="cats", status="ok")
    ended(tmp_path, "apply", "a", 5, status="unreachable")
    (found,) = cut_short(tmp_path, ["a", "other"])
    assert found.run == killed
    assert set(found.boards) == {"a"}
    assert found.concerns({"a": "digits"})
    assert not found.concerns({"a": "cats"})
    assert begun(tmp_path, {"a": "digits"}) == {killed}
    assert begun(tmp_path, {"a": "cats"}) == frozenset()
    # Two killed runs: both are told. One whose journal does not say the app may have seen to either.
    second = ended(tmp_path, "apply", "a", None, app="cats")
    assert [story.run for story in cut_short(tmp_path)] == [second, killed]
    ended(tmp_path, "apply", "a", app="", status=status)
    assert bool(cut_short(tmp_path, ["a"])) == (status == "unreachable")
