"""What CANN's tools printed: kept in the run's folder, and turned into an error with a cause."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from toolkit.cann import atc, catalogue
from toolkit.errors import CommandFailed
from toolkit.pipeline import Context
from toolkit.ui.events import Event


def keep_log(context: Context, tool: str, argv: Sequence[str], output: str) -> None:
    """Append a tool's output to the run's ``convert/<tool>.log``."""
    folder = context.services.get("run_folder")
    if folder is not None:
        log = cast(Path, folder) / "convert" / f"{tool}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write("$ " + " ".join(argv) + "\n" + output + "\n")
        context.emit(Event("log", f"{tool}'s log: {log}"))


def failure(tool: str, argv: Sequence[str], status: int, output: str, host: str) -> CommandFailed:
    """The error for a tool that failed: the catalogue's cause, or its own words."""
    codes = atc.error_codes(output)
    entry = catalogue.explain(output)
    lines = [line for line in output.strip().splitlines() if line.strip()]
    what = next((line.strip() for line in lines if codes and codes[0] in line), lines[-1] if lines else "")
    message = f"{tool} failed on {host} with status {status}: {what}"
    if entry:
        message = f"{tool} failed on {host} ({', '.join(codes) or f'status {status}'}): {entry.cause}"
    return CommandFailed(
        message,
        host=host,
        hint=entry.fix if entry else "its whole output is in the run's folder, convert/",
        detail="\n".join(lines[-20:]),
        argv=argv,
        status=status,
    )
