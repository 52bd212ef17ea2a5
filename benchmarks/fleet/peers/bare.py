"""No rollout but its limit: the release through one connection a board and nothing else; later the connection alone.

What a way of rolling out needs beyond this is its own. Nothing is compared, checked, run or fetched.
"""

from __future__ import annotations

from benchmarks.fleet.peers import Script


class Bare(Script):
    script = "bare.sh"
    title = "limit: tar over ssh, then ssh … true"
    scenarios = ("first", "same")
    rolls_out = False


def make(name: str) -> Bare:
    return Bare(name)
