"""The boards' own logs: the journal of what was put there, and CANN's logs, newest first.

    deploy logs +board=200dk
    deploy logs inventory=mine hosts=line-1 --json

Prints the journal and names the files with CANN's logs, which are fetched into runs/<id>/<board>/logs/: the ends of
the newest files below ~/ascend/log, /var/log/npu/slog, /var/dlog and $ASCEND_PROCESS_LOG_PATH. Errors in them that
are known are explained.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages._boards import (
    Answer,
    Place,
    ask_boards,
    exit_code,
    failures_text,
    places_of,
    run_folder,
)
from stages._invocation import Invocation
from toolkit import paths
from toolkit.cann import catalogue
from toolkit.errors import BoardRefused
from toolkit.fleet.journal import RunFolder
from toolkit.remote.agent import BoardAgent

HELP = "the boards' journals and CANN's logs, fetched"

FILES, BYTES = 20, 65536
"""At most so many files a board, and so much of the end of each."""

SHOWN = 15
"""Lines of the journal that are printed."""

MARK = "@@ascend-deploy-log "

# Runs on the board: python3 -c COLLECT files bytes. Paths in JSON, since file names can hold anything.
COLLECT = f"""
import json, os, sys
count, size = int(sys.argv[1]), int(sys.argv[2])
found = []
tops = [os.environ.get("ASCEND_PROCESS_LOG_PATH", ""), os.path.expanduser("~/ascend/log")]
for top in tops + ["/var/log/npu/slog", "/var/dlog"]:
    for folder, folders, names in os.walk(top) if top else ():
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.path.isfile(path) and not os.path.islink(path) and not name.endswith((".gz", ".zip")):
                    found.append((os.stat(path).st_mtime, path))
            except OSError:
                pass
for changed, path in sorted(set(found), reverse=True)[:count]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            text = stream.read(size).decode("utf-8", "replace")
    except OSError as problem:
        text = str(problem)
    sys.stdout.write({MARK!r} + json.dumps([path, changed]) + "\\n" + text.rstrip("\\n") + "\\n")
"""

ERROR = re.compile(r"\[ERROR\]|\bERROR\b|\bE\d{5}\b")


@dataclass(frozen=True)
class Logs:
    """One board's. journal: entries, oldest first. files: paths here by their paths on the board."""

    board: str
    journal: tuple[dict[str, Any], ...]
    files: dict[str, str]
    errors: tuple[str, ...]
    explained: str


def run(invocation: Invocation) -> int:
    with places_of(invocation) as places, run_folder(invocation) as run:

        def read(place: Place, agent: BoardAgent) -> Logs:
            return read_logs(place, agent, run)

        answers = ask_boards(invocation, places, read)
    failed = sum(answer.error is not None for answer in answers)
    boards = [asdict(item.value) if item.value else {"board": item.name, **item.failure()} for item in answers]
    invocation.renderer.data({"boards": boards, "run": run.id}, _text(answers, run))
    return exit_code(failed, len(answers))


def read_logs(place: Place, agent: BoardAgent, run: RunFolder) -> Logs:
    """Journal and CANN's logs of one board, kept below the run's folder."""
    config = place.target.config
    agent.inspect(place.target.profile.root, config.app.name)
    folder = run.board(place.name) / "logs"
    folder.mkdir()
    try:
        journal = agent.read_log("journal")
    except BoardRefused:
        journal = ""  # nothing was deployed yet
    (folder / "journal.jsonl").write_text(journal, encoding="utf-8")
    lines: list[str] = []
    agent.run(
        ["{python}", "-c", COLLECT, str(FILES), str(BYTES)],
        interpreters=place.target.profile.interpreters,
        need=(),
        limit=config.ssh.limits.command,
        on_line=lines.append,
    )
    files = _keep(lines, folder)
    texts = [Path(path).read_text(encoding="utf-8") for path in files.values()]
    errors = [line for text in texts for line in text.splitlines() if ERROR.search(line)]
    known = next((entry for line in errors if (entry := catalogue.explain(line))), None)
    return Logs(
        place.name,
        tuple(_entries(journal)),
        files,
        tuple(errors[-SHOWN:]),
        f"{known.cause}: {known.fix}" if known else "",
    )


def _keep(lines: Sequence[str], folder: Path) -> dict[str, str]:
    """Write what COLLECT printed into files; return path on the board → path here."""
    files: dict[str, str] = {}
    target: Path | None = None  # None: a header that makes no sense, and what follows it
    out: list[str] = []
    for line in [*lines, MARK]:
        if not line.startswith(MARK.strip()):
            out.append(line)
            continue
        if target is not None:
            target.write_text("\n".join(out) + "\n", encoding="utf-8")
        target, out = None, []
        try:
            path = str(json.loads(line[len(MARK) :])[0])
        except (ValueError, IndexError, TypeError):
            continue
        # A board's file names are not ours to trust: letters that are plain, no folders, each name once.
        name = re.sub(r"\.\.+|[^A-Za-z0-9._-]+", "_", path).strip("._")[-150:] or "log"
        target = folder / f"{len(files) + 1:02d}-{name}"
        files[path] = str(target)
    return files


def _entries(journal: str) -> list[dict[str, Any]]:
    entries = []
    for line in journal.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the first line is cut, where the journal is longer than what is read
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _text(answers: list[Answer[Logs]], run: RunFolder) -> str:
    lines = []
    for answer in answers:
        logs = answer.value
        if logs is None:
            continue
        lines.append(f"{logs.board}: journal" + ("" if logs.journal else ": empty"))
        lines += [f"  {_entry(entry)}" for entry in logs.journal[-SHOWN:]]
        lines.append(
            f"{logs.board}: {len(logs.files)} log files of CANN" if logs.files else f"{logs.board}: no logs of CANN"
        )
        lines += [f"  {path}" for path in logs.files]
        if logs.errors:
            lines.append(f"{logs.board}: errors in them")
            lines += [f"  {line[:200]}" for line in logs.errors]
        if logs.explained:
            lines.append(f"  what it means: {logs.explained}")
    lines += failures_text(answers)
    if any(answer.value is not None for answer in answers):
        lines.append(f"fetched: {paths.relative(run.path)}/<board>/logs/")
    return "\n".join(lines)


def _entry(entry: dict[str, Any]) -> str:
    """``2026-03-01 10:20:30  settled  release=4f1c… former=…``"""
    told = entry.get("time")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told)) if isinstance(told, int | float) else "?"
    rest = [
        f"{key}={str(value)[:12] if key in ('release', 'former') else value}"
        for key, value in sorted(entry.items())
        if key not in ("time", "what") and value not in ("", None)
    ]
    return "  ".join([when, str(entry.get("what", "")), " ".join(rest)]).rstrip()
