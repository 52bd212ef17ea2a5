"""Training on another machine over SSH: send what is missing, start, follow, fetch.

The job is the host's (see ``far_side``): it goes on when the line is cut or this program ends, and whoever asks
for the same training again finds it by its name. Only contents that the host does not have yet are sent.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import toolkit
from toolkit import errors
from toolkit.artefacts.hashing import digest_file, walk_files
from toolkit.learn import far_side, training_job
from toolkit.learn.settings import DataSettings, ModelSettings, RemoteSettings, TrainSettings, Where
from toolkit.preprocess import Preprocess
from toolkit.remote.address import Address, Limits
from toolkit.remote.agent import BoardAgent
from toolkit.ui.events import Emit, Event, Kind

APP, BASE = "training", "host"
ROOMS = ("learn", "ui")
"""What the worker imports of us, besides the modules of the package itself."""
FOREVER = 90 * 24 * 3600.0
"""Seconds that a training may be followed in one session."""
MAX_BYTES, MAX_FILES = 8 << 30, 1000

TOLD = "told"
"""The file of the work folder that says how many of a job's events were shown."""
NOT_RUNNING = {
    "new": "there is no such training",
    "done": "the training has already ended well",
    "ended": "the training has already ended",
}
WITHOUT_CANCEL = {
    "new": "without train.remote.cancel the same command starts it",
    "done": "without train.remote.cancel the same command fetches what it made",
    "running": "without train.remote.cancel the same command goes on after its last whole epoch",
    "ended": "without train.remote.cancel the same command goes on after its last whole epoch",
}


@dataclass(frozen=True)
class TrainHost:
    """A machine to train on. ``environment`` is shell text, ``root`` the folder that everything is below."""

    address: Address
    limits: Limits
    root: str
    environment: str
    python: str

    @property
    def name(self) -> str:
        return self.address.name


def train(
    host: TrainHost,
    name: str,
    data_dir: Path | None,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: TrainSettings,
    data: DataSettings,
    *,
    out: Path,
    work: Path,
    emit: Emit,
    attach: bool = False,
    wait: Callable[[float], object] = time.sleep,
) -> dict[str, Any]:
    """Train on ``host`` under ``name``, which is the same for the same training; return what ``training_job`` does.

    What the job tells is told once: the folder ``work`` remembers how much of it was, from one call to the next.
    ``attach``: only follow a job that there is, UsageError where there is none. ``settings.remote.cancel`` ends the
    job there instead (see :func:`cancel`). A lost line is taken up again ``settings.remote.attempts`` times in a
    row, after ``wait`` (seconds, doubling). Interrupted when the user presses Ctrl-C (the job goes on), or when it
    was cancelled; errors of the worker as themselves.
    """
    if settings.remote.cancel:
        was = cancel(host, name, emit)
        if was != "running":
            raise errors.UsageError(f"{NOT_RUNNING[was]} on {host.name}", hint=WITHOUT_CANCEL[was])
        raise errors.Interrupted(f"the training on {host.name} is cancelled", hint=WITHOUT_CANCEL[was])
    local = replace(settings, where=Where.local, remote=RemoteSettings())
    following = _Following(host, f"job-{name}", emit, work / TOLD, attach)
    lost = 0
    while True:
        before = following.seen
        try:
            report = following.once(_job(data_dir, model, preprocess, local), data_dir, out)
            done = training_job.finished(report, model, settings, data, out)
            return {**done, "summary": f"{done['summary']}, on {host.name}", "host": host.name}
        except (errors.LineLost, errors.Unreachable) as error:
            lost = 1 if following.seen > before else lost + 1
            if not following.started or lost > settings.remote.attempts:
                if following.started:
                    error.hint = f"the training goes on there: the same command finds it again; {error.hint}"
                raise
            emit(Event("warning", f"{error}; the training goes on there, taking the line up again"))
            wait(min(2.0 ** (lost - 1), 60.0))
        except KeyboardInterrupt:
            if not following.started:
                raise
            raise errors.Interrupted(
                f"the training goes on on {host.name}",
                hint="the same command follows it again; deploy cancel with the same settings ends it",
            ) from None


