"""Rollouts on boards with the real agent: waves, budget, gates, putting back, catching up."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from fleet_boards import Fleet, Made, answers, make_release, of_status

from stages import _asking, _registry
from toolkit.config.schema import GateSettings, RolloutSettings, VerifySettings
from toolkit.fleet.engine import interruptible, run_jobs
from toolkit.fleet.job import BoardJob, cut_all_lines, deploy_board, revert_board
from toolkit.fleet.outcome import Outcome, exit_code, held_before
from toolkit.fleet.plan import Permits
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Event

CANARY = {"waves": [1, "10%", "100%"], "failure_budget": 0, "on_failure": "revert_all"}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "boards", 6, lambda number: {"site": "ab"[number % 2]})


@pytest.fixture
def old(tmp_path: Path) -> Made:
    return make_release(tmp_path / "made", "old")


@pytest.fixture
def new(tmp_path: Path) -> Made:
    return make_release(tmp_path / "made", "new")


def all_run(fleet: Fleet, made: Made | None) -> bool:
    return set(fleet.running().values()) == {made.id if made else ""}


def test_everybody_gets_it_and_a_second_time_nothing_happens(fleet: Fleet, old: Made) -> None:
    outcomes, trip = fleet.roll_out(old, RolloutSettings(waves=[1, 2]))
    assert trip is None
    assert of_status(outcomes, "ok") == set(fleet.names)
    assert all_run(fleet, old)
    assert all(outcome.connections == 1 for outcome in outcomes.values())
    outcomes, _ = fleet.roll_out(old, run="again")
    assert of_status(outcomes, "unchanged") == set(fleet.names)
    assert {(outcome.connections, outcome.requests) for outcome in outcomes.values()} == {(1, 1)}
    assert all(outcome.figures["accuracy"] == 1.0 for outcome in outcomes.values())


def test_without_a_budget_each_board_is_for_itself(fleet: Fleet, old: Made) -> None:
    fleet.fault("b-1", "crash")
    fleet.fault("b-2", "wrong")
    fleet.offline = {"b-3"}
    outcomes, trip = fleet.roll_out(old)
    assert trip is None
    assert of_status(outcomes, "ok") == {"b-0", "b-4", "b-5"}
    assert {name: outcomes[name].cause for name in ("b-1", "b-2", "b-3")} == {
        "b-1": "exit-status",
        "b-2": "gate",
        "b-3": "refused",
    }
    assert exit_code(outcomes.values()) == 4


@pytest.mark.parametrize("on_failure", ["halt", "revert_wave", "revert_all"])
def test_what_a_failure_in_the_second_wave_means(fleet: Fleet, old: Made, new: Made, on_failure: str) -> None:
    fleet.roll_out(old, run="first")
    fleet.fault("b-3", "crash")
    settings = RolloutSettings(waves=[2], failure_budget=0, on_failure=on_failure)
    outcomes, trip = fleet.roll_out(new, settings, run="second", workers=1)
    assert trip is not None
    assert "1 of 6 boards failed, rollout.failure_budget=0" in trip.why
    assert of_status(outcomes, "skipped") == {"b-4", "b-5"}
    assert of_status(outcomes, "failed") == {"b-3"}
    back = {"halt": set(), "revert_wave": {"b-2"}, "revert_all": {"b-0", "b-1", "b-2"}}[on_failure]
    assert of_status(outcomes, "reverted") == back
    running = fleet.running()
    assert {name for name in fleet.names if running[name] == new.id} == {"b-0", "b-1", "b-2"} - back
    assert exit_code(outcomes.values()) == 4


def test_a_rollout_that_was_cut_short_and_goes_on_is_one_rollout(fleet: Fleet, old: Made, new: Made) -> None:
    """What its first part brought is put back with the rest; what had the release before that is not."""
    fleet.roll_out(old, run="first")
    assert fleet.deploy(fleet.job("b-5", new, "long-ago")).status == "ok"
    stop = threading.Event()
    settings = RolloutSettings(waves=[2], failure_budget=0, on_failure="revert_all")
    outcomes, _ = fleet.roll_out(new, settings, run="part", stop=stop, record=lambda outcome: stop.set())
    assert of_status(outcomes, "ok") == {"b-0", "b-1"}
    fleet.fault("b-4", "wrong")
    outcomes, trip = fleet.roll_out(new, settings, run="rest", begun=frozenset({"part"}))
    assert trip is not None
    assert of_status(outcomes, "reverted") == {"b-0", "b-1", "b-2", "b-3"}
    assert of_status(outcomes, "unchanged") == {"b-5"}
    assert fleet.running() == {**dict.fromkeys(fleet.names, old.id), "b-5": new.id}
    assert exit_code(outcomes.values()) == 4, "one board runs what the gate refused"
    assert held_before(outcomes.values()) == [outcomes["b-5"]]


def test_boards_that_had_nothing_have_nothing_again(fleet: Fleet, new: Made) -> None:
    fleet.fault("b-3", "wrong")
    outcomes, _ = fleet.roll_out(new, RolloutSettings(waves=[2], failure_budget=0, on_failure="revert_all"))
    assert of_status(outcomes, "reverted") >= {"b-0", "b-1"}
    assert all_run(fleet, None)
    assert "RELEASE=new" not in (fleet.home("b-0") / ".bashrc").read_text()
    assert exit_code(outcomes.values()) == 6, "a gate refused it, and nobody runs it"


def test_putting_back_goes_on_past_a_board_that_is_gone(fleet: Fleet, old: Made, new: Made) -> None:
    fleet.roll_out(old, run="first")
    fleet.fault("b-3", "crash")

    def leave(outcome: Outcome) -> None:
        if outcome.board == "b-1":
            fleet.offline.add("b-1")

    settings = RolloutSettings(waves=[3], failure_budget=0, on_failure="revert_all")
    outcomes, _ = fleet.roll_out(new, settings, run="second", record=leave)
    assert outcomes["b-1"].cause == "not-reverted"
    assert outcomes["b-1"].status == "unreachable"
    assert new.id[:12] in outcomes["b-1"].message
    assert {name for name in fleet.names if fleet.current(name) == new.id} == {"b-1"}
    assert exit_code(outcomes.values()) == 4, "not everything was put back"
    fleet.offline.clear()


def test_a_budget_in_percent_and_who_counts(fleet: Fleet, old: Made) -> None:
    fleet.offline = {"b-0", "b-1"}
    tripped = RolloutSettings(waves=[2], failure_budget="20%")
    outcomes, trip = fleet.roll_out(old, tripped)
    assert trip is not None
    assert of_status(outcomes, "ok") == set()
    outcomes, trip = fleet.roll_out(old, RolloutSettings(failure_budget="20%", count_unreachable=False))
    assert trip is None
    assert of_status(outcomes, "ok") == {"b-2", "b-3", "b-4", "b-5"}
    fleet.offline = set()


def test_nobody_proved_it_so_nobody_else_gets_it(fleet: Fleet, old: Made) -> None:
    fleet.offline = {"b-0"}
    outcomes, trip = fleet.roll_out(old, RolloutSettings(waves=[1, 5], count_unreachable=False))
    assert trip is not None
    assert "no board so far proved" in trip.why
    assert set(fleet.sessions) == {"b-0"}
    assert len(of_status(outcomes, "skipped")) == 5


def test_a_budget_stops_in_the_middle_of_a_wave(fleet: Fleet, old: Made) -> None:
    for name in fleet.names:
        fleet.fault(name, "crash")
    outcomes, trip = fleet.roll_out(old, RolloutSettings(failure_budget=1), workers=1)
    assert trip is not None
    assert len(of_status(outcomes, "failed")) == 2
    assert sum(fleet.sessions.values()) == 2


def test_the_gate_of_a_board_compares_with_what_it_replaces(fleet: Fleet, old: Made, tmp_path: Path) -> None:
    fleet.roll_out(old, run="first")
    slow = make_release(tmp_path / "made", "slow", answers(execute_ms=1.3))
    outcomes, _ = fleet.roll_out(slow, run="second", gate=VerifySettings(max_p99_growth=0.2))
    assert {outcome.cause for outcome in outcomes.values()} == {"gate"}
    assert "p99_ms (the slowest of 4 pictures) grew from 1 to 1.3" in outcomes["b-0"].message
    assert all_run(fleet, old)
    assert exit_code(outcomes.values()) == 6
    outcomes, _ = fleet.roll_out(slow, run="third", gate=VerifySettings(max_p99_growth=0.5))
    assert of_status(outcomes, "ok") == set(fleet.names)
    assert outcomes["b-0"].before["p99_ms"] == 1.0


def test_the_gate_of_a_wave(fleet: Fleet, old: Made, tmp_path: Path) -> None:
    fleet.roll_out(old, run="first")
    slow = make_release(tmp_path / "made", "slow", answers(execute_ms=1.3))
    gate = GateSettings(max_p99_growth=0.2)
    outcomes, trip = fleet.roll_out(
        slow, RolloutSettings(waves=[2], gate=gate, on_failure="revert_wave"), run="second"
    )
    assert trip is not None
    assert "rollout.gate.max_p99_growth=0.2" in trip.why
    assert of_status(outcomes, "reverted") == {"b-0", "b-1"}
    assert all_run(fleet, old)
    assert exit_code(outcomes.values()) == 6


def test_a_site_at_a_time(fleet: Fleet, old: Made) -> None:
    fleet.roll_out(old, RolloutSettings(by="site"))
    begun = [event.board for event in fleet.events if event.kind == "start" and event.stage == "connect"]
    assert set(begun[:3]) == {"b-0", "b-2", "b-4"}


def test_a_person_says_no(fleet: Fleet, old: Made) -> None:
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return len(asked) < 2

    outcomes, trip = fleet.roll_out(
        old, RolloutSettings(waves=[2], pause="ask", on_failure="revert_all"), ask=ask
    )
    assert trip is not None
    assert trip.cause == "declined"
    assert asked[0].startswith("2 of 6 boards done. Go on with wave 2 of 3 (2 boards: b-2, b-3)?")
    assert of_status(outcomes, "ok") == {"b-0", "b-1", "b-2", "b-3"}, "what is done stays"
    assert of_status(outcomes, "skipped") == {"b-4", "b-5"}


def test_interrupted_boards_finish_and_no_new_ones_begin(fleet: Fleet, old: Made) -> None:
    stop = threading.Event()
    outcomes, _ = fleet.roll_out(
        old, RolloutSettings(pause=3600, waves=[2]), stop=stop, record=lambda outcome: stop.set(), workers=2
    )
    assert of_status(outcomes, "ok") == {"b-0", "b-1"}
    assert {outcome.cause for outcome in outcomes.values() if outcome.status == "skipped"} == {"interrupted"}
    assert exit_code(outcomes.values()) == 130


class Presser:
    """Presses Ctrl-C, as events of a rollout in the main thread go by; each one is waited for until it is heard."""

    HEARD = ("interrupted: ", "stopping now: ")

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, when: tuple[str, str], times: int) -> None:
        self.heard: list[str] = []
        emit, told = fleet.emit, threading.Condition()

        def press(event: Event) -> None:
            emit(event)
            with told:
                if event.text.startswith(self.HEARD):
                    self.heard.append(event.text)
                    told.notify_all()
                if event.kind == "start" and (event.stage, event.board) == when:
                    for number in range(times):
                        os.kill(os.getpid(), signal.SIGINT)
                        assert told.wait_for(lambda wanted=number: len(self.heard) > wanted, 30)

        monkeypatch.setattr(fleet, "emit", press)


@pytest.mark.timeout(30)
def test_ctrl_c_at_the_moment_when_the_event_is_locked() -> None:
    """By the very thread that is interrupted, as in the pause between two waves: its handler must not wait for it."""
    stop = threading.Event()
    with interruptible(stop, lambda event: None) as cut:
        for event in (stop, cut):
            with event._cond:  # type: ignore[attr-defined]
                signal.raise_signal(signal.SIGINT)
            assert event.wait(20)


def test_ctrl_c_at_a_question_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It means no, and nothing more: what reads the signals of a rollout would take it for a second one."""
    told: list[str] = []

    def press(*_: object) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(_asking, "ask", press)
    stop, invocation = threading.Event(), cast(Any, None)
    with interruptible(stop, lambda event: told.append(event.text)) as cut:
        assert not _asking.asker(invocation, stop)("Go on?")
        assert stop.is_set()
    assert not cut.is_set()
    assert told == []


