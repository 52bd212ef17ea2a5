"""ssh and scp, board after board, as by hand: everything is sent each time."""

from __future__ import annotations

from benchmarks.fleet.peers import PROGRAMS, Peer, Site


class Scp(Peer):
    title = "scp, board after board"

    def prepare(self, site: Site) -> None:
        site.fleet.write_ssh_config(site.folder / "ssh_config")
        (site.folder / "boards").write_text("".join(f"{board.name}\n" for board in site.fleet.boards))

    def command(self, site: Site) -> list[str]:
        arguments = (site.folder / "ssh_config", site.release, site.out, site.folder / "boards")
        return ["bash", str(PROGRAMS / "scp.sh"), *map(str, arguments)]


def make(name: str) -> Scp:
    return Scp(name)
