"""A run's folder: its config, its journal, its receipts, its pictures.

The journal is append-only JSON lines; a line is on the disk before what it announces is done, so that a
``kill -9`` or a power cut leaves a file that tells what happened on each board (:func:`read_journal`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, Interrupted
from toolkit.fleet.receipts import Receipts
from toolkit.ui.events import Event

LOOKING = ("verify", "logs", "bench", "infer", "doctor", "status")
"""Verbs whose runs change no board."""

BUILDING = ("data", "train", "export", "quantise", "tune", "convert", "package")
"""Verbs whose runs touch no board at all."""

RECENT = 20
"""How many of the newest runs that may have changed boards are looked through for one that was cut short."""

DURABLE = ("outcome", "done", "fail", "summary", "warning")


class RunFolder:
    """``runs/<id>/``; the id sorts by time."""

    def __init__(self, runs: Path, config_text: str, verb: str) -> None:
        self.id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        self.path = runs / self.id
        self.path.mkdir(parents=True)
        (self.path / "config.yaml").write_text(config_text, encoding="utf-8")
        self._lock = threading.Lock()
        self._file = (self.path / "journal.jsonl").open("a", encoding="utf-8")
        # It goes with this process, however that ends: see cut_short.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.show(Event("start", verb, data={"run": self.id, "pid": os.getpid()}))

    def show(self, event: Event) -> None:
        """Append an event (progress is for eyes only)."""
        if event.kind == "progress":
            return
        line = json.dumps(
            {k: v for k, v in vars(event).items() if v not in ("", {})}, default=str, sort_keys=True
        )
        with self._lock:
            if self._file.closed:
                return
            self._file.write(line + "\n")
            self._file.flush()
            # What a board has, or is about to have; the rest can be told from it.
            if event.kind in DURABLE or event.stage in ("board", "rollout"):
                os.fsync(self._file.fileno())

    def board(self, name: str) -> Path:
        """The folder for what comes back from one board."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def receipt(self, board: str, content: dict[str, Any]) -> None:
        """Write ``receipts/<board>.json``, and append it to the board's chain (:mod:`toolkit.fleet.receipts`)."""
        chains = Receipts(self.path.parent.parent / ".deploy" / "receipts")
        chains.add(board, {**content, "run": self.id}, self.path / "receipts" / f"{board}.json")

    def close(self) -> None:
        with self._lock:
            self._file.close()


# -- reading


@dataclass
class BoardStory:
    """What a journal says about one board.

    state: ``not-begun``, ``begun`` (nothing in use was touched), ``installed`` (the release lies beside the
    one in use), ``switching`` (asked to switch; nobody here knows whether it did), ``confirmed`` (it runs the
    release), ``reverting``, ``reverted``, ``ended`` (there is an outcome). within: seconds after which a
    board that was not confirmed goes back by itself. app: "" = the journal does not say it."""

    board: str
    app: str = ""
    state: str = "not-begun"
    stage: str = ""
    release: str = ""
    previous: str = ""
    within: float = 0.0
    time: float = 0.0
    outcome: Mapping[str, Any] | None = None

    @property
    def touched(self) -> bool:
        """Did the run turn to it?"""
        return self.state != "not-begun"

    @property
    def reached(self) -> bool:
        """Did the run see to it? Not where the board never answered."""
        silent = self.outcome is not None and self.outcome.get("status") == "unreachable"
        return self.touched and not (silent and self.stage in ("", "connect"))

    def is_of(self, app: str) -> bool:
        """Was it about this app? It may have been where the journal does not say, or ``app`` is ""."""
        return not app or self.app in ("", app)

    @property
    def text(self) -> str:
        """One line for people."""
        new, old = self.release[:12] or "the release", self.previous[:12] or "nothing"
        if self.outcome is not None:
            message = str(self.outcome.get("message", ""))
            return str(self.outcome.get("status", "")) + (f": {message}" if message else "")
        return {
            "not-begun": "not begun: it was not touched",
            "begun": f"cut short in {self.stage}: it runs what it ran before",
            "installed": f"cut short in {self.stage}: {new} lies beside what it runs, "
            "which is what it ran before",
            "switching": f"cut short while it switched from {old} to {new}: unless that was confirmed, "
            f"it goes back by itself {self.within:g} s after the switch",
            "confirmed": f"runs {new}; cut short before its results were kept",
            "reverting": f"cut short while it was put back from {new} to {old}: it runs one of them",
            "reverted": f"was put back to {old}",
        }[self.state]


@dataclass
class Story:
    """What a journal says about a run. ``exit_code`` None: it never came to its end."""

    run: str = ""
    verb: str = ""
    pid: int = 0
    exit_code: int | None = None
    over: bool = False
    error: str = ""
    waves: Sequence[Sequence[str]] = ()
    boards: dict[str, BoardStory] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.over or bool(self.error)

    def concerns(self, apps: Mapping[str, str]) -> bool:
        """Did it see to one of these boards, with the app that it has here? ``apps``: names → apps."""
        return any(
            board.reached and name in apps and board.is_of(apps[name]) for name, board in self.boards.items()
        )


