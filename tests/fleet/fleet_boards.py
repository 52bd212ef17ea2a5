"""Boards for tests of rollouts: the real agent behind a pipe instead of SSH, each board with a home of its
own.

An interpreter of the board is a script that sets HOME and starts Python, so that nothing of the code under
test knows of it. What runs on the boards is a program of the standard library that answers with what its
release says, unless the board's own ``fault`` file says otherwise; the modules that boards must have are
empty there."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages import _registry
from toolkit.artefacts.manifest import Release
from toolkit.config.schema import RolloutSettings, VerifySettings
from toolkit.errors import Unreachable
from toolkit.fleet.job import BoardJob, deploy_board, revert_board
from toolkit.fleet.outcome import Outcome
from toolkit.fleet.rollout import Hands, Trip, roll_out
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Emit, Event, ignore

PROGRAM = """\
import json, os, signal, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
fault = ""
if os.path.exists(os.path.expanduser("~/fault")):
    with open(os.path.expanduser("~/fault")) as stream:
        fault = stream.read()
if fault == "hang":
    open(os.path.expanduser("~/hangs"), "w").close()
    while True:
        signal.pause()
if fault == "crash":
    sys.exit("the device is lost")
with open(os.path.join(options["--release"], "answers.json")) as stream:
    answers = json.load(stream)
os.makedirs(options["--out"], exist_ok=True)
with open(os.path.join(options["--out"], "results.jsonl"), "w") as stream:
    for answer in answers:
        if fault == "wrong":
            answer["logits"] = [-value for value in answer["logits"]]
        if fault == "slow":
            answer["ms"]["execute"] *= 100
        stream.write(json.dumps(answer) + "\\n")
"""

APP = "app"
REFERENCE = [
    {
        "picture": f"{number}.png",
        "label": number % 3,
        "logits": [float(5 * (number % 3 == i)) for i in range(3)],
    }
    for number in range(4)
]


def answers(wrong: bool = False, execute_ms: float = 1.0) -> list[dict[str, Any]]:
    """What a release's program answers: as the reference, unless told otherwise."""
    found = []
    for entry in REFERENCE:
        logits = [-value for value in entry["logits"]] if wrong else list(entry["logits"])  # type: ignore[attr-defined]
        found.append({"picture": entry["picture"], "logits": logits, "ms": {"execute": execute_ms}})
    return found


@dataclass
class Made:
    """A release on this machine."""

    release: Release
    files: Mapping[str, Path]
    reference: Sequence[Mapping[str, Any]] = field(default_factory=lambda: REFERENCE)

    @property
    def id(self) -> str:
        return self.release.id


def make_release(
    folder: Path, name: str, given: Sequence[Mapping[str, Any]] | None = None, **reference: Any
) -> Made:
    """A release whose program answers ``given``."""
    place = folder / name
    place.mkdir(parents=True)
    content = {
        "infer.py": PROGRAM,
        "env.sh": f"export RELEASE={name}\n",
        "answers.json": json.dumps(list(answers() if given is None else given)),
        "name": name,
    }
    for file, text in content.items():
        (place / file).write_text(text)
    files = {file: place / file for file in content}
    return Made(Release.of_files(APP, files), files, **reference)