def test_ctrl_c_is_heard_while_the_main_thread_waits(fleet: Fleet, old: Made) -> None:
    """A signal that comes just before the main thread waits does not wake it: as one that another thread gets."""
    stop, heard = threading.Event(), []

    def work(job: BoardJob) -> Outcome:
        time.sleep(0.2)  # the main thread waits by now
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        heard.append(stop.wait(10))
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        heard.append(cut.wait(10))
        return Outcome(job.board, "ok")

    with interruptible(stop, lambda event: None) as cut:
        assert len(list(run_jobs([fleet.job("b-0", old, "first")], work, 1, stop))) == 1
    assert heard == [True, True]


@pytest.mark.parametrize("times", [1, 2])
def test_a_wave_that_ctrl_c_cut_short_is_judged(
    fleet: Fleet, old: Made, new: Made, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once: the board that runs may still fail, and the others go back. Twice: a line cut by a person is no failure."""
    fleet.roll_out(old, run="first")
    fleet.fault("b-1", "wrong" if times == 1 else "hang")
    presser = Presser(fleet, monkeypatch, ("infer", "b-1"), times)
    settings = RolloutSettings(waves=[3], failure_budget=0, on_failure="revert_all")
    outcomes, trip = fleet.roll_out(new, settings, run="second", workers=1)
    assert len(presser.heard) == times
    assert (trip.cause if trip else "") == ("gate" if times == 1 else "")
    assert (outcomes["b-0"].status, outcomes["b-1"].cause) == (
        ("reverted", "gate") if times == 1 else ("ok", "interrupted")
    )
    assert fleet.running() == {**dict.fromkeys(fleet.names, old.id), "b-0": old.id if times == 1 else new.id}
    assert of_status(outcomes, "skipped") == {"b-2", "b-3", "b-4", "b-5"}
    assert outcomes["b-2"].cause == "interrupted"
    assert exit_code(outcomes.values()) == 130


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_boards_are_put_back(
    fleet: Fleet, old: Made, new: Made, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once: all of them are put back all the same. Twice: those that are not say so, and what they may run."""
    fleet.roll_out(old, run="first")
    fleet.fault("b-5", "wrong")
    presser = Presser(fleet, monkeypatch, ("revert", "b-1"), times)
    stop, kept = threading.Event(), {}
    settings = RolloutSettings(failure_budget=0, on_failure="revert_all")
    outcomes, trip = fleet.roll_out(
        new,
        settings,
        run="second",
        workers=1,
        stop=stop,
        record=lambda outcome: kept.update({outcome.board: outcome}),
        words="hosts=it",
    )
    assert len(presser.heard) == times
    assert stop.is_set()
    assert trip is not None
    assert kept == outcomes, "the last of each board is what is kept"
    left = {"b-2", "b-3", "b-4"} if times == 2 else set()
    if times == 2 and outcomes["b-1"].status != "reverted":  # its line was cut, unless it was faster
        assert outcomes["b-1"].message.endswith(": b-1: interrupted in revert")
        left.add("b-1")
    assert of_status(outcomes, "reverted") == {"b-0", "b-1", "b-2", "b-3", "b-4"} - left
    assert {name for name in fleet.names if fleet.current(name) == new.id} - {"b-1"} == left - {"b-1"}
    assert {name for name, outcome in outcomes.items() if outcome.cause == "not-reverted"} == left
    shown = {event.board: event.data for event in fleet.events if event.kind == "outcome"}
    for name in left:
        outcome = outcomes[name]
        assert (outcome.status, outcome.switched, outcome.release, outcome.previous) == ("failed", True, new.id, old.id)
        assert outcome.message.startswith(f"could not be put back to {old.id[:12]}, may run {new.id[:12]}: ")
        assert "interrupted" in outcome.message
        assert outcome.hint == "when it answers: deploy rollback hosts=it"
        assert shown[name] == outcome.as_json(), "the journal has it, too"


def test_a_board_is_not_blamed_for_a_line_that_a_person_cut(fleet: Fleet, old: Made, new: Made) -> None:
    """In the middle of a stage, and while it connects."""
    fleet.roll_out(old, run="first")
    fleet.fault("b-0", "hang")
    connecting, go_on = threading.Event(), threading.Event()

    def connect(*arguments: Any) -> BoardAgent:
        connecting.set()
        assert go_on.wait(30)
        return fleet.connect(*arguments)

    with ThreadPoolExecutor(2) as pool:
        stages = _registry.board_stages()
        one = pool.submit(fleet.deploy, fleet.job("b-0", new, "second"))
        two = pool.submit(deploy_board, fleet.job("b-1", new, "second"), stages, fleet.emit, connect)
        assert connecting.wait(30)
        for _ in range(3000):
            if (fleet.home("b-0") / "hangs").exists() or one.done():
                break
            time.sleep(0.01)  # nothing to wait on but the board's disk
        cut_all_lines()
        go_on.set()
        done = [one.result(60), two.result(60)]
    assert {(outcome.status, outcome.cause) for outcome in done} == {("failed", "interrupted")}
    assert [outcome.message for outcome in done] == [
        "b-0: interrupted in infer: it runs what it ran before",
        "b-1: interrupted in connect: it runs what it ran before",
    ]
    assert exit_code(done) == 130
    assert not any(outcome.offline for outcome in done)
    assert all_run(fleet, old)


def test_what_somebody_did_meanwhile_is_left_alone_and_said(fleet: Fleet, old: Made, new: Made) -> None:
    fleet.roll_out(old, run="first")
    done = {name: fleet.deploy(fleet.job(name, new, "second")) for name in ("b-0", "b-1", "b-2")}
    third = make_release(fleet.folder / "made", "third")
    assert fleet.deploy(fleet.job("b-1", third, "between")).status == "ok"
    (fleet.app("b-2") / "current").unlink()
    (fleet.app("b-2") / "current").mkdir()
    back = {
        name: revert_board(fleet.job(name, new, "second"), outcome, "it burns", "gate", fleet.emit, fleet.connect)
        for name, outcome in done.items()
    }
    assert {outcome.status for outcome in back.values()} == {"reverted"}
    assert back["b-0"].message == f"put back to {old.id[:12]}: it burns"
    assert f"somebody changed it meanwhile (it runs {third.id[:12]})" in back["b-1"].message
    assert "was not made by this program" in back["b-2"].message
    assert (fleet.current("b-0"), fleet.current("b-1")) == (old.id, third.id)


def test_a_plan_s_waves_are_carried_out_whatever_the_labels_say_now(fleet: Fleet, old: Made) -> None:
    planned = [["b-5"], ["b-0", "b-3"], ["b-1", "b-2", "b-4"]]
    fleet.roll_out(old, RolloutSettings(by="site"), planned=planned)
    assert [event.data["waves"] for event in fleet.events if "waves" in event.data] == [planned]
    begun = [event.board for event in fleet.events if event.kind == "start" and event.stage == "connect"]
    assert begun[0] == "b-5"
    assert set(begun[1:3]) == {"b-0", "b-3"}


def test_a_temperature_that_cannot_be_read_is_not_taken_for_a_good_one(fleet: Fleet, old: Made) -> None:
    """These boards have no npu-smi."""
    outcomes, _ = fleet.roll_out(old, heat="rollout.gate.max_temperature")
    assert {outcome.cause for outcome in outcomes.values()} == {"gate"}
    assert "so that rollout.gate.max_temperature can't be checked" in outcomes["b-0"].message
    assert all_run(fleet, None)


def test_until_done(fleet: Fleet, old: Made) -> None:
    fleet.offline = {"b-1", "b-4"}
    seen: list[str] = []

    def come_back(outcome: Outcome) -> None:
        if outcome.status == "unreachable":
            seen.append(outcome.board)
            if seen.count(outcome.board) == (2 if outcome.board == "b-1" else 3):
                fleet.offline.discard(outcome.board)

    settings = RolloutSettings(retry_first=0.01, retry_most=0.02, failure_budget=0)
    outcomes, trip = fleet.roll_out(old, settings, until_done=True, record=come_back)
    assert trip is None
    assert of_status(outcomes, "ok") == set(fleet.names)
    assert {name: fleet.sessions[name] for name in fleet.names} == {
        **dict.fromkeys(fleet.names, 1),
        "b-1": 3,
        "b-4": 4,
    }
    waits = [event.text for event in fleet.events if "have not answered" in event.text]
    assert waits[0] == "2 boards have not answered (b-1, b-4); again in 0.01 s"


def test_a_board_that_was_not_tried_again_is_as_its_last_try_left_it(fleet: Fleet, old: Made) -> None:
    fleet.offline = {"b-1", "b-4"}
    stop, seen = threading.Event(), []

    def press_on_the_second_try(outcome: Outcome) -> None:
        seen.append(outcome.board)
        if seen.count(outcome.board) == 2:
            stop.set()

    settings = RolloutSettings(retry_first=0.01, failure_budget=0)
    outcomes, trip = fleet.roll_out(
        old, settings, until_done=True, record=press_on_the_second_try, stop=stop, workers=1
    )
    assert trip is None
    assert of_status(outcomes, "unreachable") == {"b-1", "b-4"}
    assert of_status(outcomes, "ok") == {"b-0", "b-2", "b-3", "b-5"}


def test_until_done_does_not_hide_a_bad_release(fleet: Fleet, new: Made) -> None:
    fleet.offline = {"b-5"}
    fleet.fault("b-5", "wrong")
    settings = RolloutSettings(retry_first=0.01, failure_budget=0, on_failure="revert_all")
    outcomes, trip = fleet.roll_out(
        new, settings, until_done=True, record=lambda outcome: fleet.offline.discard(outcome.board)
    )
    assert trip is not None
    assert outcomes["b-5"].cause == "gate"
    assert all_run(fleet, None)


def test_a_locked_board_is_refused_until_told(fleet: Fleet, old: Made, new: Made) -> None:
    fleet.roll_out(old, run="first")
    job = fleet.job("b-2", new)
    with fleet.connect(job.address, job.limits, fleet.emit) as other:
        other.inspect(job.root, job.app)
        other.lock("eve@desk")
        outcomes, _ = fleet.roll_out(new, run="second")
        assert (outcomes["b-2"].status, outcomes["b-2"].cause) == ("failed", "locked")
        assert re.search(r"eve@desk is deploying to it since \d+ s$", outcomes["b-2"].message)
        assert "rollout.break_lock=true" in outcomes["b-2"].hint
        assert fleet.current("b-2") == old.id
        unchanged, _ = fleet.roll_out(old, run="third")
        assert unchanged["b-2"].status == "unchanged", "nothing to do is nothing to refuse"
        told, _ = fleet.roll_out(new, run="fourth", permits=Permits(break_lock=True))
        assert told["b-2"].status == "ok"


def test_what_somebody_else_put_there_is_refused_until_told(fleet: Fleet, old: Made) -> None:
    theirs = fleet.app("b-2") / "current"
    theirs.mkdir(parents=True)
    (theirs / "work").write_text("years")
    outcomes, _ = fleet.roll_out(old)
    assert (outcomes["b-2"].status, outcomes["b-2"].cause) == ("failed", "foreign-release")
    assert (theirs / "work").read_text() == "years"
    outcomes, _ = fleet.roll_out(old, run="told", permits=Permits(take_over=True))
    assert outcomes["b-2"].status == "ok"
    assert fleet.current("b-2") == old.id
    assert (fleet.app("b-2") / "current.before-told" / "work").read_text() == "years"


def test_a_board_that_changed_since_the_plan_is_refused(fleet: Fleet, old: Made, new: Made) -> None:
    from toolkit.fleet.plan import BoardFacts, decide

    fleet.roll_out(old, run="first")
    jobs = {job.board: job for job in fleet.jobs(new)}
    planned = {
        name: decide(name, BoardFacts(current=old.id, environment="differs"), job.wish)
        for name, job in jobs.items()
    }
    third = make_release(fleet.folder / "made", "third")
    assert fleet.deploy(fleet.job("b-1", third, "between")).status == "ok"
    done = [fleet.deploy(fleet.job(name, new, "second", planned=planned[name])) for name in ("b-0", "b-1")]
    assert [outcome.status for outcome in done] == ["ok", "failed"]
    assert done[1].cause == "plan-changed"
    assert f"runs {third.id[:12]}, ran {old.id[:12]} when planned" in done[1].message
    assert fleet.current("b-1") == third.id


# -- a release that is bad everywhere


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fleet, Made]:
    folder = tmp_path_factory.mktemp("large")
    fleet = Fleet(folder / "boards", 64, lambda number: {"site": str(number % 4), "ring": str(number % 7)})
    made = make_release(folder / "made", "old")
    outcomes, _ = fleet.roll_out(made, run="first")
    assert of_status(outcomes, "ok") == set(fleet.names)
    return fleet, made


