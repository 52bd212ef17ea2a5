"""The results and annotated pictures back from the board, into ``runs/<id>/<board>/``.

``deploy fetch`` stops there: the new release ran beside the one in use, and nothing is switched."""

from __future__ import annotations

from toolkit.fleet.agreement import read_results
from toolkit.fleet.job import Session
from toolkit.fleet.plan import RUN
from toolkit.ui.words import counted

NAME = "fetch"
HELP = "fetch the results and annotated pictures"

MAX_BYTES = 1 << 30
MAX_FILES = 100_000


def run(session: Session) -> None:
    if not session.todo(RUN):
        session.skip(NAME, "nothing ran")
        return
    job = session.job
    fetched = session.agent.fetch(
        f"outputs/{job.run_id}", job.out, limit_bytes=MAX_BYTES, limit_files=MAX_FILES
    )
    session.results = read_results(job.out / "results.jsonl")
    session.say(NAME, f"{counted(len(fetched), 'file')} in {job.out}")
