"""What is done with one board, from connecting to its outcome.

A job walks a list of board stages over one session, each doing what the board's plan says. Nothing that is in
use on the board is touched until the release has proved itself: push puts it beside the current one, infer
runs it from there, verify compares and only then switches."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from toolkit.artefacts.earlier import EarlierFiles
from toolkit.artefacts.hashing import digest_data
from toolkit.artefacts.manifest import Release, blobs_of
from toolkit.config.schema import VerifySettings
from toolkit.errors import BoardRefused, DeployError, GateError, LineLost, PlanError, RemoteError, Unreachable
from toolkit.fleet import plan as planning
from toolkit.fleet.outcome import Outcome
from toolkit.fleet.plan import BoardFacts, BoardPlan, BoardWish, Permits
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Inspection, RunReport, Wish
from toolkit.remote.watchdog import WATCHDOG
from toolkit.ui.events import Emit, Event

Connect = Callable[[Address, Limits, Emit], BoardAgent]
BoardStage = tuple[str, Callable[["Session"], None]]


@dataclass(frozen=True)
class BoardJob:
    """All that one board's job needs; plain data, can be pickled.

    files: path in the release → file on this machine. reference: entries of the release's reference.json.
    program: settings of the run that its results depend on (``top_k``, ``device``, ``warmup``). gate: what
    the board must show before it is switched. planned: what the board was planned to need, where a plan is
    carried out: a board that needs anything else by now is refused."""

    board: str
    address: Address
    limits: Limits
    root: str
    app: str
    release: Release
    files: Mapping[str, Path]
    environment: str
    reference: Sequence[Mapping[str, Any]]
    program: Mapping[str, Any]
    interpreters: Sequence[str]
    run_id: str
    holder: str
    out: Path
    infer_limit: float
    gate: VerifySettings
    confirm_within: float
    target: str = ""
    where: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    permits: Permits = field(default_factory=Permits)
    planned: BoardPlan | None = None
    signature: str = ""  # of the release's manifest; "" = not signed
    store: Path = Path(".deploy")  # where older files may lie, to send differences from
    deltas: str = "auto"  # ssh.deltas
    keep_releases: int = 3
    heat: str = ""  # the setting that limits the chip's temperature: the board's own gate, or its wave's
    begun: frozenset[str] = frozenset()  # ids of the runs that this one goes on with: they were cut short

    @cached_property
    def run_key(self) -> str:
        """What a run's results depend on: runs with equal keys give equal results."""
        return digest_data({"release": self.release.id, "program": dict(self.program)})

    @cached_property
    def wish(self) -> BoardWish:
        """What the board ought to have, for planning."""
        sizes = {file.sha256: file.size for file in self.release.files}
        return BoardWish(self.release.id, sizes, self.environment, self.run_key)