def cancel(host: TrainHost, name: str, emit: Emit) -> str:
    """End the training ``name`` on ``host`` and wait for its end; what it learned so far stays there.

    Return how it was before: running, new (there is none), done (well), ended (badly, or cancelled).
    """
    return _Following(host, f"job-{name}", emit).cancel()


class _Following:
    """What is known of a job on a host, from one session to the next."""

    def __init__(
        self, host: TrainHost, job: str, emit: Emit, told: Path | None = None, attach: bool = False
    ) -> None:
        self.host, self.job, self.emit, self.told, self.attach = host, job, emit, told, attach
        self.started = False
        self.seen = _number(told)
        self.ending: dict[str, Any] = {}

    def once(self, job: Mapping[str, Any], data_dir: Path | None, out: Path) -> dict[str, Any]:
        """One session: from what is missing to the result, as far as the line holds."""
        contents = {**_sources(), **_pictures(data_dir)}
        with self._session() as agent, tempfile.TemporaryDirectory() as folder:
            root = agent.inspect(self.host.root, APP).folder
            self._put(agent, Path(folder), contents, job, f"{root}/work/{BASE}/{self.job}")
            found = self._ask(agent, "missing", self.job)
            lacking = {str(item["missing"]) for item in found if "missing" in item}
            state = next((item["state"] for item in found if "state" in item), "unknown")
            if state in ("running", "done"):
                self.started = True
                self._log(f"found on {self.host.name}: the training {'runs' if state == 'running' else 'has ended'}")
            elif self.attach:
                raise errors.UsageError(
                    f"{NOT_RUNNING.get(state, NOT_RUNNING['new'])} on {self.host.name} for these settings",
                    hint="deploy train without --attach starts one",
                )
            else:
                self._tell(0)
                files = {sha: path for path, sha in contents.values() if sha in lacking}
                size = sum(path.stat().st_size for path in files.values())
                self._log(f"{len(files)} of {len(contents)} files sent to {self.host.name}, {size:,} bytes")
                agent.put(f"{BASE}/incoming", files)
                self._ask(agent, "start", self.job)
                self.started = True
            try:
                self._ask(agent, "follow", self.job, str(self.seen))
            finally:
                self._tell(self.seen)
            report = self._result()
            shutil.rmtree(out, ignore_errors=True)
            agent.fetch(f"work/{BASE}/{self.job}/out", out, limit_bytes=MAX_BYTES, limit_files=MAX_FILES)
            made = out / str(report["checkpoint"])
            if not made.is_file() or digest_file(made) != report["sha256"]:
                raise errors.LineLost(
                    f"{self.host.name}: {made.name} is not the checkpoint that was trained", cause="garbage"
                )
            agent.remove(f"{BASE}/{self.job}")
            self._tell(0)
            return report

    def cancel(self) -> str:
        """End the job; see :func:`cancel`."""
        with self._session() as agent, tempfile.TemporaryDirectory() as folder:
            agent.inspect(self.host.root, APP)
            self._put(agent, Path(folder), {}, None, "")
            found = self._ask(agent, "cancel", self.job)
        before = next((item["before"] for item in found if "before" in item), "new")
        return before if before in ("running", *NOT_RUNNING) else "new"

    def _tell(self, seen: int) -> None:
        """So many events of the job were told."""
        self.seen = seen
        if self.told is not None:
            self.told.write_text(str(seen))

    def _session(self) -> BoardAgent:
        limits = replace(self.host.limits, board=FOREVER, command=FOREVER)
        return BoardAgent.connect(self.host.address, limits, self.emit)

    def _put(
        self,
        agent: BoardAgent,
        folder: Path,
        contents: Mapping[str, tuple[Path, str]],
        job: Mapping[str, Any] | None,
        there: str,
    ) -> None:
        files = {"env.sh": folder / "env.sh", "far_side.py": Path(far_side.__file__)}
        (folder / "env.sh").write_text(self.host.environment)
        if job is not None:
            spec = {"contents": {name: sha for name, (_, sha) in contents.items()}}
            (folder / "spec.json").write_text(json.dumps(spec, sort_keys=True))
            text = json.dumps(job, indent=1, sort_keys=True).replace("{job}", json.dumps(there)[1:-1])
            (folder / "train.json").write_text(text)
            files |= {f"{self.job}/{name}": folder / name for name in ("spec.json", "train.json")}
        agent.put(BASE, files)

    def _ask(self, agent: BoardAgent, *arguments: str) -> list[dict[str, Any]]:
        """Run ``far_side`` and return the lines of JSON that are no events; those go on as they come."""
        found: list[dict[str, Any]] = []

        def on_line(line: str) -> None:
            try:
                said = json.loads(line)
            except ValueError:
                return
            if not isinstance(said, dict):
                return
            if "event" in said:
                self.seen += 1
                self.emit(_event(said["event"]))
            elif said.keys() & {"result", "error", "ended"}:
                self.ending |= said
            else:
                found.append(said)

        report = agent.run(
            [self.host.python, "far_side.py", *arguments],
            cwd=f"{{app}}/work/{BASE}",
            env_file=f"{{app}}/work/{BASE}/env.sh",
            limit=FOREVER,
            on_line=on_line,
        )
        if report.status:
            last = (report.stderr_tail.strip().splitlines() or [f"status {report.status}"])[-1]
            raise errors.CommandFailed(
                f"{self.host.name}: {self.host.python} cannot do its part of the training: {last}",
                host=self.host.name,
                hint="train.remote.python names an interpreter with MindSpore (Python 3.10 or newer), "
                "train.remote.activate a script that makes it usable",
                detail=report.stderr_tail[-2000:],
            )
        return found

    def _result(self) -> dict[str, Any]:
        if "result" in self.ending:
            return dict(self.ending["result"])
        if "error" in self.ending:
            said = self.ending["error"]
            if said.get("class") == "KeyboardInterrupt":
                raise errors.Interrupted(f"the training on {self.host.name} was cancelled there")
            known = getattr(errors, str(said.get("class")), None)
            kind = known if known in (errors.InputError, errors.ConfigError) else errors.DeployError
            raise kind(f"{self.host.name}: {said.get('message')}", hint=str(said.get("hint", "")))
        lines = [line for line in str(self.ending.get("log", "")).splitlines() if line.strip()]
        last = f": {lines[-1][:200]}" if lines else ""
        raise errors.DeployError(
            f"the training on {self.host.name} ended unexpectedly{last}",
            hint="the same command goes on after its last whole epoch; look at the machine's memory and dmesg",
        )

    def _log(self, text: str) -> None:
        self.emit(Event("log", text, data={"show": True}))


