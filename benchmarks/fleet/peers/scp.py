"""ssh and scp, board after board, as by hand: everything is sent each time."""

from __future__ import annotations

from benchmarks.fleet.peers import Script


class Scp(Script):
    script = "scp.sh"
    title = "scp, board after board"


def make(name: str) -> Scp:
    return Scp(name)
