"""The boot file of a training job in ModelArts: trains with our worker and exports, where an Ascend is.

``python boot.py --data_url=FOLDER --train_url=FOLDER``. The folders are local ones, into and out of which
ModelArts copies, or ``obs://`` and ``s3://`` addresses, which moxing copies. Beside this file lie the code
(``toolkit.zip``) and the job (``job.json``). Lines that begin with :data:`MARK` tell the progress as JSON;
everything else in the log is for people. The result is checkpoints, ``history.csv``, ``export/`` and, last,
``result.json`` with every file's digest: where that is missing the job did not end well.

Runs before anything of ours can be imported, on whatever Python the image has: it must be able to say so.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from typing import Any

MARK = "@ascend-deploy "
RESULT = "result.json"


def say(what: dict[str, Any]) -> None:
    """Write one line for the program that watches the job."""
    sys.stdout.write(MARK + json.dumps(what) + "\n")
    sys.stdout.flush()


def arguments(argv: list[str]) -> argparse.Namespace:
    """The folders. ModelArts adds arguments of its own, such as ``--init_method``: they are left alone."""
    parser = argparse.ArgumentParser(add_help=False)
    # ModelArts can hand the folders over as variables of the same names.
    for name in ("data_url", "train_url"):
        parser.add_argument("--" + name, default=os.environ.get(name, ""))
    return parser.parse_known_args(argv)[0]


def is_remote(folder: str) -> bool:
    """Whether moxing has to copy it."""
    return folder.startswith(("obs://", "s3://"))


def fetched(folder: str, into: str) -> str:
    """A local folder with the contents of ``folder``."""
    if not is_remote(folder):
        return folder
    moxing = importlib.import_module("moxing")
    os.makedirs(into, exist_ok=True)
    moxing.file.copy_parallel(folder, into)
    return into


def unpack(here: str, into: str) -> None:
    """Make our code importable, or end where the image's Python is too old."""
    if sys.version_info < (3, 10):  # noqa: UP036
        version = ".".join(map(str, sys.version_info[:2]))
        raise SystemExit(f"the image has Python {version}, 3.10 or newer is needed: take another engine")
    with zipfile.ZipFile(os.path.join(here, "toolkit.zip")) as archive:
        archive.extractall(into)
    sys.path.insert(0, into)


def digest(path: str) -> str:
    """SHA-256 of a file, in hex."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            found.update(chunk)
    return found.hexdigest()


def train(job: dict[str, Any], data: str | None, out: str, work: str) -> dict[str, Any]:
    """Train and export as the job says; return what the watching program wants to know."""
    from dataclasses import asdict
    from pathlib import Path

    from toolkit.learn import training_job

    def emit(event: Any) -> None:
        say({"event": asdict(event)})

    os.makedirs(out, exist_ok=True)
    described = dict(job["train"], data=data, out=out, state=os.path.join(work, "state"))
    report = training_job.run_worker("train", described, Path(work), emit)
    say({"trained": report})
    described = dict(job["export"], checkpoint=os.path.join(out, "model.ckpt"), out=os.path.join(out, "export"))
    exported = training_job.run_worker("export", described, Path(work), emit)
    return {"report": report, "export": exported, "settings": job["export"]}


def write_result(result: dict[str, Any], out: str) -> None:
    """Name every file with its digest, last: whoever finds it finds the rest whole."""
    files = {}
    for root, _, names in os.walk(out):
        for name in names:
            path = os.path.join(root, name)
            files[os.path.relpath(path, out).replace(os.sep, "/")] = digest(path)
    beside = os.path.join(out, RESULT + ".new")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(dict(result, files=files), file, indent=1, sort_keys=True)
    os.replace(beside, os.path.join(out, RESULT))


def main(argv: list[str]) -> int:
    """Do the job and return the exit status."""
    here = os.path.dirname(os.path.abspath(__file__))
    given = arguments(argv)
    if not given.train_url:
        say({"error": {"class": "InputError", "message": "the job has no output train_url", "hint": ""}})
        return 2
    work = tempfile.mkdtemp(prefix="ascend-deploy-")
    out = os.path.join(work, "out") if is_remote(given.train_url) else given.train_url
    try:
        unpack(here, os.path.join(work, "code"))
        with open(os.path.join(here, "job.json"), encoding="utf-8") as file:
            job = json.load(file)
        data = fetched(given.data_url, os.path.join(work, "data")) if given.data_url else None
        write_result(train(job, data, out, work), out)
        if out != given.train_url:
            importlib.import_module("moxing").file.copy_parallel(out, given.train_url)
        say({"finished": True})
        return 0
    except SystemExit as error:
        say({"error": {"class": "InputError", "message": str(error), "hint": ""}})
        return 2
    except Exception as error:
        if os.path.exists(os.path.join(work, "worker.log")):
            with open(os.path.join(work, "worker.log"), errors="replace") as file:
                sys.stdout.write(file.read()[-20000:])
        first = (str(error).strip().splitlines() or [""])[0]
        hint = getattr(error, "hint", "")
        say({"error": {"class": type(error).__name__, "message": first, "hint": hint}})
        return getattr(error, "exit_code", 1)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
