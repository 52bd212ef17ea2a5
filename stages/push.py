"""The release onto the board, beside the one in use: only what is missing is sent, each file checked by digest.

``deploy push`` stops there: the boards go on with what they run, and the next ``deploy`` has nothing to send."""

from __future__ import annotations

from toolkit.fleet.job import Session
from toolkit.fleet.plan import INSTALL

NAME = "push"
HELP = "send the release to the boards"


def run(session: Session) -> None:
    if session.todo(INSTALL):
        session.install()
    else:
        session.skip(NAME, "the board has this release")
