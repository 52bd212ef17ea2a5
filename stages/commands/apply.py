"""Build what is missing, roll it out, run inference, fetch and verify.

    deploy +board=sim
    deploy +board=200dk board.host=192.168.1.2 train.epochs=90

Run again, it does only what is not done: unchanged stages are skipped, boards that run the release already get one
request and are left alone.
"""

from __future__ import annotations

from stages._apply import apply
from stages._invocation import Invocation

HELP = "build what is missing, roll out, run inference, fetch, verify, report"


def run(invocation: Invocation) -> int:
    return apply(invocation)