def _number(file: Path | None) -> int:
    """The number that the file holds; 0 where it holds none."""
    try:
        return int(file.read_text()) if file is not None else 0
    except (OSError, ValueError):
        return 0


def _event(said: Any) -> Event:
    """An event of the worker's, as far as it looks like one: it comes from another machine."""
    known = said if isinstance(said, dict) else {}
    data = known.get("data")
    kinds: dict[Any, Kind] = {"progress": "progress", "warning": "warning"}
    kind = kinds.get(known.get("kind"), "log")
    return Event(kind, str(known.get("text", ""))[:1000], data=data if isinstance(data, dict) else {})


def _job(
    data_dir: Path | None, model: ModelSettings, preprocess: Preprocess, settings: TrainSettings
) -> dict[str, Any]:
    """The worker's job, with ``{job}`` for its folder on the host."""
    job = training_job.train_job(None, model, preprocess, settings, Path("/"))
    data = None if data_dir is None else "{job}/data"
    return {**job, "data": data, "out": "{job}/out", "state": "{job}/state"}


def _sources() -> dict[str, tuple[Path, str]]:
    root = Path(toolkit.__file__).resolve().parent
    paths = [*root.glob("*.py"), *(path for room in ROOMS for path in (root / room).rglob("*.py"))]
    return {f"code/toolkit/{path.relative_to(root).as_posix()}": (path, digest_file(path)) for path in paths}


def _pictures(data_dir: Path | None) -> dict[str, tuple[Path, str]]:
    """The records; what else a dataset's folder holds is not trained with."""
    if data_dir is None:
        return {}
    wanted = re.compile(r".*\.(bin|txt)")
    files = ((name, path) for name, path in walk_files(data_dir) if wanted.fullmatch(name) and "/" not in name)
    return {f"data/{name}": (path, digest_file(path)) for name, path in files}
