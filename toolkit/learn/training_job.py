"""Training and export in a process of their own, seen from our side.

MindSpore costs 2 seconds and 415 MB to import, starts pools of threads, reads its environment once, writes
into the current folder, and can export a network only once. So it lives in a child
(``toolkit.learn.worker``), which tells its progress as JSON lines on its standard output. Its noise goes into
``worker.log`` in the work folder.

The child ends when its standard input does, so it never outlives us, whatever kills us.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import toolkit
from toolkit import errors, paths
from toolkit.learn import curves, recipe
from toolkit.learn.catalogue import check_format
from toolkit.learn.settings import (
    DataSettings,
    Device,
    ExportSettings,
    ModelSettings,
    Split,
    TrainSettings,
    Where,
    to_json,
)
from toolkit.preprocess import Preprocess
from toolkit.ui.events import Emit, Event

LOG = "worker.log"
GRACE = 20.0
"""Seconds a worker gets to finish its step after it was asked to stop. A ResNet50 step at 224 takes 13 on two
cores."""


threads = recipe.threads


def train(
    data_dir: Path | None,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: TrainSettings,
    data: DataSettings,
    *,
    out: Path,
    work: Path,
    emit: Emit,
) -> dict[str, Any]:
    """Train in a worker and return its report with a ``summary``.

    ``out`` gets ``model.ckpt``, ``last.ckpt``, ``best.ckpt``, ``history.csv`` and ``curves.png``, the same
    bytes for the same settings. ``work`` keeps the checkpoints of epochs, from which an interrupted training
    goes on.
    """
    if settings.where is not Where.local:
        raise errors.ConfigError(
            f"train.where={settings.where.value}: this function trains on this machine only",
            hint="take train.where=local",
        )
    job = train_job(data_dir, model, preprocess, settings, out, work / "checkpoints")
    return finished(run_worker("train", job, work, emit), model, settings, data, out)


def finished(
    report: dict[str, Any], model: ModelSettings, settings: TrainSettings, data: DataSettings, out: Path
) -> dict[str, Any]:
    """Draw ``curves.png`` into ``out`` and return a training's report with its ``summary``."""
    cache = paths.home() / "cache" / "matplotlib"
    curves.draw(report["history"], out / "curves.png", f"{model.name}, {data.name}", cache)
    if report["accuracy"] is None:
        said = "seeded initial weights, untrained" if not settings.epochs else f"loss {report['loss']:.4f}"
    else:
        epochs = report["stopped_after"] or settings.epochs
        held_out = settings.split is Split.train
        which = f"held-out {data.name}" if held_out else f"{data.name} test pictures, trained with,"
        said = f"{report['accuracy']:.2%} of the {which} right, {epochs} epoch{'s' if epochs != 1 else ''}"
    if report["stopped_after"]:
        said += f" of {settings.epochs}, no better since epoch {report['best_epoch']}"
    if report["resumed_from"]:
        said += f", gone on after epoch {report['resumed_from']}"
    return {**report, "summary": said}


def export(
    checkpoint: Path,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: ExportSettings,
    train_settings: TrainSettings,
    *,
    out: Path,
    work: Path,
    emit: Emit,
) -> dict[str, Any]:
    """Export in a worker of its own (see ``exporting.export``); return what came out with a ``summary``."""
    check_format(settings.format, train_settings.device_target)
    job = export_job(checkpoint, model, preprocess, settings, train_settings.device_target, out)
    result = run_worker("export", job, work, emit)
    said = f"{result['file']}, ONNX Runtime within {result['max_difference']:.1g} of MindSpore"
    return {**result, "summary": said}


def train_job(
    data_dir: Path | None,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: TrainSettings,
    out: Path,
    state: Path | None = None,
) -> dict[str, Any]:
    """Return the job that trains: :func:`toolkit.learn.training.train` with these arguments."""
    return {
        "data": None if data_dir is None else str(data_dir.resolve()),
        "model": to_json(model),
        "preprocess": to_json(preprocess),
        "train": to_json(settings),
        "out": str(out.resolve()),
        "state": None if state is None else str(state.resolve()),
    }


