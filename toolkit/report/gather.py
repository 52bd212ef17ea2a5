"""Reads a run's folder: what the report shows, as plain data. Whatever is missing or damaged there is left out.

A run that was killed has no outcomes and half a journal: its report says so. What came back from boards is
untrusted: figures must be numbers, pictures must decode (:mod:`toolkit.report.pictures`), texts are escaped by
the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.fleet.journal import read_journal

PHASES = ("decode", "preprocess", "execute", "postprocess", "annotate")
"""Of a picture on the board, in their order (toolkit/onboard/infer.py)."""


@dataclass(frozen=True)
class Stage:
    """One build stage. state: ``ran``, ``unchanged``, ``failed`` or ``cut short``; seconds: None unless it ran."""

    name: str
    state: str
    text: str
    reasons: str = ""
    seconds: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """A picture as one board saw it. top: (class id, confidence), best first; names as far as they are known."""

    name: str
    file: Path | None
    best: str
    top: tuple[tuple[str, float], ...]
    error: str = ""
    execute_ms: float | None = None


@dataclass(frozen=True)
class BoardRun:
    """One board: its outcome, its results, what its program said about itself."""

    name: str
    outcome: Mapping[str, Any]
    pictures: tuple[Shown, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.outcome.get("status") or "cut short")

    @property
    def good(self) -> bool:
        return self.status in ("ok", "unchanged")

    @property
    def figures(self) -> Mapping[str, Any]:
        figures = self.outcome.get("figures")
        return figures if isinstance(figures, Mapping) else {}

    def figure(self, name: str) -> float | None:
        """A figure, if it is a finite number."""
        return number(self.figures.get(name))


@dataclass(frozen=True)
class Run:
    """All of a run. begun, ended: seconds since the epoch; ended is that of the last line of the journal."""

    id: str
    verb: str
    begun: float
    ended: float
    exit_code: int | None
    app: str
    config: str
    stages: tuple[Stage, ...]
    boards: tuple[BoardRun, ...]
    warnings: tuple[str, ...]
    failure: str
    receipts: Mapping[str, str]

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)


def number(value: Any) -> float | None:
    """``value`` as a finite float, or None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def gather(folder: Path) -> Run:
    """Read ``runs/<id>``. Raises InputError where it is no run's folder."""
    journal = folder / "journal.jsonl"
    if not journal.is_file():
        raise InputError(f"{folder} is not a run's folder: it has no journal.jsonl")
    events = list(_events(journal))
    first = events[0] if events else {}
    outcomes: dict[str, Mapping[str, Any]] = {}
    exit_code = None
    failure = ""
    warnings = []
    for event in events:
        board, kind, data = str(event.get("board", "")), event.get("kind"), _mapping(event.get("data"))
        if board:
            outcomes.setdefault(board, {})
        if kind == "outcome" and board:
            outcomes[board] = data
        elif kind == "summary":
            exit_code = int(data["exit_code"]) if isinstance(data.get("exit_code"), int) else None
        elif kind == "warning":
            warnings.append((f"{board}: " if board else "") + str(event.get("text", "")))
        elif kind == "fail" and not event.get("stage") and not board:
            failure = str(event.get("text", ""))
    if exit_code is None and not failure:
        for name, text in _untold(journal).items():
            if not outcomes.get(name):
                outcomes[name] = {"message": text}
    config = _text(folder / "config.yaml")
    return Run(
        id=folder.name,
        verb=str(first.get("text") or "apply"),
        begun=number(first.get("time")) or 0.0,
        ended=number(events[-1].get("time")) or 0.0 if events else 0.0,
        exit_code=exit_code,
        app=_app(config),
        config=config,
        stages=tuple(_stages(events)),
        boards=tuple(_board(folder, name, outcome) for name, outcome in outcomes.items()),
        warnings=tuple(dict.fromkeys(warnings)),
        failure=failure,
        receipts={path.stem: _text(path) for path in sorted((folder / "receipts").glob("*.json"))},
    )


def _untold(journal: Path) -> dict[str, str]:
    """What a journal without an end says of its boards."""
    try:
        return {name: board.text for name, board in read_journal(journal).boards.items()}
    except InputError:
        return {}


def _events(journal: Path) -> Iterator[Mapping[str, Any]]:
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        if isinstance(event, dict):
            yield event


def _stages(events: list[Mapping[str, Any]]) -> Iterator[Stage]:
    """The build stages in their order. Of a stage that ran for several targets each is one."""
    open_ones: dict[str, str] = {}
    for event in events:
        name, kind = str(event.get("stage", "")), event.get("kind")
        if not name or event.get("board") or name in ("rollout", "survey", "board"):
            continue
        data = _mapping(event.get("data"))
        notes = _mapping(data.get("notes"))
        text = str(event.get("text", ""))
        if kind == "start":
            open_ones[name] = text
        elif kind == "done":
            yield Stage(name, "ran", text, open_ones.pop(name, ""), number(data.get("seconds")), notes)
        elif kind == "skip":
            yield Stage(name, "unchanged", str(notes.get("summary") or ""), "", None, notes)
        elif kind == "fail":
            yield Stage(name, "failed", text, open_ones.pop(name, ""))
    for name, reasons in open_ones.items():
        yield Stage(name, "cut short", "", reasons)


def _board(folder: Path, name: str, outcome: Mapping[str, Any]) -> BoardRun:
    place = folder / name
    # A board's name comes from the inventory, but a report never looks outside its run.
    if "/" in name or name in ("", ".", ".."):
        return BoardRun(name, outcome)
    return BoardRun(name, outcome, tuple(_pictures(place)), _json(place / "summary.json"), _json(place / "bench.json"))


def _pictures(place: Path) -> Iterator[Shown]:
    entries = []
    names: dict[Any, str] = {}  # of the classes that were the best of some picture; the others keep their ids
    for line in _text(place / "results.jsonl").splitlines():
        try:
            entry = json.loads(line)
            entry["picture"]
        except (ValueError, KeyError, TypeError):
            continue
        entries.append(entry)
        if isinstance(entry.get("label"), int):
            names[entry["label"]] = str(entry.get("class", entry["label"]))
    for entry in entries:
        name = str(entry["picture"])
        if "error" in entry:
            yield Shown(name, None, "", (), str(entry["error"]))
            continue
        top: list[tuple[str, float]] = []
        for pair in entry.get("top", ()) if isinstance(entry.get("top"), list) else ():
            share = number(pair[1]) if isinstance(pair, list) and len(pair) == 2 else None
            # What would be shown as nought tells nobody anything.
            if share is not None and (not top or share >= 0.0005):
                known = names.get(pair[0]) if isinstance(pair[0], int) else None
                top.append((known or f"class {pair[0]}", min(1.0, max(0.0, share))))
        file = place / name if "/" not in name and (place / name).is_file() else None
        best = str(entry.get("class", "?"))
        yield Shown(name, file, best, tuple(top), "", number(_mapping(entry.get("ms")).get("execute")))


def _app(config: str) -> str:
    """``app.name`` of the config as it was dumped; no parser of YAML for one word."""
    lines = config.splitlines()
    inside = False
    for line in lines:
        if line == "app:":
            inside = True
        elif inside and line.startswith("  name:"):
            return line.split(":", 1)[1].strip().strip("'\"")
        elif inside and not line.startswith(" "):
            break
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
