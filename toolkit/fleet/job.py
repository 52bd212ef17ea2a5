"""What is done with one board, from connecting to its outcome.

The job walks a list of board stages over one session. Nothing that is in use on the board is touched until the
release has proved itself: push puts it beside the current one, infer runs it from there, verify compares and only
then switches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.artefacts.hashing import digest_data
from toolkit.artefacts.manifest import Release
from toolkit.errors import DeployError, GateError, RemoteError, Unreachable
from toolkit.fleet.outcome import Outcome
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent, Inspection, Wish
from toolkit.ui.events import Emit, Event


@dataclass(frozen=True)
class BoardJob:
    """All that one board's job needs; plain data, can be pickled.

    files: path in the release → file on this machine. reference: entries of the release's reference.json.
    program: settings of the run that its results depend on (``top_k``, ``device``, ``warmup``).
    """

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
    tolerance: float
    confirm_within: float

    @property
    def run_key(self) -> str:
        """What a run's results depend on: runs with equal keys give equal results."""
        return digest_data({"release": self.release.id, "program": dict(self.program)})


@dataclass
class Session:
    """A job under way: the agent's line, what the board said, and what came of it so far."""

    job: BoardJob
    agent: BoardAgent
    inspection: Inspection
    emit: Emit
    outcome: Outcome
    results: list[dict[str, Any]] = field(default_factory=list)
    changed: bool = False

    @property
    def current(self) -> bool:
        """Does the board run this release already?"""
        return self.inspection.current == self.job.release.id

    @property
    def ran(self) -> bool:
        """Did the board run this release with these settings already?"""
        last = self.inspection.last_run
        return self.current and last is not None and last.get("run_key") == self.job.run_key

    def skip(self, stage: str, why: str) -> None:
        self.outcome.skipped = (*self.outcome.skipped, f"{stage}: {why}")
        self.emit(Event("skip", why, stage=stage, board=self.job.board))

    def say(self, stage: str, text: str, **data: Any) -> None:
        self.emit(Event("progress", text, stage=stage, board=self.job.board, data=data))



_running: set[BoardAgent] = set()
_running_lock = threading.Lock()


def cut_all_lines() -> None:
    """Close every line that a job of this process holds: their jobs end at once, as if contact had been lost."""
    with _running_lock:
        agents = list(_running)
    for agent in agents:
        agent.close()


def deploy_board(job: BoardJob, stages: Sequence[tuple[str, Callable[[Session], None]]], emit: Emit) -> Outcome:
    """Walk ``stages`` (name, function) on one board. Never raises for what goes wrong on the board: the outcome says it."""
    outcome = Outcome(board=job.board, status="ok", release=job.release.id)
    begun = time.monotonic()
    stage = "connect"
    agent: BoardAgent | None = None
    emit(Event("start", str(job.address), stage=stage, board=job.board))
    try:
        agent = BoardAgent.connect(job.address, job.limits, emit)
        with _running_lock:
            _running.add(agent)
        wish = Wish(release=job.release, environment=job.environment, run_key=job.run_key)
        inspection = agent.inspect(job.root, job.app, wish)
        outcome.facts = dict(inspection.facts)
        outcome.previous = inspection.current
        session = Session(job, agent, inspection, emit, outcome)
        if not (session.ran and inspection.environment == "same"):
            agent.lock(job.holder)
            session.changed = True
        for stage, run in stages:
            run(session)
        outcome.status = "ok" if session.changed else "unchanged"
        if not session.changed:
            outcome.figures = dict((inspection.last_run or {}).get("figures", {}))
    except GateError as error:
        outcome.status = "failed"
        _explain(outcome, stage, "gate", error)
    except Unreachable as error:
        outcome.status = "unreachable"
        _explain(outcome, stage, error.cause, error)
    except RemoteError as error:
        outcome.status = "failed"
        _explain(outcome, stage, error.cause, error)
    except DeployError as error:
        outcome.status = "failed"
        _explain(outcome, stage, "input" if error.exit_code == 2 else "defect", error)
    finally:
        if agent is not None:
            outcome.sent, outcome.received = agent.line.sent, agent.line.received
            outcome.requests, outcome.connections = agent.requests, agent.line.connections
            with _running_lock:
                _running.discard(agent)
            agent.close()
        outcome.seconds = round(time.monotonic() - begun, 3)
    emit(Event("outcome", outcome.message, stage=outcome.stage, board=job.board, data=outcome.as_json()))
    return outcome


def _explain(outcome: Outcome, stage: str, cause: str, error: DeployError) -> None:
    outcome.stage, outcome.cause, outcome.message, outcome.hint = stage, cause, str(error), error.hint
