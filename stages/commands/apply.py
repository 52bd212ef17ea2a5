"""Build what is missing, roll it out, run inference, fetch and verify.

    deploy +board=sim
    deploy +board=200dk board.host=192.168.1.2 train.epochs=90
    deploy inventory=mine rollout=canary --yes
    deploy apply plan=monday.plan
    deploy apply inventory=mine --yes --until-done

Run again, it does only what is not done: unchanged stages are skipped, boards that run the release already
get one request and are left alone. plan=FILE carries out exactly what `deploy plan out=FILE` wrote, in its
waves and with its gates, or refuses. --until-done goes on until the boards that don't answer now have it
too, or until Ctrl-C.

More than one board that the command line doesn't name (hosts=NAME,NAME) is asked about first, at a terminal;
without one, --yes is wanted. --yes also answers rollout.pause=ask."""

from __future__ import annotations

from stages._apply import apply
from stages._invocation import Invocation

HELP = "build what is missing, roll out, run inference, fetch, verify, report"


def run(invocation: Invocation) -> int:
    return apply(invocation)