@dataclass
class Session:
    """A job under way: the agent's line, what the board said, what is to be done, and what came of it so
    far."""

    job: BoardJob
    agent: BoardAgent
    inspection: Inspection
    plan: BoardPlan
    emit: Emit
    outcome: Outcome
    results: list[dict[str, Any]] = field(default_factory=list)
    report: RunReport | None = None

    def todo(self, step: str) -> bool:
        """Does the board's plan say so?"""
        return step in self.plan.steps

    @property
    def before(self) -> Mapping[str, Any]:
        """Figures of the last run of what the board runs now; empty where there are none."""
        figures = (self.inspection.last_run or {}).get("figures")
        return figures if isinstance(figures, Mapping) else {}

    def skip(self, stage: str, why: str) -> None:
        self.outcome.skipped = (*self.outcome.skipped, f"{stage}: {why}")
        self.emit(Event("skip", why, stage=stage, board=self.job.board))

    def say(self, stage: str, text: str, **data: Any) -> None:
        self.emit(Event("progress", text, stage=stage, board=self.job.board, data=data))

    def install(self) -> None:
        """Put the release on the board, beside the one in use."""
        job = self.job
        opener = blobs_of(job.release, job.files)
        report = self.agent.install(
            job.release, opener, job.environment, EarlierFiles(job.store), job.deltas
        )
        _note(
            self.emit, job.board, "installed", release=job.release.id, blobs=report.blobs, bytes=report.bytes
        )

    def switch(self) -> None:
        """Point ``current`` to the release. From here on the board goes back by itself unless it is
        confirmed."""
        job = self.job
        if self.inspection.foreign and not self.inspection.current and job.permits.take_over:
            self._move_aside()
        # In the journal before it is asked for: whoever reads it after a kill knows that it may have
        # happened.
        _note(
            self.emit,
            job.board,
            "switching",
            release=job.release.id,
            previous=self.inspection.current,
            within=job.confirm_within,
        )
        self.outcome.switched = True
        self.agent.switch(job.release.id, job.confirm_within, job.signature)

    def confirm(self, figures: Mapping[str, Any]) -> None:
        """Keep the release and remember on the board how it did."""
        job = self.job
        self.agent.confirm(
            {
                "run_key": job.run_key,
                "run_id": job.run_id,
                "release": job.release.id,
                "by": job.holder,
                "time": time.time(),
                "figures": dict(figures),
            },
            job.keep_releases,
        )
        _note(self.emit, job.board, "confirmed", release=job.release.id)

    def _move_aside(self) -> None:
        kept = f"current.before-{self.job.run_id}"
        moved = self.agent.run(
            ["mv", "-T", "{app}/current", "{app}/" + kept],
            cwd="{app}",
            need=(),
            limit=self.job.limits.command,
        )
        if moved.status != 0:
            raise BoardRefused(
                f"{self.job.board}: {self.inspection.folder}/current cannot be moved aside: "
                + moved.stderr_tail.strip(),
                cause="foreign-release",
                host=self.job.board,
                hint="move it by hand",
            )
        self.say("verify", f"what was in current is kept as {kept}")


def facts_of(inspection: Inspection, block: Sequence[str] = ()) -> BoardFacts:
    """What decides of what a board said."""
    pending, lock = inspection.pending, inspection.lock
    return BoardFacts(
        current=inspection.current,
        missing=dict(inspection.missing),
        broken=inspection.broken,
        environment=inspection.environment or "absent",
        block=tuple(block),
        run_key=str((inspection.last_run or {}).get("run_key", "")),
        lock=str(lock.get("holder") or "somebody") if lock else "",
        foreign=inspection.foreign,
        pending=str(pending.get("release", "")) if pending else "",
        disk_free=int(inspection.facts["disk_free"]) if "disk_free" in inspection.facts else None,
    )


def deploy_board(
    job: BoardJob,
    stages: Sequence[BoardStage],
    emit: Emit,
    connect: Connect = BoardAgent.connect,
    held: Held | None = None,
) -> Outcome:
    """Look at one board, decide, and walk ``stages`` (name, function). What goes wrong is in the outcome, not
    raised. Where the stage that switches is not among them, the board keeps running what it ran. ``held``: see
    :func:`attend`."""

    def walk(agent: BoardAgent, outcome: Outcome) -> None:
        wish = Wish(release=job.release, environment=job.environment, run_key=job.run_key)
        inspection = agent.inspect(job.root, job.app, wish)
        outcome.facts = dict(inspection.facts)
        outcome.previous = inspection.current
        decided = planning.decide(
            job.board, facts_of(inspection), job.wish, job.permits, job.target, job.where
        )
        session = Session(job, agent, inspection, decided, emit, outcome)
        outcome.before = dict(session.before)
        _note(emit, job.board, "planned", **{k: v for k, v in decided.decisive().items() if k != "board"})
        _check(job, decided, inspection)
        if decided.steps:
            agent.lock(job.holder, break_lock=job.permits.break_lock)
        for stage, run in stages:
            outcome.stage = stage
            emit(Event("start", stage=stage, board=job.board))
            run(session)
        outcome.stage = ""
        outcome.status = "unchanged" if decided.done or len(outcome.skipped) == len(stages) else "ok"
        if planning.SWITCH in decided.steps and not outcome.switched:
            outcome.message = f"it has {job.release.id[:12]} and still runs {inspection.current[:12] or 'nothing'}"
        if decided.done and inspection.previous and (inspection.last_run or {}).get("run_id") in job.begun:
            # It got the release in the part of this rollout that was cut short: so it can be put back, too.
            outcome.switched, outcome.previous = True, inspection.previous
        if planning.VERIFY not in decided.steps:
            outcome.figures = dict(session.before)

    return attend(job, walk, emit, connect, held=held)


