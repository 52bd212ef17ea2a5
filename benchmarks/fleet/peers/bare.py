"""No rollout but its limit: the release through one connection a board and nothing else; later the connection alone.

What a way of rolling out needs beyond this is its own. Nothing is compared, checked, run or fetched.
"""

from __future__ import annotations

from benchmarks.fleet.peers import PROGRAMS, Peer, Site


class Bare(Peer):
    title = "limit: tar over ssh, then ssh … true"
    scenarios = ("first", "same")
    rolls_out = False

    def prepare(self, site: Site) -> None:
        site.fleet.write_ssh_config(site.folder / "ssh_config")
        (site.folder / "boards").write_text("".join(f"{board.name}\n" for board in site.fleet.boards))

    def command(self, site: Site) -> list[str]:
        arguments = (site.folder / "ssh_config", site.release, site.out, site.folder / "boards")
        return ["bash", str(PROGRAMS / "bare.sh"), *map(str, arguments)]


def make(name: str) -> Bare:
    return Bare(name)
