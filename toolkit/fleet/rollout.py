"""A fleet, wave by wave: budget, gates, pauses, putting back, catching up. No board is touched here but
through the two functions that a :class:`Hands` brings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from toolkit.config.schema import RolloutSettings
from toolkit.fleet import gates
from toolkit.fleet.engine import interruptible, run_jobs
from toolkit.fleet.job import BoardJob, not_reverted
from toolkit.fleet.outcome import Outcome
from toolkit.fleet.waves import amount, waves
from toolkit.ui.events import Emit, Event
from toolkit.ui.words import counted, named

Cause = Literal["gate", "budget", "declined"]


@dataclass(frozen=True)
class Hands:
    """What a rollout acts with.

    deploy: one board, up to its outcome. revert: puts one back (job, its outcome, why, cause) → the new
    outcome. ask: a question to a person; False where the answer is no. record: keeps an outcome, which may be
    replaced by a later one of the same board."""

    deploy: Callable[[BoardJob], Outcome]
    revert: Callable[[BoardJob, Outcome, str, str], Outcome]
    ask: Callable[[str], bool] = lambda question: True
    record: Callable[[Outcome], None] = lambda outcome: None


@dataclass(frozen=True)
class Trip:
    """Why a rollout ended before its time."""

    cause: Cause
    why: str


@dataclass
class Rollout:
    """One rollout under way; :func:`roll_out` walks it."""

    jobs: Mapping[str, BoardJob]
    settings: RolloutSettings
    hands: Hands
    workers: int
    emit: Emit
    stop: threading.Event
    cut: threading.Event
    until_done: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: set[str] = field(default_factory=set)
    trip: Trip | None = None

    @property
    def budget(self) -> int | None:
        """How many boards may fail; None = all of them."""
        given = self.settings.failure_budget
        return None if given is None else amount(given, len(self.jobs), up=False)

    def take(self, outcome: Outcome) -> None:
        """Keep one board's outcome and count it."""
        self.outcomes[outcome.board] = outcome
        self.hands.record(outcome)
        self.count(outcome)

    def count(self, outcome: Outcome) -> None:
        """Against the budget; a board counts once, however often it is tried, and not for a line that a person cut."""
        counts = (
            outcome.failed
            and outcome.cause != "interrupted"
            and (outcome.status != "unreachable" or (self.settings.count_unreachable and not self.until_done))
        )
        (self.failures.add if counts else self.failures.discard)(outcome.board)

    def spent(self) -> str:
        """Why the budget lets nothing new begin; "" while it does. Asked by the workers: reads only."""
        if self.budget is None or len(self.failures) <= self.budget:
            return ""
        failed = f"{len(self.failures)} of {counted(len(self.jobs), 'board')} failed"
        return f"{failed}, rollout.failure_budget={self.settings.failure_budget}"

    def run(self, names: Sequence[str]) -> None:
        """Deploy to these boards."""

        def work(job: BoardJob) -> Outcome:
            outcome = self.hands.deploy(job)
            self.count(outcome)  # at once: this very thread asks next whether another board may begin
            return outcome

        jobs = [self.jobs[name] for name in names]
        for outcome in run_jobs(jobs, work, self.workers, self.stop, self.spent):
            # One that would have been tried again, and was not: it is as its last try left it.
            if outcome.status != "skipped" or outcome.board not in self.outcomes:
                self.take(outcome)

    def judge(self, names: Sequence[str], last: bool) -> Trip | None:
        """May the next wave begin? None: it may."""
        wave = [self.outcomes[name] for name in names]
        if why := self.spent():
            return Trip("gate" if self._gates_refused() else "budget", why)
        good = [outcome for outcome in wave if outcome.good]
        found = gates.problems(
            gates.together([item.figures for item in good]),
            gates.together([item.before for item in good]),
            self.settings.gate,
            "rollout.gate",
        )
        if found and good:
            return Trip("gate", "; ".join(found))
        if not last and not self.proved:
            return Trip("gate" if self._gates_refused() else "budget", "no board so far proved the release")
        return None

    def _gates_refused(self) -> bool:
        return any(outcome.cause == "gate" for outcome in self.outcomes.values())

    def put_back(self, names: Sequence[str]) -> None:
        """Put back those of these boards that were asked to switch; goes on past any that can't be.

        One interruption does not end this: half a fleet put back is the worst of all ends. Once the lines are cut,
        the rest are not put back, and their outcomes say so."""
        assert self.trip is not None
        trip = self.trip
        victims = [
            self.jobs[name]
            for name in names
            if (outcome := self.outcomes.get(name))
            and outcome.switched
            and outcome.previous != outcome.release
        ]
        if victims:
            self.emit(Event("warning", f"putting {counted(len(victims), 'board')} back: {trip.why}", stage="rollout"))

        def back(job: BoardJob) -> Outcome:
            done = self.outcomes[job.board]
            if not self.cut.is_set():
                return self.hands.revert(job, done, trip.why, trip.cause)
            left = not_reverted(job, done, "interrupted")
            self.emit(Event("outcome", left.message, left.stage, left.board, left.as_json()))
            return left

        for outcome in run_jobs(victims, back, self.workers, threading.Event()):
            self.take(outcome)

    def pause(self, number: int, order: Sequence[Sequence[str]]) -> Trip | None:
        """Between waves."""
        wanted, wave = self.settings.pause, order[number]
        if wanted == "ask":
            done = sum(outcome.good for outcome in self.outcomes.values())
            question = (
                f"{done} of {len(self.jobs)} boards done. Go on with wave {number + 1} of {len(order)} "
                f"({counted(len(wave), 'board')}: {named(wave)})?"
            )
            return None if self.hands.ask(question) else Trip("declined", "a person said no")
        self.stop.wait(float(wanted))
        return None

    @property
    def proved(self) -> bool:
        """Has a board shown that the release is good?"""
        return any(outcome.good for outcome in self.outcomes.values())

    def catch_up(self, names: Sequence[str], enough: Callable[[], bool]) -> None:
        """Try those boards again that did not answer, with longer and longer waits, until ``enough`` is
        true."""
        delay = self.settings.retry_first
        while self.trip is None and not self.stop.is_set():
            late = [name for name in names if self.outcomes[name].offline]
            if not late or enough():
                return
            have = "board has" if len(late) == 1 else "boards have"
            text = f"{len(late)} {have} not answered ({named(late)}); again in {delay:g} s"
            self.emit(Event("warning", text, stage="rollout"))
            if self.stop.wait(delay):
                return
            self.run(late)
            self.trip = self.judge(late, last=True)
            some = any(not self.outcomes[name].offline for name in late)
            delay = self.settings.retry_first if some else min(2 * delay, self.settings.retry_most)


