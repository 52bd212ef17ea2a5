"""Shows events on a terminal (with live progress), as plain lines, or as JSON lines. The only place that prints."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from toolkit.errors import ConfigError, DeployError, RemoteError
from toolkit.ui.events import Event
from toolkit.ui.words import who

if TYPE_CHECKING:
    # JSON lines need nothing of Rich, most lines no table and no progress, and --version no word about boards.
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from toolkit.fleet.outcome import Outcome

MARK = {"done": "[green]✓[/]", "skip": "[dim]·[/]", "fail": "[red]✗[/]", "warning": "[yellow]![/]", "log": " "}
STATUS_STYLE = {
    "ok": "green",
    "unchanged": "dim green",
    "failed": "red",
    "unreachable": "red",
    "reverted": "yellow",
    "skipped": "yellow",
}


class Renderer(Protocol):
    """Shows what happens. ``show`` may be called from any thread."""

    def show(self, event: Event) -> None: ...
    def line(self, text: str) -> None: ...
    def error(self, error: DeployError) -> None: ...
    def outcomes(self, outcomes: Iterable[Outcome], notes: Iterable[str]) -> None: ...
    def data(self, value: Mapping[str, Any], text: str) -> None: ...
    def close(self) -> None: ...


def renderer(*, as_json: bool, quiet: bool, debug: bool) -> Renderer:
    """The renderer that fits the flags and the terminal."""
    if as_json:
        return JsonRenderer()
    return TextRenderer(quiet=quiet, debug=debug)


class JsonRenderer:
    """One JSON object a line on stdout."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def _write(self, value: Mapping[str, Any]) -> None:
        with self._lock:
            print(json.dumps(value, default=str, sort_keys=True), file=self._stream, flush=True)

    def show(self, event: Event) -> None:
        self._write(
            {"event": event.kind, **{k: v for k, v in vars(event).items() if k != "kind" and v not in ("", {})}}
        )

    def line(self, text: str) -> None:
        self._write({"event": "line", "text": text})

    def error(self, error: DeployError) -> None:
        value: dict[str, Any] = {"event": "error", "text": str(error), "hint": error.hint, "exit_code": error.exit_code}
        if isinstance(error, ConfigError):
            value["problems"] = list(error.problems)
        if isinstance(error, RemoteError):
            value |= {"cause": error.cause, "host": error.host}
        self._write(value)

    def outcomes(self, outcomes: Iterable[Outcome], notes: Iterable[str]) -> None:
        self._write({"event": "result", "boards": [item.as_json() for item in outcomes], "notes": list(notes)})

    def data(self, value: Mapping[str, Any], text: str) -> None:
        self._write({"event": "result", **value})

    def close(self) -> None:
        pass


