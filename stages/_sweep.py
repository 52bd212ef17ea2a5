"""What the jobs of a sweep (``deploy train -m train.lr_max=0.05,0.1``) came to, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """One job: its overrides as ``key=value``, what it made (see ``Invocation.results``), why it failed."""

    overrides: Sequence[str]
    results: Sequence[Mapping[str, Any]]
    error: BaseException | None = None


def rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """A row for each result of each job: the settings that vary, accuracy, loss, seconds, artefact."""
    settings = [dict(item.lstrip("+").split("=", 1) for item in job.overrides) for job in jobs]
    keys = list(dict.fromkeys(key for chosen in settings for key in chosen))
    varying = [key for key in keys if len({chosen.get(key) for chosen in settings}) > 1] or keys
    found = []
    for job, chosen in zip(jobs, settings, strict=True):
        names = {key: chosen.get(key, "") for key in varying}
        if job.error is not None:
            found.append({**names, "error": str(job.error) or type(job.error).__name__})
        for result in job.results:
            notes = result["notes"]
            row = {**names, "accuracy": notes.get("accuracy"), "loss": notes.get("loss")}
            found.append({**row, "seconds": result["seconds"], "artefact": result["artefact"]})
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, columns aligned, errors behind all else; a column that nobody has is left out."""
    named = dict.fromkeys(key for row in found for key, value in row.items() if value is not None)
    columns = sorted(named, key=lambda column: column == "error")
    lines = [columns, *([_shown(column, row.get(column)) for column in columns] for row in found)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    shown = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in shown)


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "–"
    if column == "accuracy":
        return f"{value:.2%}"
    if column == "loss":
        return f"{value:.4f}"
    if column == "seconds":
        return f"{value:.1f}"
    return str(value)[:12] if column == "artefact" else str(value)