class Fleet:
    """``count`` boards below ``folder``."""

    def __init__(
        self, folder: Path, count: int, labels: Callable[[int], Mapping[str, str]] = lambda n: {}
    ) -> None:
        self.folder = folder
        self.names = [f"b-{number}" for number in range(count)]
        self.labels = {name: labels(number) for number, name in enumerate(self.names)}
        self.sessions: Counter[str] = Counter()
        self.offline: set[str] = set()
        self.events: list[Event] = []
        self._lock = threading.Lock()
        modules = folder / "modules"
        modules.mkdir(parents=True)
        for module in ("acl", "numpy", "PIL"):
            (modules / f"{module}.py").touch()
        for name in self.names:
            home = self.home(name)
            home.mkdir()
            python = home / "python"
            python.write_text(
                f"#!/bin/sh\nHOME={home} PYTHONPATH={modules}\nexport HOME PYTHONPATH\n"
                f'exec {sys.executable} -S "$@"\n'
            )
            python.chmod(0o755)

    def home(self, name: str) -> Path:
        return self.folder / name

    def app(self, name: str) -> Path:
        return self.home(name) / "PROJECTS" / APP

    def current(self, name: str) -> str:
        """The id that the board runs; "" = none."""
        try:
            return os.readlink(self.app(name) / "current").rpartition("/")[2]
        except OSError:
            return ""

    def running(self) -> dict[str, str]:
        return {name: self.current(name) for name in self.names}

    def fault(self, name: str, fault: str) -> None:
        """``crash``, ``hang``, ``wrong`` or ``slow``; "" heals."""
        path = self.home(name) / "fault"
        if fault:
            path.write_text(fault)
        else:
            path.unlink(missing_ok=True)

    def emit(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def connect(self, address: Address, limits: Limits, emit: Emit) -> BoardAgent:
        """As :meth:`BoardAgent.connect`, counted; one that is offline refuses."""
        with self._lock:
            self.sessions[address.name] += 1
            gone = address.name in self.offline
        if gone:
            raise Unreachable(f"{address.name}: connection refused", cause="refused", host=address.name)
        return BoardAgent.connect(address, limits, emit)

    def jobs(self, made: Made, run: str = "run", **changes: Any) -> list[BoardJob]:
        return [self.job(name, made, run, **changes) for name in self.names]

    def job(self, name: str, made: Made, run: str = "run", words: str = "", **changes: Any) -> BoardJob:
        python = str(self.home(name) / "python")
        job = BoardJob(
            board=name,
            address=Address(name, "local", client="local", interpreters=(python,), words=words),
            limits=Limits(silence=30, board=120, command=60),
            root="~/PROJECTS",
            app=APP,
            release=made.release,
            files=made.files,
            environment=made.files["env.sh"].read_text(),
            reference=made.reference,
            program={"top_k": 1, "device": 0, "warmup": 0},
            interpreters=(python,),
            run_id=run,
            holder="tests",
            out=self.folder / "out" / run / name,
            infer_limit=30,
            gate=VerifySettings(),
            confirm_within=60,
            labels=self.labels[name],
        )
        return replace(job, **changes)

    def deploy(self, job: BoardJob, emit: Emit = ignore) -> Outcome:
        return deploy_board(job, _registry.board_stages(), emit, self.connect)

    def roll_out(
        self,
        made: Made,
        settings: RolloutSettings | None = None,
        *,
        run: str = "run",
        workers: int = 4,
        ask: Callable[[str], bool] = lambda question: True,
        stop: threading.Event | None = None,
        until_done: bool = False,
        record: Callable[[Outcome], None] = lambda outcome: None,
        planned: Sequence[Sequence[str]] | None = None,
        **changes: Any,
    ) -> tuple[dict[str, Outcome], Trip | None]:
        """A rollout to the whole fleet; outcomes by name."""
        hands = Hands(
            deploy=lambda job: self.deploy(job, self.emit),
            revert=lambda job, done, why, cause: revert_board(job, done, why, cause, self.emit, self.connect),
            ask=ask,
            record=record,
        )
        outcomes, trip = roll_out(
            self.jobs(made, run, **changes),
            settings or RolloutSettings(),
            hands,
            workers=workers,
            emit=self.emit,
            stop=stop or threading.Event(),
            until_done=until_done,
            planned=planned,
        )
        assert [outcome.board for outcome in outcomes] == self.names, "none lost, none twice, in order"
        return {outcome.board: outcome for outcome in outcomes}, trip


def of_status(outcomes: Mapping[str, Outcome], *statuses: str) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome.status in statuses}
