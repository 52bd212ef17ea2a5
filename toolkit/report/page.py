"""The report of a run: one HTML file that needs nothing else, no network and no script."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from toolkit.artefacts.store import write_atomically
from toolkit.report.gather import PHASES, BoardRun, Run, Shown, gather, number
from toolkit.report.pictures import thumbnail
from toolkit.report.plots import training

FILE = "report.html"

GALLERY = 60
"""Pictures of one board that are shown."""

GALLERIES = 4
"""Boards whose pictures are shown; more only where boards disagree."""

RECEIPTS = 24
"""Boards whose receipts stand in the page; the others' are files beside it."""

WORST = ("failed", "unreachable", "reverted", "disagrees", "damaged", "cut short", "skipped")


def write(run_folder: Path) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    :raises InputError: it is not a run's folder.
    """
    path = run_folder / FILE
    write_atomically(path, render(gather(run_folder)).encode("utf-8"))
    return path


def render(run: Run) -> str:
    """The page's text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent, size=_size, seconds=_seconds, when=_when, short=lambda text: str(text)[:12]
    )
    convert, train = run.stage("convert"), run.stage("train")
    command = convert.notes.get("command") if convert else None
    odd = disagreements(run)
    return environment.get_template("report.html.j2").render(
        run=run,
        verdict=verdict(run),
        tiles=tiles(run),
        boards=sorted(run.boards, key=lambda board: (board.good, _rank(board.status), board.name)),
        counts=Counter(board.status for board in run.boards),
        slowest=max((stage.seconds or 0.0 for stage in run.stages), default=0.0),
        history=training(_history(train.notes if train else {})),
        train=train,
        convert=convert,
        atc=shlex.join(str(word) for word in command) if isinstance(command, list) else "",
        galleries=galleries(run, odd),
        odd=odd,
        phases=phases(run),
        benches=[board for board in run.boards if board.bench],
        receipts=dict(list(run.receipts.items())[:RECEIPTS]),
        hidden_receipts=max(0, len(run.receipts) - RECEIPTS),
        thumbnail=thumbnail,
    )


def verdict(run: Run) -> tuple[str, str]:
    """A word for the style, and a sentence."""
    total = len(run.boards)
    good = sum(board.good for board in run.boards)
    if run.failure:
        return "bad", run.failure
    if not total:
        return "good", "Built; no board was asked to run it"
    boards = "board" if total == 1 else "boards"
    if good == total:
        unchanged = all(board.status == "unchanged" for board in run.boards)
        return "good", f"{'The' if total == 1 else f'All {total}'} {boards} {_are(total)} fine" + (
            ", nothing had changed" if unchanged else ""
        )
    if all(board.status == "cut short" for board in run.boards if not board.good):
        return "warn", f"Cut short: {good} of {total} {boards} done"
    return ("bad" if good == 0 else "warn"), f"{good} of {total} {boards} {_are(good)} fine"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The figures to see first: label, value, what it means."""
    found = []

    def values(name: str) -> list[float]:
        return [value for board in run.boards if (value := board.figure(name)) is not None]

    if run.boards:
        good = sum(board.good for board in run.boards)
        found.append(("boards", f"{good} / {len(run.boards)}", "fine"))
    if accuracies := values("accuracy"):
        labelled = max(values("labelled"), default=0)
        found.append(("accuracy", _percent(min(accuracies)), f"of {labelled:.0f} labelled pictures, worst board"))
    if differences := values("difference"):
        found.append(("difference", f"{max(differences):.1e}", "largest, from the float32 reference"))
    for name, label in (("p50_ms", "median"), ("p99_ms", "99th percentile")):
        if times := values(name):
            found.append((label, f"{max(times):.2f} ms", "a picture on the chip, slowest board"))
    train = run.stage("train")
    trained = number(train.notes.get("accuracy")) if train else None
    if trained is not None and len(found) < 5:
        found.append(("trained to", _percent(trained), "of the held-out pictures"))
    return found


def disagreements(run: Run) -> list[str]:
    """Pictures for which boards name different classes."""
    votes: dict[str, set[str]] = {}
    for board in run.boards:
        for picture in board.pictures:
            votes.setdefault(picture.name, set()).add(picture.best)
    return sorted(name for name, classes in votes.items() if len(classes) > 1)


def galleries(run: Run, odd: list[str]) -> list[tuple[BoardRun, list[Shown], int]]:
    """Whose pictures are shown: one board stands for all, unless boards disagree. With how many more there are."""
    having = [board for board in run.boards if board.pictures]
    chosen = having[: GALLERIES if odd else 1]
    shown = []
    for number_, board in enumerate(chosen):
        # The first board shows everything; the others only what they see differently.
        wanted = [item for item in board.pictures if not number_ or item.name in odd]
        shown.append((board, wanted[:GALLERY], max(0, len(wanted) - GALLERY)))
    return shown


def phases(run: Run) -> list[tuple[str, list[tuple[str, float, float]]]]:
    """For each board (phase, p50, p99) in milliseconds, as its program summed them up."""
    found = []
    for board in run.boards:
        said = board.summary.get("ms")
        rows = []
        for phase in PHASES:
            value = said.get(phase) if isinstance(said, Mapping) else None
            half = number(value.get("p50")) if isinstance(value, Mapping) else None
            most = number(value.get("p99")) if isinstance(value, Mapping) else None
            if half is not None and most is not None:
                rows.append((phase, half, most))
        if rows:
            found.append((board.name, rows))
    return found


def _history(notes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    history = notes.get("history")
    return [item for item in history if isinstance(item, Mapping)] if isinstance(history, list) else []


def _rank(status: str) -> int:
    return WORST.index(status) if status in WORST else len(WORST)


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %" if value < 0.9995 else "100 %"


def _size(value: Any) -> str:
    count = number(value)
    if count is None:
        return "–"
    return f"{count:.0f} B" if count < 10_000 else f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def _seconds(value: Any) -> str:
    seconds = number(value)
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _when(value: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if value else ""