def _check(job: BoardJob, decided: BoardPlan, inspection: Inspection) -> None:
    """Refuse a board that is not fit, or not as it was when the plan was made that is being carried out."""
    if decided.cause:
        # How long is no part of a plan: that would be another one each second.
        age = f" since {inspection.lock['age']:.0f} s" if decided.cause == "locked" and inspection.lock else ""
        raise BoardRefused(
            f"{job.board}: {decided.reason}{age}", cause=decided.cause, host=job.board, hint=decided.hint
        )
    # Nobody compares environments in the middle of a rollout: that takes a request more.
    if job.planned is not None:
        changed = planning.board_differs(_without_lines(job.planned), _without_lines(decided))
        if changed is not None:
            raise PlanError(f"{job.board}: {changed}", hint="look at it and make the plan again")


def _without_lines(plan: BoardPlan) -> BoardPlan:
    return BoardPlan(**{**vars(plan), "environment": ()})


def revert_board(
    job: BoardJob,
    done: Outcome,
    why: str,
    cause: str,
    emit: Emit,
    connect: Connect = BoardAgent.connect,
    held: Held | None = None,
) -> Outcome:
    """Put one board back to what it ran before ``done``; the outcome that takes the place of ``done``.

    Safe to call for any board that was asked to switch: one that went back by itself, or that somebody gave
    another release meanwhile, is left alone. ``why`` and ``cause`` say what made it necessary. Where it fails
    the cause is ``not-reverted``. ``held``: see :func:`attend`."""

    def walk(agent: BoardAgent, outcome: Outcome) -> None:
        inspection = agent.inspect(job.root, job.app)
        if inspection.current == job.release.id:
            agent.lock(job.holder, break_lock=job.permits.break_lock)
            _note(emit, job.board, "reverting", release=job.release.id, previous=done.previous)
            agent.revert(done.previous or "none")
            _note(emit, job.board, "reverted", release=done.previous)
        outcome.status = "reverted"
        outcome.cause = cause
        outcome.message = f"put back to {done.previous[:12] or 'nothing, as before'}: {why}"
        if inspection.foreign or inspection.current not in (job.release.id, done.previous):
            now = inspection.foreign or f"it runs {inspection.current[:12] or 'nothing'}"
            outcome.message = f"left alone, as somebody changed it meanwhile ({now}): {why}"

    outcome = attend(job, walk, emit, connect, stage="revert", shown=False, held=held)
    outcome.release, outcome.previous, outcome.switched = done.release, done.previous, done.switched
    outcome.figures, outcome.before, outcome.facts = done.figures, done.before, done.facts
    if outcome.status != "reverted":
        told = not_reverted(job, done, outcome.message)
        outcome.cause, outcome.message, outcome.hint = told.cause, told.message, told.hint
    elif done.failed:
        # It failed first, and that is what people want to read.
        outcome.status, outcome.cause, outcome.stage = done.status, done.cause, done.stage
        outcome.message, outcome.hint = f"{done.message}; it has what it had before", done.hint
    emit(Event("outcome", outcome.message, stage=outcome.stage, board=job.board, data=outcome.as_json()))
    return outcome


def not_reverted(job: BoardJob, done: Outcome, why: str) -> Outcome:
    """The outcome that takes the place of ``done`` where the board was not put back to what it ran before."""
    was, now = done.previous[:12] or "nothing", done.release[:12]
    return replace(
        done,
        status="failed",
        stage="revert",
        cause="not-reverted",
        message=f"could not be put back to {was}, may run {now}: {why}",
        hint=f"when it answers: {job.address.command('rollback')}",
    )


class Line(Protocol):
    """What can be cut."""

    def close(self) -> None: ...


class Held:
    """The line of one job, from before it is open: a job that is cut while it connects does not begin."""

    def __init__(self) -> None:
        self.agent: BoardAgent | None = None
        self.cut = False

    def open(self, agent: BoardAgent) -> None:
        """The line is open. Raises LineLost where it was cut before."""
        self.agent = agent
        if self.cut:
            name = agent.address.name
            raise LineLost(f"{name}: interrupted", cause="closed", host=name)

    def close(self) -> None:
        self.cut = True
        if self.agent is not None:
            self.agent.close()


_running: set[Line] = set()
_running_lock = threading.Lock()