BAD = {
    "wrong": answers(wrong=True),
    "slow": answers(execute_ms=99.0),
    "nothing": [],
    "almost": answers(execute_ms=1.5),  # passes each board's own gate, and not its wave's
}


@pytest.mark.parametrize("seed", range(50))
def test_a_bad_release_touches_the_canary_only(large: tuple[Fleet, Made], tmp_path: Path, seed: int) -> None:
    fleet, old = large
    kind = sorted(BAD)[seed % len(BAD)]
    bad = make_release(tmp_path, f"{kind}-{seed}", BAD[kind])
    before = dict(fleet.sessions)
    settings = RolloutSettings(
        **CANARY, order="shuffled", seed=seed, apart="ring", gate=GateSettings(max_p99_growth=0.2)
    )
    outcomes, trip = fleet.roll_out(bad, settings, run=f"bad-{seed}", gate=VerifySettings(max_p99_growth=2.0))
    assert trip is not None
    touched = {name for name in fleet.names if fleet.sessions[name] != before[name]}
    assert len(touched) == 1
    assert of_status(outcomes, "skipped") == set(fleet.names) - touched
    assert of_status(outcomes, "reverted" if kind == "almost" else "failed") == touched
    assert set(fleet.running().values()) == {old.id}
    assert exit_code(outcomes.values()) == 6


def test_different_seeds_have_different_canaries(large: tuple[Fleet, Made]) -> None:
    fleet, _ = large
    assert len([name for name in fleet.names if fleet.sessions[name] > 1]) > 20


def test_after_all_that_a_good_release_goes_everywhere(large: tuple[Fleet, Made], tmp_path: Path) -> None:
    fleet, _ = large
    good = make_release(tmp_path, "good")
    outcomes, trip = fleet.roll_out(good, RolloutSettings(**CANARY), run="good")
    assert trip is None
    assert of_status(outcomes, "ok") == set(fleet.names)
    assert all(json.dumps(outcome.as_json()) for outcome in outcomes.values())
