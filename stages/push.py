"""The release onto the board, beside the one in use: only what is missing is sent, each file checked by digest."""

from __future__ import annotations

from toolkit.artefacts.manifest import blobs_of
from toolkit.fleet.job import Session

NAME = "push"
HELP = "send the release to the boards"


def run(session: Session) -> None:
    job = session.job
    if session.current:
        session.skip(NAME, "the board has this release")
        return
    session.agent.install(job.release, blobs_of(job.release, job.files), job.environment)
