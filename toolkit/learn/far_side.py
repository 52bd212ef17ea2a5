"""What runs on the training host besides the worker: keeps contents, starts the job, follows it, ends it.

``python far_side.py VERB JOB …`` in the folder that holds everything; sent along at each connection, nothing but
the standard library. A job is a folder: ``spec.json`` says which contents (by SHA-256, in ``blobs/``) make up its
code and data, ``lines`` is what the worker told so far, ``ended.json`` how it ended. While it runs, its supervisor
holds ``lock``: so a job is found again whatever happened to the connection, and never runs twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

GRACE = 30.0
"""Seconds the worker gets to finish its step when the job is cancelled."""
POLL = 0.1
EVENT = b'{"event"'


def missing(job: str) -> None:
    """Print which contents of the job are not here, one a line, and how the job is: new, running, ended."""
    for sha in sorted(set(contents(job).values())):
        if not os.path.isfile(os.path.join("blobs", sha)):
            say({"missing": sha})
    say({"state": state(job)})


def start(job: str) -> None:
    """Take in what was sent, and start the job unless it runs or has ended well. Detached: it outlives us."""
    take_in()
    if state(job) in ("running", "done"):
        return
    for name in ("ended.json", "lines"):
        remove(os.path.join(job, name))
    for name, sha in contents(job).items():
        path = os.path.join(job, name)
        if not os.path.isfile(path) or digest(path) != sha:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            remove(path)
            os.link(os.path.join("blobs", sha), path)
    open(os.path.join(job, "lines"), "w").close()
    with open(os.path.join(job, "supervisor.log"), "ab") as log:
        subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "supervise", job],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # Not before it holds the lock: who looks now must see it run.
    patience = time.monotonic() + 30
    while state(job) == "new" and time.monotonic() < patience:
        time.sleep(POLL)


def supervise(job: str) -> None:
    """Run the worker to its end, holding the job's lock. On SIGTERM it is asked to stop."""
    lock = open(os.path.join(job, "lock"), "a")  # noqa: SIM115 - held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # somebody else started it
    with open(os.path.join(job, "pid"), "w") as file:
        file.write(str(os.getpid()))
    here = os.path.abspath(job)
    environment = dict(os.environ, PYTHONPATH=os.path.join(here, "code"), PYTHONDONTWRITEBYTECODE="1")
    with (
        open(os.path.join(job, "lines"), "ab") as lines,
        open(os.path.join(job, "worker.log"), "ab") as log,
    ):
        worker = subprocess.Popen(
            [sys.executable, "-m", "toolkit.learn.worker", "train", os.path.join(here, "train.json")],
            cwd=here,
            env=environment,
            stdin=subprocess.PIPE,  # when it ends, the worker does
            stdout=lines,
            stderr=log,
        )
    cancelled: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: cancelled.append(1))
    patience = 0.0
    while worker.poll() is None:
        if cancelled and not patience:
            assert worker.stdin is not None
            worker.stdin.close()
            patience = time.monotonic() + GRACE
        if patience and time.monotonic() > patience:
            worker.kill()
        time.sleep(POLL)
    write(os.path.join(job, "ended.json"), {"status": worker.returncode, "cancelled": bool(cancelled)})


def follow(job: str, seen: str) -> None:
    """Print the job's events after the first ``seen`` as they come, and at last what came out and how it ended."""
    number = 0
    with open(os.path.join(job, "lines"), "rb") as lines:
        rest = b""
        while True:
            runs = state(job) == "running"
            while data := lines.read(65536):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    number += 1
                    if number > int(seen) or not line.startswith(EVENT):
                        sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()
            if not runs:
                break
            time.sleep(POLL)
    say({"ended": ending(job), "log": tail(os.path.join(job, "worker.log"))})


def cancel(job: str) -> None:
    """End the job, and wait for it to have ended. Print how it was before, and how it is now."""
    before = state(job)
    if before == "running":
        with open(os.path.join(job, "pid")) as file:
            os.kill(int(file.read()), signal.SIGTERM)
        while state(job) == "running":
            time.sleep(POLL)
    say({"before": before, "state": state(job)})


def state(job: str) -> str:
    """``new``, ``running``, ``done`` (well), or ``ended`` (badly, or cancelled)."""
    if not os.path.exists(os.path.join(job, "lock")):
        return "new"
    with open(os.path.join(job, "lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "running"
    return "done" if ending(job).get("status") == 0 else "ended"


def ending(job: str) -> dict[str, object]:
    """How the job ended; {} where nobody was left to write it down, as after a power cut."""
    try:
        with open(os.path.join(job, "ended.json")) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return dict(found)


def contents(job: str) -> dict[str, str]:
    """File in the job's folder → SHA-256."""
    with open(os.path.join(job, "spec.json")) as file:
        return dict(json.load(file)["contents"])


def take_in() -> None:
    """Move what was sent into ``blobs/``, if it is what its name says."""
    os.makedirs("blobs", exist_ok=True)
    if os.path.isdir("incoming"):
        for sha in os.listdir("incoming"):
            path = os.path.join("incoming", sha)
            if digest(path) == sha:
                os.replace(path, os.path.join("blobs", sha))
        shutil.rmtree("incoming")


def digest(path: str) -> str:
    """The file's SHA-256."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def tail(path: str) -> str:
    """The last lines of a log."""
    try:
        with open(path, "rb") as file:
            return file.read()[-2000:].decode("utf-8", "replace")
    except OSError:
        return ""


def write(path: str, what: dict[str, object]) -> None:
    """Write JSON so that it is there wholly or not at all."""
    with open(path + ".writing", "w") as file:
        json.dump(what, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".writing", path)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def say(what: dict[str, object]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    verbs: tuple[Callable[..., None], ...] = (missing, start, supervise, follow, cancel)
    {verb.__name__: verb for verb in verbs}[sys.argv[1]](*sys.argv[2:])
