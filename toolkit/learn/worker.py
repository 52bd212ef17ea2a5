"""The process that trains or exports: ``python -m toolkit.learn.worker train|export JOB.json``.

With ``train.workers`` above 1 it starts that many of itself (see ``together``) and passes on what they tell.

Writes JSON lines to standard output: ``{"event": {…}}`` as it goes, at the end ``{"result": {…}}`` or
``{"error": {"class", "message", "hint"}}``; the exit status is 0 or the error's exit code. Stops after the
current step when its standard input ends, on SIGTERM and on SIGINT. All that MindSpore prints goes to
standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any

from toolkit.errors import DeployError, InputError
from toolkit.learn import together
from toolkit.learn.settings import Device, ExportSettings, ModelSettings, TrainSettings, from_json, to_json
from toolkit.preprocess import Preprocess
from toolkit.ui.events import Emit, Event

Job = Mapping[str, Any]


def run_train(job: Job, emit: Emit, stop: threading.Event) -> dict[str, Any]:
    """Train as the job says and return the report."""
    settings = from_json(TrainSettings, job["train"])
    prepare_environment(settings)
    from toolkit.learn import training

    if together.scheduling():
        training.set_up(settings)
        together.join(settings)
        return {}

    report = training.train(
        None if job["data"] is None else Path(job["data"]),
        from_json(ModelSettings, job["model"]),
        from_json(Preprocess, job["preprocess"]),
        settings,
        Path(job["out"]),
        emit,
        stop,
        None if job["state"] is None else Path(job["state"]),
    )
    return to_json(report) if report is not None else {}


def run_export(job: Job, emit: Emit, stop: threading.Event) -> dict[str, Any]:
    """Export as the job says and return what came out."""
    settings = from_json(ExportSettings, job["export"])
    device = TrainSettings(device_target=Device(job["device_target"]))
    prepare_environment(device)
    from toolkit.learn import exporting, training

    training.set_up(device)
    return exporting.export(
        Path(job["checkpoint"]),
        from_json(ModelSettings, job["model"]),
        from_json(Preprocess, job["preprocess"]),
        settings,
        device.device_target,
        Path(job["out"]),
    )


JOBS: dict[str, Callable[[Job, Emit, threading.Event], dict[str, Any]]] = {
    "train": run_train,
    "export": run_export,
}


def prepare_environment(settings: TrainSettings) -> None:
    """Set what MindSpore and its libraries read once, when they are imported; what the user set stays."""
    if settings.onednn_max_isa:
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", settings.onednn_max_isa)
    if settings.threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    try:
        import mindspore  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"MindSpore cannot be imported by {sys.executable} ({error})",
            hint="pip install -e . in an environment of Python 3.10, 3.11 or 3.12",
        ) from error


def main(arguments: list[str]) -> int:
    """Do the job and return the exit status."""
    kind, path = arguments
    job = json.loads(Path(path).read_text("utf-8"))
    if together.inside():
        return _one_of_many(kind, job)
    # MindSpore, its C++ and what it calls print to descriptor 1: that becomes standard error, the line is
    # ours alone.
    line = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    stop = threading.Event()
    _stop_at_signals(stop)
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    if kind == "train" and job["train"]["workers"] > 1:
        settings = from_json(TrainSettings, job["train"])
        status = together.launch(arguments, settings, lambda text: _write(line, text), stop)
        if status == together.STOPPED:
            _say(line, {"error": {"class": "KeyboardInterrupt", "message": "interrupted", "hint": ""}})
        return status
    return _do(kind, job, line, stop)


def _one_of_many(kind: str, job: Job) -> int:
    """Do the job as one of several processes. The first reports; an error is told by whoever meets it."""
    end = together.leave_with_input()
    with open(os.environ[together.LINE], "w", buffering=1, encoding="utf-8") as line:
        status = _do(kind, job, line, threading.Event(), chief=os.environ.get(together.RANK) == "0")
    if status == 0:
        end.join()  # who goes before the others have what they need is taken for lost
    return status


def _do(kind: str, job: Job, line: IO[str], stop: threading.Event, *, chief: bool = True) -> int:
    chief = chief and not together.scheduling()

    def emit(event: Event) -> None:
        if chief:
            _say(line, {"event": dataclasses.asdict(event)})

    try:
        result = JOBS[kind](job, emit, stop)
        if chief:
            _say(line, {"result": result})
    except KeyboardInterrupt:
        _say(line, {"error": {"class": "KeyboardInterrupt", "message": "interrupted", "hint": ""}})
        return 130
    except DeployError as error:
        traceback.print_exc()
        _say(line, {"error": {"class": type(error).__name__, "message": str(error), "hint": error.hint}})
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        if together.scheduling():
            return 1  # it only says that a worker is gone, which that one or msrun tell better
        first = (str(error).strip().splitlines() or [""])[0]
        _say(line, {"error": {"class": type(error).__name__, "message": first, "hint": ""}})
        return 1
    return 0


def _say(line: IO[str], what: dict[str, Any]) -> None:
    _write(line, json.dumps(what))


def _write(line: IO[str], text: str) -> None:
    try:
        line.write(text + "\n")
        line.flush()
    except (BrokenPipeError, ValueError):
        pass  # nobody listens any more; the end of standard input says so too


def _stop_at_signals(stop: threading.Event) -> None:
    def on_signal(number: int, frame: FrameType | None) -> None:
        # Not here: the thread that this interrupts may hold the event's lock, in wait() or in another handler. But
        # at once: a short training would come to its end before the other thread has its turn.
        setter = threading.Thread(target=stop.set, daemon=True)
        setter.start()
        setter.join(0.1)

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, on_signal)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    stop.set()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Past MindSpore's destructors, which complain and now and then crash on their way out.
    os._exit(status)