@contextlib.contextmanager
def cut_with_all_lines(line: Line) -> Iterator[None]:
    """Within it :func:`cut_all_lines` closes ``line`` too."""
    with _running_lock:
        _running.add(line)
    try:
        yield
    finally:
        with _running_lock:
            _running.discard(line)


def cut_lines(lines: Iterable[Line]) -> None:
    """Close these lines, and end those that are only being made: nobody holds them yet."""
    for line in lines:
        line.close()
    WATCHDOG.end_connecting()


def cut_all_lines() -> None:
    """Close every line that a job of this process holds: their jobs end at once, as if contact had been
    lost."""
    with _running_lock:
        lines = list(_running)
    cut_lines(lines)


def despite_ctrl_c(call: Callable[[], None]) -> None:
    """``call()``, to its end even where somebody presses Ctrl-C again: that ends the waiting for it, at most."""
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(call).result()
    finally:
        pool.shutdown(wait=False)


def attend(
    job: BoardJob,
    walk: Callable[[BoardAgent, Outcome], None],
    emit: Emit,
    connect: Connect = BoardAgent.connect,
    *,
    stage: str = "connect",
    shown: bool = True,
    held: Held | None = None,
) -> Outcome:
    """One session with one board: connect, ``walk(agent, outcome)``, and whatever goes wrong as the outcome.

    ``walk`` sets ``outcome.status`` and keeps ``outcome.stage`` up to date. ``shown``: end with an outcome
    event. ``held``: what a person cuts this job's line with, for those who cut by more than the process."""
    outcome = Outcome(board=job.board, status="ok", release=job.release.id, stage=stage)
    begun = time.monotonic()
    agent: BoardAgent | None = None
    held = held or Held()
    emit(Event("start", str(job.address), stage=stage, board=job.board, data={"app": job.app}))
    try:
        with cut_with_all_lines(held):
            agent = connect(job.address, job.limits, emit)
            held.open(agent)
            walk(agent, outcome)
        if outcome.status in ("ok", "unchanged", "reverted"):
            outcome.stage = ""
    except DeployError as error:
        outcome.status = "unreachable" if isinstance(error, Unreachable) else "failed"
        outcome.cause, outcome.message, outcome.hint = _cause(error), str(error), error.hint
        if held.cut and isinstance(error, LineLost | Unreachable):
            # The person cut it, not the board.
            outcome.status, outcome.cause, outcome.hint = "failed", "interrupted", ""
            outcome.message = _interrupted(job, outcome)
    except OSError as error:
        # What goes wrong on a line or a board has a name of its own by now: this is a disk of ours.
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        outcome.status, outcome.cause = "failed", "input"
        outcome.message = f"{job.board}: on this machine: {where}{error.strerror or error}"
        outcome.hint = f"see to {job.out.parent}, or let DEPLOY_HOME=FOLDER name another place; then run again"
    except Exception as error:
        # A defect of ours, met by one board of a thousand: the others have a right to their own ends.
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome.status, outcome.cause = "failed", "defect"
        outcome.message = (
            f"{job.board}: a defect of ascend-deploy: {type(error).__name__}: {error} "
            f"({Path(place.filename).name}:{place.lineno})"
        )
    finally:
        if agent is not None:
            outcome.sent, outcome.received = agent.line.sent, agent.line.received
            outcome.requests, outcome.connections = agent.requests, agent.line.connections
            agent.close()
        outcome.seconds = round(time.monotonic() - begun, 3)
    if shown:
        emit(Event("outcome", outcome.message, stage=outcome.stage, board=job.board, data=outcome.as_json()))
    return outcome


def _interrupted(job: BoardJob, outcome: Outcome) -> str:
    where = f"{job.board}: interrupted in {outcome.stage}"
    if outcome.stage == "revert":
        return where
    if not outcome.switched:
        return f"{where}: it runs what it ran before"
    return f"{where}: unless that was confirmed, it goes back by itself {job.confirm_within:g} s after the switch"


def _cause(error: DeployError) -> str:
    if isinstance(error, GateError):
        return "gate"
    if isinstance(error, PlanError):
        return "plan-changed"
    if isinstance(error, RemoteError):
        return error.cause
    return "input" if error.exit_code == 2 else "defect"


def _note(emit: Emit, board: str, what: str, **data: Any) -> None:
    """A line of the journal about what a board has, not only about what we do."""
    emit(Event("log", what, stage="board", board=board, data=data))
