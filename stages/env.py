"""The environment: a marked block in ``~/.bashrc`` for people who log in (programs use the release's env.sh).

With a new release it is written in the same step as the switch to it: ``deploy env`` writes the block of boards that
run the release already, and is as ``deploy push`` on the others."""

from __future__ import annotations

from toolkit.fleet.job import Session
from toolkit.fleet.plan import ENVIRONMENT, SWITCH

NAME = "env"
HELP = "set the boards' environment variables"


def run(session: Session) -> None:
    if not session.todo(ENVIRONMENT):
        session.skip(NAME, "the block in ~/.bashrc is as wanted")
        return
    if session.todo(SWITCH):
        # The agent holds it with the staged release and writes it in the same step as the switch.
        session.say(NAME, "is written with the switch")
        return
    session.agent.set_environment(session.job.environment)
    session.say(NAME, "block in ~/.bashrc written")
