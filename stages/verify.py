"""The gate: the board's answers against the reference, its figures against limits; only then ``current`` is
switched."""

from __future__ import annotations

from typing import Any

from toolkit.errors import CommandFailed, GateError
from toolkit.fleet import gates
from toolkit.fleet.agreement import compare, figures_of
from toolkit.fleet.health import temperature
from toolkit.fleet.job import Session
from toolkit.fleet.plan import SWITCH, VERIFY

NAME = "verify"
HELP = "compare the boards' answers with the reference"


def run(session: Session) -> None:
    job = session.job
    if not session.todo(VERIFY):
        session.skip(NAME, "verified before with the same release and settings")
        return
    agreement = compare(session.results, job.reference, job.gate.max_difference, job.gate.min_agreement)
    figures: dict[str, Any] = {**figures_of(agreement, session.results), **_measured(session)}
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
    # Agreement was judged above, picture by picture.
    limits = gates.without(job.gate, "max_difference", "min_agreement")
    if found := gates.problems(figures, session.before, limits):
        raise GateError(f"{job.board}: {'; '.join(found)}", hint="the board keeps what it had")
    if session.todo(SWITCH):
        session.switch()
    session.confirm(figures)


def _measured(session: Session) -> dict[str, float]:
    """What the board said of itself: the program's largest memory, the chip's temperature where that is limited.

    :raises GateError: the temperature is limited, and the board does not say it."""
    measured: dict[str, float] = {}
    if session.report is not None and session.report.peak_rss:
        measured["memory_mb"] = round(session.report.peak_rss / 1e6, 1)
    if limit := session.job.heat:
        try:
            found, why = temperature(session.agent, session.job), "npu-smi does not say it"
        except CommandFailed as error:
            found, why = None, str(error).removeprefix(f"{session.job.board}: ")
        if found is None:
            raise GateError(
                f"{session.job.board}: the chip's temperature is not known, so that {limit} can't be checked: {why}",
                hint=f"see to npu-smi on the board; {limit}=null does without",
            )
        measured["temperature"] = found
    return measured
