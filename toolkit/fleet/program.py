"""How the board program (``toolkit/onboard/infer.py``) ends, and what that means."""

from __future__ import annotations

from toolkit.cann import catalogue
from toolkit.errors import CommandFailed
from toolkit.remote.agent import RunReport

PROGRESS = "@progress "
"""How the lines begin that it prints about its progress: done, total."""

MEANING = {
    2: "the release's files do not fit together",
    3: "the board cannot keep the results",
    4: "none of the pictures could be read",
    5: "there are no pictures",
    6: "a call of pyACL failed",
    7: "a Python module is missing",
}
"""Its exit codes."""


def failure(board: str, report: RunReport) -> CommandFailed:
    """The error for a program that ended with another status than 0."""
    said = "\n".join(
        line
        for line in (report.stderr_tail.strip() or report.stdout_tail.strip()).splitlines()
        if not line.startswith(PROGRESS)
    ).strip()
    known = catalogue.explain(report.stderr_tail + "\n" + report.stdout_tail)
    what = MEANING.get(report.status, f"infer.py ended with status {report.status}")
    last = said.splitlines()[-1] if said else ""
    return CommandFailed(
        f"{board}: {what}" + (f": {last}" if last else ""),
        cause="disk-full" if report.status == 3 and "[Errno 28]" in said else "exit-status",
        host=board,
        hint=f"{known.cause}: {known.fix}" if known else "",
        detail="\n".join(said.splitlines()[-20:]),
        status=report.status,
    )
