"""The gate: the board's answers against the reference; only then ``current`` is switched."""

from __future__ import annotations

import time

from toolkit.errors import GateError
from toolkit.fleet.agreement import compare, latency
from toolkit.fleet.job import Session

NAME = "verify"
HELP = "compare the boards' answers with the reference"


def run(session: Session) -> None:
    job = session.job
    if session.ran:
        session.skip(NAME, "verified before with the same release and settings")
        return
    agreement = compare(session.results, job.reference, job.tolerance)
    figures = {
        "pictures": agreement.pictures,
        "accuracy": agreement.accuracy,
        "labelled": agreement.labelled,
        "agreement": agreement.agreed,
        "difference": agreement.difference,
        "failed": list(agreement.failed),
        **latency(session.results),
    }
    session.outcome.figures = figures
    if agreement.difference is None:
        session.say(NAME, "no reference to compare with", **figures)
    else:
        session.say(NAME, f"largest difference {agreement.difference:.2g} on {agreement.worst}", **figures)
    if agreement.problems:
        raise GateError(
            f"{job.board}: the answers disagree with the reference: " + "; ".join(agreement.problems),
            hint="the board keeps what it had; compare atc.precision_mode, preprocess and the om, "
            "or raise verify.max_difference",
        )
    if not session.current:
        session.agent.switch(job.release.id, job.confirm_within)
    session.agent.confirm(
        {
            "run_key": job.run_key,
            "run_id": job.run_id,
            "release": job.release.id,
            "by": job.holder,
            "time": time.time(),
            "figures": figures,
        }
    )