class TextRenderer:
    """Lines for people; on a terminal also live progress of what is under way."""

    def __init__(self, *, quiet: bool = False, debug: bool = False, stream: TextIO | None = None) -> None:
        from rich.console import Console

        self._quiet, self._debug = quiet, debug
        out = stream or sys.stdout
        live = out.isatty() and not quiet
        self._console = Console(file=out, highlight=False, soft_wrap=True, width=None if out.isatty() else 120)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._lock = threading.RLock()
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._told: set[tuple[str, str]] = set()
        self._progress: Progress | None = None
        if live:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.fields[where]:<9}"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._progress.start()

    def show(self, event: Event) -> None:
        with self._lock:
            if self._quiet and event.kind not in ("warning", "fail"):
                return
            if event.kind == "progress":
                self._show_progress(event)
            elif event.kind == "start" and not event.board:
                self._begin(event)
            elif event.kind in ("done", "skip", "fail", "warning") and not event.board:
                self._end(event)
            elif event.kind == "outcome":
                self._outcome(event)
            elif event.kind == "log" and (event.data.get("show") or self._debug):
                self.line(f"            [dim]{escape(event.text)}[/]")

    def line(self, text: str) -> None:
        self._console.print(text)

    def error(self, error: DeployError) -> None:
        where = self._errors
        where.print(f"[bold red]error[/]: {escape(str(error))}")
        if isinstance(error, ConfigError) and len(error.problems) > 1:
            for problem in error.problems:
                where.print(f"  {escape(problem)}")
        if error.hint:
            where.print(f"  [bold]what to do[/]: {escape(error.hint)}")
        if isinstance(error, RemoteError) and error.detail and self._debug:
            where.print(escape(error.detail))

    def data(self, value: Mapping[str, Any], text: str) -> None:
        self._console.print(escape(text))

    def outcomes(self, outcomes: Iterable[Outcome], notes: Iterable[str]) -> None:
        self.close()
        items = list(outcomes)
        # What nothing was done with has no figures: a line for all of them will do.
        rows = [item for item in items if item.status != "skipped"]
        if rows:
            self._console.print(_table(rows))
        for crowd in crowds(items):
            first = crowd[0]
            style = "yellow" if first.status in ("skipped", "reverted") else "red"
            names = who([item.board for item in crowd])
            self._console.print(f"[{style}]{escape(names)}[/]: {escape(impersonal(first.board, first.message))}")
            if first.hint:
                self._console.print(f"  [bold]what to do[/]: {escape(first.hint)}")
        for note in notes:
            self._console.print(escape(note))

    def close(self) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def _begin(self, event: Event) -> None:
        if self._progress is not None:
            key = (event.stage, "")
            self._tasks[key] = self._progress.add_task(escape(event.text[:80]), total=None, where=event.stage)
        elif event.text:
            self.line(f"  [bold]{event.stage:<9}[/] [dim]{escape(event.text)}[/]")

    def _end(self, event: Event) -> None:
        self._drop((event.stage, ""))
        artefact = (event.stage, str(event.data.get("artefact", "")))
        if event.kind == "skip" and artefact in self._told:
            return  # several targets share it: once is enough
        self._told.add(artefact)
        seconds = event.data.get("seconds")
        took = f"  [dim]{seconds:.1f} s[/]" if isinstance(seconds, float) else ""
        notes = event.data.get("notes")
        text = event.text
        if event.kind == "skip" and isinstance(notes, Mapping) and notes.get("summary"):
            text = f"{event.text} ({notes['summary']})"
        self.line(f"{MARK[event.kind]} [bold]{event.stage:<9}[/] {escape(text)}{took}")

    def _show_progress(self, event: Event) -> None:
        key = (event.stage if not event.board else "", event.board)
        text = _figures(event.data) or event.text
        if event.data.get("output"):
            if self._debug:
                self.line(f"            [dim]{escape(event.board)}: {escape(event.text)}[/]")
            return
        if self._progress is None:
            # On a pipe: a line for each epoch's end, not for each step.
            if _ends_epoch(event.data):
                self.line(f"  {event.stage:<9} {escape(text)}")
            return
        where = event.board or event.stage
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task("", total=None, where=where)
        shown = f"{event.stage} {text}" if event.board else text
        self._progress.update(
            self._tasks[key],
            description=escape(shown[:90]),
            completed=event.data.get("done", 0),
            total=event.data.get("total"),
        )

    def _outcome(self, event: Event) -> None:
        self._drop(("", event.board))
        status = str(event.data.get("status", ""))
        style = STATUS_STYLE.get(status, "white")
        mark = "✓" if status in ("ok", "unchanged") else "✗"
        skipped = event.data.get("skipped") or ()
        parts = [part for part in (impersonal(event.board, event.text),) if part]
        if status == "unchanged":
            parts.append("nothing sent, nothing run")
        elif status == "ok" and skipped:
            parts += [" skipped: ".join(str(item).split(": ", 1)) for item in skipped]
        text = "; ".join(parts)
        self.line(f"[{style}]{mark}[/] [bold]{escape(event.board):<9}[/] [{style}]{status}[/] {escape(text)}")

    def _drop(self, key: tuple[str, str]) -> None:
        task = self._tasks.pop(key, None)
        if task is not None and self._progress is not None:
            self._progress.remove_task(task)


def escape(text: str) -> str:
    """``text`` as Rich shows it, whatever is in brackets there."""
    from rich import markup

    return markup.escape(text)


def impersonal(board: str, text: str) -> str:
    """A message without the name of its board in front, for where that stands already."""
    return text.removeprefix(f"{board}: ")


def crowds(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Outcomes that have something to say, those that say the same together: a fleet fails in crowds."""
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for item in outcomes:
        # Who does not answer names its own address; the hint of what could not be put back, its own board.
        alike = item.status == "unreachable" and item.cause != "not-reverted"
        said = item.cause if alike else impersonal(item.board, item.message)
        if item.message:
            groups.setdefault((item.status, item.cause, said, "" if alike else item.hint), []).append(item)
    return list(groups.values())


def _ends_epoch(data: Mapping[str, Any]) -> bool:
    return "epoch" in data and data["done"] * data["epochs"] == data["epoch"] * data["total"]


def _figures(data: Mapping[str, Any]) -> str:
    parts = []
    if "epoch" in data:
        parts.append(f"epoch {data['epoch']}" + (f"/{data['epochs']}" if "epochs" in data else ""))
    if "loss" in data and data["loss"] is not None:
        parts.append(f"loss {data['loss']:.4f}")
    if "accuracy" in data and data["accuracy"] is not None:
        parts.append(f"accuracy {data['accuracy'] * 100:.2f} %")
    if data.get("seconds_left") is not None:
        parts.append(f"{data['seconds_left']:.0f} s left")
    if not parts and data.get("total"):
        parts.append(f"{data.get('done', 0)}/{data['total']} {data.get('unit', '')}".rstrip())
    return ", ".join(parts)


def _table(items: list[Outcome]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("board", "outcome"):
        table.add_column(name)
    for name in ("accuracy", "difference", "p50 ms", "p99 ms", "sent", "seconds"):
        table.add_column(name, justify="right")
    for item in items:
        figures = item.figures
        accuracy, labelled = figures.get("accuracy"), figures.get("labelled")
        table.add_row(
            escape(item.board),
            f"[{STATUS_STYLE[item.status]}]{item.status}[/]",
            f"{accuracy * 100:.1f} % of {labelled}" if accuracy is not None else "–",
            f"{figures['difference']:.1e}" if figures.get("difference") is not None else "–",
            f"{figures['p50_ms']:.2f}" if figures.get("p50_ms") is not None else "–",
            f"{figures['p99_ms']:.2f}" if figures.get("p99_ms") is not None else "–",
            _size(item.sent),
            f"{item.seconds:.1f}",
        )
    return table


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