def roll_out(
    jobs: Sequence[BoardJob],
    settings: RolloutSettings,
    hands: Hands,
    *,
    workers: int,
    emit: Emit,
    stop: threading.Event,
    until_done: bool = False,
    planned: Sequence[Sequence[str]] | None = None,
) -> tuple[list[Outcome], Trip | None]:
    """Deploy to all ``jobs``; return exactly one outcome for each, in their order, and why it ended early, if
    it did.

    ``stop`` (Ctrl-C): running boards finish, nothing new begins; what was done is judged, and stays or is put
    back. ``until_done``: boards that don't answer count for no budget and are tried again and again. ``planned``:
    the waves, where a plan is carried out; labels may have changed since it was made."""
    by_name = {job.board: job for job in jobs}
    if planned is None:
        planned = waves({job.board: job.labels for job in jobs}, settings)
    order = [names for wave in planned if (names := [name for name in wave if name in by_name])]
    if sorted(name for wave in order for name in wave) != sorted(by_name):
        raise ValueError("the waves are not the boards")
    if jobs:
        first = f"{len(jobs)} boards in {len(order)} waves" if len(order) > 1 else ""
        emit(Event("start", first, stage="rollout", data={"waves": order, "release": jobs[0].release.id}))
    with interruptible(stop, emit) as cut:
        rollout = Rollout(by_name, settings, hands, min(workers, settings.concurrency), emit, stop, cut, until_done)
        done: list[str] = []
        for number, wave in enumerate(order):
            if number:
                rollout.trip = rollout.pause(number, order)
            if rollout.trip or stop.is_set():
                break
            if len(order) > 1:
                text = f"{number + 1} of {len(order)}: {named(wave)}"
                emit(Event("log", text, stage="wave", data={"show": True, "number": number + 1}))
            rollout.run(wave)
            done += wave
            if until_done:
                # The next wave needs somebody who proved the release, so that the first one is waited for.
                rollout.catch_up(wave, lambda: rollout.proved)
            if not rollout.trip:
                # A wave that an interruption cut short, too: what it brought stays only if it may.
                rollout.trip = rollout.judge(wave, last=stop.is_set() or number == len(order) - 1)
            if rollout.trip:
                _tripped(rollout, wave, done)
                break
        else:
            if until_done:
                rollout.catch_up(done, lambda: False)
                if rollout.trip:
                    _tripped(rollout, done, done)
    for name in by_name.keys() - rollout.outcomes.keys():
        rollout.take(_not_begun(name, rollout.trip))
    return [rollout.outcomes[job.board] for job in jobs], rollout.trip


def _tripped(rollout: Rollout, wave: Sequence[str], done: Sequence[str]) -> None:
    assert rollout.trip is not None
    rollout.emit(Event("warning", f"stopped: {rollout.trip.why}", stage="rollout"))
    if rollout.settings.on_failure == "revert_wave":
        rollout.put_back(wave)
    elif rollout.settings.on_failure == "revert_all":
        rollout.put_back(done)


def _not_begun(name: str, trip: Trip | None) -> Outcome:
    if trip is None:
        return Outcome(name, "skipped", cause="interrupted", message="not begun: interrupted")
    return Outcome(name, "skipped", cause="halted", message=f"not begun: {trip.why}")