def cut_short(runs: Path, boards: Collection[str] | None = None) -> list[Story]:
    """The runs that were killed while they changed ``boards`` (None: any), the newest first.

    Each with those of the boards that no later run saw to with the same app; runs that have none left are left out,
    and so are the verbs that only look, a run that still goes on, and all but the newest runs."""
    files = _recent(runs)
    killed = [index for index, file in enumerate(files) if not _end(file) and not _goes_on(file)]
    found = []
    seen: dict[str, list[BoardStory]] = {}
    for index, file in enumerate(files[: killed[-1] + 1] if killed else []):
        try:
            story = read_journal(file)
        except InputError:
            continue
        if index in killed:
            left = {
                name: board
                for name, board in story.boards.items()
                if (boards is None or name in boards)
                and not any(later.is_of(board.app) for later in seen.get(name, ()))
            }
            if any(board.touched for board in left.values()):
                found.append(replace(story, boards=left))
        for name, board in story.boards.items():
            if board.reached:
                seen.setdefault(name, []).append(board)
    return found


def begun(runs: Path, apps: Mapping[str, str] | None = None) -> frozenset[str]:
    """Ids of the newest rollouts that were killed or interrupted: whoever types the same again goes on with them.

    Back to the last one that turned to one of the boards (names → apps; None: any) with its app and came to its end."""
    found = set()
    for file in _recent(runs):
        end = _end(file)
        if not end or end["kind"] != "summary" or end.get("data", {}).get("exit_code") == Interrupted.exit_code:
            found.add(file.parent.name)
        elif apps is None or _concerns(file, apps):
            break
    return frozenset(found)


def _concerns(file: Path, apps: Mapping[str, str]) -> bool:
    """:meth:`Story.concerns`; also where that cannot be told."""
    try:
        return read_journal(file).concerns(apps)
    except InputError:
        return True


def _recent(runs: Path) -> list[Path]:
    """The journals of the newest runs that may have changed boards, the newest first."""
    folders = sorted((path for path in runs.iterdir() if path.is_dir()), reverse=True) if runs.is_dir() else []
    found: list[tuple[float, Path]] = []
    for folder in folders:
        when, verb = _begin(folder / "journal.jsonl")
        if verb not in (*LOOKING, *BUILDING, ""):
            found.append((when, folder / "journal.jsonl"))
        if len(found) == RECENT:
            break
    found.sort(key=lambda item: item[0], reverse=True)  # ids tell seconds only
    return [file for _, file in found]


def _begin(file: Path) -> tuple[float, str]:
    """When a run began, and its verb; "" where the journal does not say it."""
    try:
        with file.open(encoding="utf-8") as stream:
            first = json.loads(stream.readline())
        return float(first["time"]), str(first["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, ""


def _end(file: Path) -> dict[str, Any] | None:
    """The entry with which a run came to its end, good or bad: among the last lines, where there is one."""
    with file.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - 65536))
        lines = stream.read().split(b"\n")
    for line in lines:
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if not entry.get("board") and not entry.get("stage") and entry.get("kind") in ("summary", "fail"):
                return dict(entry)
    return None


def _goes_on(file: Path) -> bool:
    """Is there a process that writes it?"""
    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def read_journal(path: Path) -> Story:
    """Tell from ``journal.jsonl`` (or the run's folder) what happened. A last line that was cut off is left
    out.

    :raises InputError: there is no such file, or it is no journal.
    """
    file = path / "journal.jsonl" if path.is_dir() else path
    story = Story()
    try:
        for entry in _entries(file):
            _tell(story, entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a run's journal: {error}") from error
    apps = {board.app for board in story.boards.values() if board.touched}
    if len(apps) == 1:
        # Those that it did not turn to were to get it, too.
        (app,) = apps
        for board in story.boards.values():
            board.app = app
    return story


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_bytes().split(b"\n")
    for line in lines[:-1]:
        yield json.loads(line)
    if lines[-1]:
        try:
            yield json.loads(lines[-1])
        except ValueError:
            return


def _tell(story: Story, entry: Mapping[str, Any]) -> None:
    kind, stage, name = entry["kind"], entry.get("stage", ""), entry.get("board", "")
    data = entry.get("data", {})
    if not name:
        if kind == "start" and "run" in data:
            story.run, story.verb, story.pid = data["run"], entry.get("text", ""), data["pid"]
        elif kind == "start" and stage == "rollout":
            story.waves = data["waves"]
            for wave in story.waves:
                for each in wave:
                    story.boards.setdefault(each, BoardStory(each))
        elif kind == "summary":
            story.over, story.exit_code = True, data.get("exit_code")
        elif kind == "fail" and not stage:
            story.error = entry.get("text", "")
        return
    board = story.boards.setdefault(name, BoardStory(name))
    if kind == "start" and stage == "connect" and board.outcome is not None:
        story.boards[name] = board = BoardStory(name)  # tried again: the last time counts
    board.time = entry.get("time", 0.0)
    if kind == "start":
        board.app = data.get("app", board.app)
        board.stage = stage
        if board.state == "not-begun":
            board.state = "begun"
    elif kind == "log" and stage == "board" and entry["text"] == "planned":
        board.release, board.previous = data.get("release", ""), data.get("replaces", "")
    elif kind == "log" and stage == "board":
        board.state, board.outcome = entry["text"], None
        board.release = data.get("release") or board.release
        board.previous = data.get("previous") or board.previous
        board.within = data.get("within", board.within)
        if board.state == "reverted":
            board.release, board.previous = board.previous, data.get("release", "")
    elif kind == "outcome":
        board.outcome = data
        board.state = "ended"
        board.release, board.previous = data.get("release", ""), data.get("previous", "")
