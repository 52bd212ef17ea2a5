"""A training job in ModelArts: created once, watched, found again, stopped, and fetched only when it is whole."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.modelarts_server import Job, ModelArtsServer, Program
from tests.cloud.obs_server import ObsServer
from tests.commands.conftest import run as command
from toolkit.cloud import jobs
from toolkit.cloud.boot import MARK
from toolkit.cloud.jobs import Cloud, Record
from toolkit.cloud.settings import ModelArtsSettings, ObsSettings
from toolkit.errors import CloudError, Interrupted, UsageError
from toolkit.ui.events import Event

JOB: dict[str, Any] = {"train": {"a": 1}, "export": {"format": "air"}}


def says(**what: Any) -> str:
    return MARK + json.dumps(what) + "\n"


def program(status: int = 0, log: str = "", damage: bool = False, files: dict[str, bytes] | None = None) -> Program:
    """A run of the container that writes what a good boot file would."""

    def run(job: Job, home: Path, write: Callable[[str], None]) -> int:
        write(
            "downloading…\n2026-01-01 "
            + says(event={"kind": "progress", "text": "epoch", "data": {"done": 1, "total": 2}})
        )
        write(log)
        made = files or {"model.ckpt": b"weights", "history.csv": b"1", "export/model.air": b"air"}
        out = home / "outputs" / "train_url_0"
        for name, content in made.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
        if damage:
            (out / "model.ckpt").write_bytes(b"weightz")
        result = {
            "report": {"accuracy": 0.9},
            "export": {"file": "model.air"},
            "settings": JOB["export"],
            "files": digests,
        }
        (out / "result.json").write_text(json.dumps(result))
        return status

    return run


class Run:
    """One training in a folder of its own."""

    def __init__(self, obs: ObsSettings, modelarts: ModelArtsSettings, folder: Path) -> None:
        self.cloud = Cloud(obs, modelarts)
        self.out, self.work, self.data = folder / "out", folder / "work", folder / "data"
        self.events: list[Event] = []
        for path in (self.out, self.work, self.data / "pictures"):
            path.mkdir(parents=True)
        (self.data / "data_batch_1.bin").write_bytes(b"pictures")
        (self.data / "pictures" / "a.png").write_bytes(b"not sent")

    def train(self, **named: Any) -> dict[str, Any]:
        return jobs.train(
            self.cloud,
            JOB,
            self.data,
            app="digits",
            out=self.out,
            work=self.work,
            emit=self.events.append,
            **named,
        )

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.events)


@pytest.fixture
def run(obs: ObsSettings, modelarts: ModelArtsSettings, modelarts_server: ModelArtsServer, tmp_path: Path) -> Run:
    modelarts_server.program = program()
    return Run(obs, modelarts, tmp_path)


def test_a_job_goes_through_its_phases_and_its_results_come_back(
    run: Run, modelarts_server: ModelArtsServer, obs_server: ObsServer
) -> None:
    report = run.train()
    assert report["accuracy"] == 0.9
    assert (run.out / "model.ckpt").read_bytes() == b"weights"
    assert (run.out / "export" / "model.air").read_bytes() == b"air"
    assert not (run.out / "result.json").exists()
    (job,) = modelarts_server.jobs.values()
    name = job.body["metadata"]["name"]
    assert name.startswith("deploy-digits-")
    keys = sorted(obs_server.buckets["bucket"])
    code = f"ascend-deploy/jobs/{name}/code/"
    assert [key for key in keys if key.startswith(code)] == [
        code + file for file in ("boot.py", "job.json", "pip-requirements.txt", "toolkit.zip")
    ]
    assert [key.rpartition("/")[2] for key in keys if "/data/" in key] == ["data_batch_1.bin"]
    assert {"done": 1, "total": 2} in [event.data for event in run.events if event.kind == "progress"]
    assert "downloading…" in (run.work / "modelarts.log").read_text()
    assert "completed" in run.said
    record = Record.read(run.work)
    assert record is not None
    assert (record.id, record.ended) == (job.id, "Completed")


def test_results_are_fetched_again_without_a_second_job(run: Run, modelarts_server: ModelArtsServer) -> None:
    run.train()
    (run.out / "model.ckpt").unlink()
    run.train(attach=True)
    assert (run.out / "model.ckpt").exists()
    assert len(modelarts_server.started("POST", "/training-jobs")) == 1


def test_ctrl_c_leaves_the_job_alone_and_the_next_run_follows_it(run: Run, modelarts_server: ModelArtsServer) -> None:
    modelarts_server.gates["final"] = threading.Event()
    real, looks = run.cloud.sleep, iter(range(5))

    def interrupt(seconds: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt
        real(seconds)

    run.cloud.sleep = interrupt
    with pytest.raises(Interrupted, match=r"no longer watching: training job deploy-digits-\w+ goes on") as caught:
        run.train()
    assert "deploy train --attach" in caught.value.hint
    assert "deploy cancel" in caught.value.hint
    assert caught.value.exit_code == 130
    modelarts_server.gates["final"].set()
    run.cloud.sleep = real
    run.train()
    assert len(modelarts_server.jobs) == 1
    assert (run.out / "model.ckpt").exists()
    assert "following training job" in run.said


def test_a_lost_answer_to_the_creation_starts_no_second_job(run: Run, modelarts_server: ModelArtsServer) -> None:
    modelarts_server.faults.append(
        lambda call: "drop" if call.method == "POST" and call.path.endswith("/training-jobs") else None
    )
    run.train()
    assert len(modelarts_server.jobs) == 1
    assert (run.out / "model.ckpt").exists()


def test_killed_between_asking_and_hearing_finds_the_job_by_name(run: Run, modelarts_server: ModelArtsServer) -> None:
    class Killed(BaseException):
        pass

    def kill(*arguments: Any) -> Any:
        raise Killed

    write, Record.write = Record.write, lambda self, work: write(self, work) if not self.id else kill()  # type: ignore[method-assign]
    try:
        with pytest.raises(Killed):
            run.train()
    finally:
        Record.write = write  # type: ignore[method-assign]
    record = Record.read(run.work)
    assert record is not None
    assert record.id == ""
    run.train(attach=True)
    assert len(modelarts_server.jobs) == 1


def test_attach_never_starts_a_job(run: Run, modelarts_server: ModelArtsServer) -> None:
    with pytest.raises(UsageError, match="no job in ModelArts for these settings"):
        run.train(attach=True)
    assert modelarts_server.jobs == {}


def test_a_failed_job_says_what_the_worker_said_and_can_be_started_anew(
    run: Run, modelarts_server: ModelArtsServer
) -> None:
    bad = says(error={"class": "InputError", "message": "the dataset is cut", "hint": "send it anew"})
    modelarts_server.program = program(status=2, log="Traceback…\n" + bad)
    with pytest.raises(CloudError, match=r"ended as failed: the dataset is cut$") as caught:
        run.train()
    assert (caught.value.cause, caught.value.hint) == ("job-failed", "send it anew")
    assert "Traceback…" in caught.value.detail
    modelarts_server.program = program()
    run.train()
    assert len(modelarts_server.jobs) == 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"damage": True}, "model.ckpt came out damaged"),
        ({"files": {"x": b""}}, "no model.ckpt among the results"),
        ({"files": {"export/../../evil": b"", "model.ckpt": b""}}, "cannot be a file's here"),
    ],
)
def test_results_that_are_not_whole_are_refused(
    run: Run, modelarts_server: ModelArtsServer, how: dict[str, Any], words: str
) -> None:
    modelarts_server.program = program(**how)
    with pytest.raises(CloudError, match=words) as caught:
        run.train()
    assert caught.value.cause == "damaged"
    assert list(run.out.iterdir()) == []


def test_cancelling(run: Run, modelarts_server: ModelArtsServer) -> None:
    modelarts_server.gates["Running"] = threading.Event()
    run.cloud.modelarts.queue = 0.1
    with pytest.raises(CloudError, match="waits for resources") as caught:
        run.train()
    assert caught.value.cause == "queue"
    root = run.work.parent / "store"
    (root / "work").mkdir(parents=True)
    run.work.rename(root / "work" / "train-1")
    ((work, record),) = jobs.running(root)
    # Somebody who names neither region nor project: the job's own are known.
    nowhere = Cloud(ObsSettings(), ModelArtsSettings(poll=run.cloud.modelarts.poll))
    state = jobs.cancel(nowhere.of(record), record, work)
    assert state is not None
    assert state.phase == "Terminated"
    assert list(jobs.running(root)) == []


def test_nothing_to_cancel_is_said_as_it_is(tmp_path: Path) -> None:
    nothing = command(tmp_path, "cancel", json_lines=False)
    assert (nothing.code, nothing.out) == (0, "no training job is running\n")
    work = tmp_path / ".deploy" / "work" / "train-1"
    work.mkdir(parents=True)
    Record("deploy-digits-1", "digits", id="job-1").write(work)
    of_another = command(tmp_path, "cancel", json_lines=False)
    assert of_another.code == 0
    assert of_another.out.splitlines() == [
        "no training job of this app is running",
        "not ended, since it is of another app: deploy cancel app.name=digits",
    ]
    assert Record.read(work) == Record("deploy-digits-1", "digits", id="job-1")


def test_a_job_stopped_by_somebody_else(run: Run, modelarts_server: ModelArtsServer) -> None:
    def stop_itself(job: Job, home: Path, write: Callable[[str], None]) -> int:
        job.stop.set()
        return 143

    modelarts_server.program = stop_itself
    with pytest.raises(CloudError, match="was stopped in ModelArts") as caught:
        run.train()
    assert caught.value.cause == "job-stopped"


def test_an_outage_is_sat_out_until_its_limit(run: Run, modelarts_server: ModelArtsServer) -> None:
    fails = iter([503] * 6)
    modelarts_server.faults.append(lambda call: next(fails, None) if call.method == "GET" else None)
    run.train()
    modelarts_server.gates["final"] = threading.Event()
    modelarts_server.faults.append(lambda call: 503 if call.method == "GET" else None)
    run.cloud.modelarts.outage = 0.05
    (run.work / jobs.RECORD).unlink()
    with pytest.raises(CloudError, match=r"ModelArts\.0010 \(503\) made to fail; request MAREQ") as caught:
        run.train()
    assert "deploy train --attach" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flavor_id": "", "pool_id": ""}, "flavor_id is missing"),
        ({"engine_id": ""}, "algorithm.engine"),
        ({"image_url": "swr/x"}, "algorithm.engine"),
        ({"project_id": "0" * 32}, "404"),
    ],
)
def test_what_modelarts_refuses_is_one_line(
    run: Run, modelarts_server: ModelArtsServer, change: dict[str, str], words: str
) -> None:
    for key, value in change.items():
        setattr(run.cloud.modelarts, key, value)
    with pytest.raises(CloudError, match=words) as caught:
        run.train()
    assert "request MAREQ" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert modelarts_server.jobs == {}
    assert Record.read(run.work) is None


def test_wrong_keys(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_AK", "CANARYAK0123456789")
    monkeypatch.setenv("MA_SK", "another")
    run.cloud.modelarts.access_key, run.cloud.modelarts.secret_key = "env:MA_AK", "env:MA_SK"
    with pytest.raises(CloudError, match=r"verify aksk signature fail") as caught:
        run.train()
    assert caught.value.cause == "unauthorised"
    assert "another" not in str(caught.value)


def test_a_log_longer_than_the_preview_is_followed(run: Run, modelarts_server: ModelArtsServer) -> None:
    modelarts_server.program = program(log="".join(f"line {number} ü\n" for number in range(20_000)))
    run.train()
    assert "line 19999 ü" in (run.work / "modelarts.log").read_text()
