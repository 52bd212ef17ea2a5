"""Training as a ModelArts job: sent, created, watched, fetched; cut-proof at every point.

What is known of a job stands in ``modelarts.json`` in the stage's work folder, written before the job is
created: whoever comes back, after whatever end of this program, finds the job by its id, or by its name where
the answer to its creation was lost. The same settings never start a second job while there is a first.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.artefacts.hashing import digest_file, digest_folder
from toolkit.cloud import packing, transfer
from toolkit.cloud.boot import MARK, RESULT
from toolkit.cloud.modelarts import FINAL, RUNNING, WAITING, Service, State, Wanted
from toolkit.cloud.obs import Bucket
from toolkit.cloud.settings import ModelArtsSettings, ObsSettings
from toolkit.errors import CloudError, InputError, Interrupted, UsageError
from toolkit.ui.events import Emit, Event

RECORD = "modelarts.json"
LOG = "modelarts.log"
FILES = ("model.ckpt", "last.ckpt", "best.ckpt", "history.csv")
ATTACH = "deploy train --attach with the same settings follows it, deploy cancel ends it"


@dataclass
class Record:
    """What is known of one job. ``id`` is empty while the answer to its creation is not there."""

    name: str
    app: str
    id: str = ""
    ended: str = ""  # the phase it ended in, once it did
    obs: dict[str, Any] = field(default_factory=dict)
    modelarts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, work: Path) -> Record | None:
        """The record in a work folder, or None where there is none that can be read."""
        try:
            return cls(**json.loads((work / RECORD).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, work: Path) -> None:
        """Keep it, whole or not at all."""
        beside = work / (RECORD + ".new")
        beside.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        os.replace(beside, work / RECORD)


@dataclass
class Cloud:
    """Both services, and how time passes."""

    obs: ObsSettings
    modelarts: ModelArtsSettings
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @property
    def service(self) -> Service:
        return Service(self.modelarts, self.obs, self.sleep)

    def of(self, record: Record) -> Cloud:
        """Where the job of ``record`` was started, whatever the settings say now. Keys are those of now."""
        return replace(
            self, obs=replace(self.obs, **record.obs), modelarts=replace(self.modelarts, **record.modelarts)
        )

    def bucket(self) -> Bucket:
        return Bucket(self.obs, self.obs.bucket, self.sleep)

    def key(self, *parts: str) -> str:
        return "/".join(part for part in (self.obs.prefix.strip("/"), *parts) if part)


def train(
    cloud: Cloud,
    job: Mapping[str, Any],
    data: Path | None,
    *,
    app: str,
    out: Path,
    work: Path,
    emit: Emit,
    attach: bool = False,
) -> dict[str, Any]:
    """Train and export in a job, and put what came out into ``out``; return the worker's report.

    ``job`` is ``{"train": …, "export": …}`` as the worker takes them, without paths. ``attach``: only
    follow a job that there is. Interrupted on Ctrl-C: the job goes on. CloudError where it failed.
    """
    record = Record.read(work)
    if record is not None and record.ended:
        # It failed, or its results were lost on their way into the store: look again at what ended well.
        record = record if record.ended == "Completed" else None
    if record is None and attach:
        raise UsageError(
            "there is no job in ModelArts for these settings", hint="deploy train without --attach starts one"
        )
    found = _again(cloud, record, work, emit) if record is not None else None
    if record is None or found is None:
        record = _send(cloud, job, data, app, work, emit)
        found = _create(cloud, record, data, work)
        emit(Event("log", f"training job {record.name} ({found.id}) created"))
    try:
        _follow(cloud, record, found, work, emit)
    except KeyboardInterrupt:
        raise Interrupted(f"no longer watching: training job {record.name} goes on in ModelArts", hint=ATTACH) from None
    return _fetch(cloud, record, out, work, emit)


def running(root: Path) -> Iterator[tuple[Path, Record]]:
    """Every job below ``root`` (the store's folder) that is not known to have ended, with its work folder."""
    for path in sorted(root.glob(f"work/*/{RECORD}")):
        record = Record.read(path.parent)
        if record is not None and not record.ended:
            yield path.parent, record


def cancel(cloud: Cloud, record: Record, work: Path) -> State | None:
    """End a job and wait for its end, ``modelarts.stop`` seconds at most. None: it was never created."""
    service = cloud.service
    state = service.show(record.id) if record.id else service.find(record.name)
    if state is None:
        record.ended = "never created"
        record.write(work)
        return None
    if state.phase not in FINAL:
        service.stop(state.id)
    end = cloud.clock() + cloud.modelarts.stop
    while state.phase not in FINAL:
        if cloud.clock() > end:
            raise CloudError(
                f"training job {record.name} did not end within {cloud.modelarts.stop:g} s of being asked to",
                cause="timeout",
                host=service.host,
                hint="it is billed until it ends: see ModelArts' console",
            )
        cloud.sleep(cloud.modelarts.poll)
        state = service.show(state.id)
    record.id, record.ended = state.id, state.phase
    record.write(work)
    return state


def _again(cloud: Cloud, record: Record, work: Path, emit: Emit) -> State | None:
    """The job of an earlier run, or None where it was never created or is gone."""
    if record.id:
        try:
            state: State | None = cloud.service.show(record.id)
        except CloudError as error:
            if error.cause != "not-found":
                raise
            state = None
    else:
        state = cloud.service.find(record.name)
    if state is not None:
        record.id = state.id
        record.write(work)
        emit(Event("log", f"following training job {record.name} ({state.id}), {state.phase.lower()}"))
    return state


def _send(cloud: Cloud, job: Mapping[str, Any], data: Path | None, app: str, work: Path, emit: Emit) -> Record:
    """Send code and data, and write the record."""
    name = "-".join(["deploy", "".join(c if c.isalnum() else "-" for c in app)[:40], secrets.token_hex(4)])
    record = Record(name, app, "", "", _plain(cloud.obs), _plain(cloud.modelarts))
    shutil.rmtree(work / "code", ignore_errors=True)
    files = packing.pack(work / "code", job, cloud.modelarts.requirements)
    sent = {cloud.key("jobs", name, "code", path.name): path for path in files}
    if data is not None:
        prefix = _data_key(cloud, data)
        sent |= {f"{prefix}/{path.name}": path for path in sorted(data.iterdir()) if path.is_file()}
    with cloud.bucket() as bucket:
        report = transfer.upload(bucket, sent, records=work / "uploads", emit=emit)
        # ModelArts wants the folder of results to be there.
        bucket.put_bytes(cloud.key("jobs", name, "output") + "/", b"")
    emit(Event("log", f"code and data in obs://{cloud.obs.bucket}: {report}"))
    record.write(work)
    return record


def _create(cloud: Cloud, record: Record, data: Path | None, work: Path) -> State:
    def place(*parts: str) -> str:
        return f"/{cloud.obs.bucket}/{cloud.key('jobs', record.name, *parts)}"

    wanted = Wanted(
        name=record.name,
        description=f"ascend-deploy trains {record.app}",
        code_dir=place("code") + "/",
        boot_file=place("code", packing.BOOT),
        inputs={} if data is None else {"data_url": f"/{cloud.obs.bucket}/{_data_key(cloud, data)}/"},
        outputs={"train_url": place("output") + "/"},
        log=place("log") + "/",
    )
    service = cloud.service
    try:
        state = service.create(wanted)
    except CloudError as error:
        # Refused: nothing was created. No answer: perhaps something was, and it must not be paid for unseen.
        found = None if error.cause not in ("timeout", "unreachable", "server") else _quietly(service, record.name)
        if found is None:
            (work / RECORD).unlink(missing_ok=True)
            raise
        state = found
    record.id = state.id
    record.write(work)
    return state


def _quietly(service: Service, name: str) -> State | None:
    try:
        return service.find(name)
    except CloudError:
        return None


def _data_key(cloud: Cloud, data: Path) -> str:
    return cloud.key("data", digest_folder(data).rpartition(":")[2][:32])


def _plain(settings: Any) -> dict[str, Any]:
    """What is needed to find the job again; keys are references, and those too stay out."""
    found = ("bucket", "prefix", "region", "endpoint", "ca_file", "signature", "project_id")
    return {key: value for key, value in asdict(settings).items() if key in found}


def _follow(cloud: Cloud, record: Record, state: State, work: Path, emit: Emit) -> None:
    """Watch the job until it completed. CloudError where it ended otherwise or a limit is reached."""
    service, settings = cloud.service, cloud.modelarts
    log = _Log(service, state.id, work / LOG, emit)
    begun = heard = cloud.clock()
    limit = settings.max_hours * 3600 + settings.queue + settings.stop
    phase = ""
    while True:
        if state.phase != phase:
            phase = state.phase
            emit(Event("log", f"training job {record.name}: {phase.lower()}"))
        if phase in WAITING:
            waited = cloud.clock() - begun
            emit(
                Event(
                    "progress",
                    f"{phase.lower()} in ModelArts",
                    data={"done": int(waited), "total": None, "unit": "s"},
                )
            )
            if waited > settings.queue:
                raise _given_up(record, f"waits for resources since {waited:.0f} s", service, ATTACH)
        elif phase == RUNNING or phase in FINAL:
            log.read(last=phase in FINAL)
        if phase in FINAL:
            break
        if cloud.clock() - begun > limit:
            raise _given_up(record, f"has not ended after {settings.max_hours} h", service, ATTACH)
        cloud.sleep(settings.poll)
        try:
            state = service.show(state.id)
            heard = cloud.clock()
        except CloudError as error:
            if error.cause not in ("timeout", "unreachable", "server") or cloud.clock() - heard > settings.outage:
                error.hint = ATTACH if error.cause != "not-found" else error.hint
                raise
    record.ended = phase
    record.write(work)
    if phase == "Completed":
        return
    why = log.error or state.message or f"exit code {state.exit_code}"
    cause = "job-stopped" if phase == "Terminated" else "job-failed"
    said = "was stopped in ModelArts" if phase == "Terminated" else f"ended as {phase.lower()}: {why}"
    raise CloudError(
        f"training job {record.name} {said}",
        cause=cause,
        host=service.host,
        hint=log.hint or f"its log: {work / LOG}; the same command starts a new job",
        detail="\n".join(log.tail),
    )


def _given_up(record: Record, what: str, service: Service, hint: str) -> CloudError:
    return CloudError(f"training job {record.name} {what}", cause="queue", host=service.host, hint=hint)


class _Log:
    """The job's log as it grows: our lines become events, all of it goes into a file."""

    def __init__(self, service: Service, job: str, path: Path, emit: Emit) -> None:
        self._service, self._job, self._path, self._emit = service, job, path, emit
        self._seen = 0
        self._rest = ""
        self._warned = False
        self.tail: list[str] = []
        self.error = self.hint = ""
        path.write_bytes(b"")

    def read(self, last: bool = False) -> None:
        """Take in what is new. A log that can't be had is worth a warning, not the job."""
        try:
            content, size = self._service.log(self._job)
        except CloudError as error:
            if not self._warned:
                self._emit(Event("warning", f"no log of the job: {error}"))
                self._warned = True
            return
        raw = content.encode()
        fresh = raw[max(0, len(raw) - max(0, size - self._seen)) :]
        self._seen = max(size, self._seen)
        with self._path.open("ab") as file:
            file.write(fresh)
        *lines, self._rest = (self._rest + fresh.decode("utf-8", "replace")).split("\n")
        for line in [*lines, self._rest] if last else lines:
            self._line(line.rstrip("\r"))

    def _line(self, line: str) -> None:
        # ModelArts may put a time stamp in front.
        _, mark, text = line.partition(MARK)
        if not mark:
            if line.strip():
                self.tail = [*self.tail[-19:], line[:500]]
            return
        try:
            said = json.loads(text)
            if "event" in said:
                known = {key: said["event"][key] for key in ("kind", "text", "data") if key in said["event"]}
                self._emit(Event(**known))
            elif "error" in said:
                self.error = f"{said['error']['message']}"[:500]
                self.hint = str(said["error"].get("hint") or "")[:500]
        except (ValueError, TypeError, KeyError):
            self.tail = [*self.tail[-19:], line[:500]]


def _fetch(cloud: Cloud, record: Record, out: Path, work: Path, emit: Emit) -> dict[str, Any]:
    """Bring the results here, check each against what the job said of it, and put them into ``out``."""
    place = cloud.key("jobs", record.name, "output")
    results = work / "results"
    with cloud.bucket() as bucket:
        transfer.download_folder(bucket, place, results, emit=emit)
    with _wrong_result(cloud, place):
        said = json.loads((results / RESULT).read_text("utf-8"))
        files: dict[str, str] = dict(said["files"])
        report: dict[str, Any] = dict(said["report"])
        for name, digest in files.items():
            if digest_file(transfer.place(results, name, name)) != digest:
                raise ValueError(f"{name} came out damaged")
        if "model.ckpt" not in files:
            raise ValueError("no model.ckpt among the results")
    for name in files:
        if name in FILES or name.startswith("export/"):
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(results / name, target)
    made = {"settings": said.get("settings"), "export": said.get("export")}
    (out / "export").mkdir(exist_ok=True)
    (out / "export" / "export.json").write_text(json.dumps(made, indent=1, sort_keys=True), "utf-8")
    emit(Event("log", f"results of {record.name} fetched, model.ckpt sha256 {digest_file(out / 'model.ckpt')}"))
    return {**report, "job": record.id, "exported": (said.get("export") or {}).get("file")}


@contextmanager
def _wrong_result(cloud: Cloud, place: str) -> Iterator[None]:
    try:
        yield
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise CloudError(
            f"obs://{cloud.obs.bucket}/{place}: not what a training job leaves: {error}",
            cause="damaged",
            host=cloud.obs.bucket,
            hint="the job completed without its results: see its log",
        ) from None
