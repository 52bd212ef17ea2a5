"""What CANN's tools printed: kept in the run's folder, and turned into an error with a cause."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from toolkit import paths
from toolkit.cann import atc, catalogue
from toolkit.errors import CommandFailed
from toolkit.pipeline import Context
from toolkit.ui.events import Event

# Longer words of a tool are cut in the one line of the error; the log has them whole.
_WORDS = 400

# What a tool prints about every failure, whatever it was, and what stands below the line that matters.
_SAYS_NOTHING = re.compile(
    r"ATC (start working|run failed)|\.\.\.$|TraceBack|Traceback|(Solution|Possible Cause): |E\w9999: In(ner|ternal)"
)
_ERROR = re.compile(r"\[?ERROR\b|\bE[A-Z0-9]\d{4}\b|\b[Ee]rror\b|\b[Ff]ailed\b|not found")


def log_file(context: Context, tool: str) -> Path | None:
    """Where a tool's output of this run is kept; None where the run keeps nothing."""
    folder = context.services.get("run_folder")
    return None if folder is None else cast(Path, folder) / "convert" / f"{tool}.log"


def keep_log(context: Context, tool: str, argv: Sequence[str], output: str) -> None:
    """Append a tool's output to the run's ``convert/<tool>.log``."""
    log = log_file(context, tool)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write("$ " + shlex.join(argv) + "\n" + output + "\n")
        context.emit(Event("log", f"{tool}'s log: {log}"))


def failure(
    tool: str, argv: Sequence[str], status: int, output: str, host: str, log: Path | None = None
) -> CommandFailed:
    """The error for a tool that failed: the catalogue's cause, the tool's own words, and where all of them are."""
    codes = atc.error_codes(output)
    entry = catalogue.explain(output)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    words = " / ".join(_words(lines, entry, codes))
    words = words if len(words) <= _WORDS else words[:_WORDS] + "…"
    what = f"{tool} failed on {host} ({', '.join(codes[:3]) or f'status {status}'})"
    if entry:
        what += f": {entry.cause}; it says: {words}"
    elif words:
        what += f": {words}"
    else:
        what += " and said nothing"
    whole = f"{tool}'s whole output: {paths.relative(log)}" if log else ""
    return CommandFailed(
        what,
        host=host,
        hint="; ".join(text for text in (entry.fix if entry else "", whole) if text),
        detail="\n".join(lines[-20:]),
        argv=argv,
        status=status,
    )


def _words(lines: Sequence[str], entry: catalogue.Entry | None, codes: Sequence[str]) -> list[str]:
    """The lines that say what is wrong: the one that the entry knows, else those with a code, else the last ones."""
    if entry:
        known = next((line for line in lines if re.search(entry.pattern, line)), None)
        if known:
            return [known]
    telling = [line for line in lines if not _SAYS_NOTHING.match(line)]
    coded = [line for line in telling if codes and codes[0] in line]
    if coded:
        return coded[:1]
    return [line for line in telling if _ERROR.search(line)][-3:] or telling[-3:]