def export_job(
    checkpoint: Path,
    model: ModelSettings,
    preprocess: Preprocess,
    settings: ExportSettings,
    device_target: Device,
    out: Path,
) -> dict[str, Any]:
    """Return the job that exports: :func:`toolkit.learn.exporting.export` with these arguments."""
    return {
        "checkpoint": str(checkpoint.resolve()),
        "model": to_json(model),
        "preprocess": to_json(preprocess),
        "export": to_json(settings),
        "device_target": Device(device_target).value,
        "out": str(out.resolve()),
    }


def run_worker(kind: str, job: dict[str, Any], work: Path, emit: Emit) -> dict[str, Any]:
    """Run the worker for ``kind`` (``train`` or ``export``) in the folder ``work`` and return its result.

    Its events go to ``emit`` while it runs. What it raises is raised here: the classes of ``toolkit.errors``
    as themselves, anything else, a crash too, as DeployError naming the log. On KeyboardInterrupt it is asked
    to stop, gets :data:`GRACE` seconds (a second Ctrl-C takes them away), and is killed with all its
    children.
    """
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"{kind}.json"
    file.write_text(json.dumps(job, indent=1, sort_keys=True), "utf-8")
    log = work / LOG
    environment = dict(os.environ)
    root = str(Path(toolkit.__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
    with log.open("wb") as noise:
        worker = subprocess.Popen(
            [sys.executable, "-m", "toolkit.learn.worker", kind, str(file.resolve())],
            cwd=work,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            # A group of its own: a Ctrl-C at the terminal reaches us alone, and we say when it stops.
            start_new_session=True,
        )
    try:
        ending = _listen(worker, emit)
        status = worker.wait()
    except BaseException:
        _stop(worker)
        raise
    finally:
        _kill(worker)
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    if "result" in ending and status == 0:
        return dict(ending["result"])
    if "error" in ending:
        raise _error(ending["error"], kind, log)
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    killed = "; the system may have run out of memory" if status == -signal.SIGKILL else ""
    raise errors.DeployError(
        f"the {kind} process ended unexpectedly ({how}{killed}){_last_line(log)}", hint=f"see {log}"
    )


def _listen(worker: subprocess.Popen[bytes], emit: Emit) -> dict[str, Any]:
    """Pass on the worker's events until it ends; return its last word, ``result`` or ``error``, or {}."""
    ending: dict[str, Any] = {}
    assert worker.stdout is not None
    for line in worker.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if not isinstance(said, dict):
            continue
        if "event" in said:
            emit(Event(**said["event"]))
        else:
            ending = said
    return ending


def _error(said: dict[str, Any], kind: str, log: Path) -> errors.DeployError | KeyboardInterrupt:
    name, message, hint = str(said["class"]), str(said["message"]), str(said.get("hint", ""))
    if name == "KeyboardInterrupt":
        return KeyboardInterrupt()
    known = getattr(errors, name, None)
    if (
        isinstance(known, type)
        and issubclass(known, errors.DeployError)
        and not issubclass(known, errors.RemoteError)
    ):
        return known(message, hint=hint)
    return errors.DeployError(f"the {kind} process failed: {name}: {message}", hint=f"see {log}")


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """Ask the worker to stop by closing its standard input; a second Ctrl-C meanwhile ends the patience."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, KeyboardInterrupt):
        if worker.stdin is not None:
            worker.stdin.close()
        if worker.stdout is not None:
            worker.stdout.close()
        worker.wait(GRACE)


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """End what is left of the worker and of its process group, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _last_line(log: Path) -> str:
    """Return ``: `` and the last line of the log that says something, or nothing."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    said = [
        line for line in lines if line and not line.startswith(("[WARNING]", "[INFO]", "~", "^", "File "))
    ]
    return f": {said[-1][:200]}" if said else ""
