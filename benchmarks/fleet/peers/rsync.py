"""OpenSSH and rsync with one multiplexed connection a board, all boards at once, tuned by hand.

``rsync`` runs the program each time, as such scripts do. ``rsync-skip`` runs it when rsync has sent
something: quicker when nothing has, but it takes a release whose program failed, or was never run, for one that is in
order. Both compare files by time and size only, and write without fsync.
"""

from __future__ import annotations

import shutil

from benchmarks.fleet.peers import PROGRAMS, Peer, Site


class Rsync(Peer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.skip = name == "rsync-skip"
        self.title = "rsync + ControlMaster, parallel" + (", skips the run" if self.skip else "")

    def lacks(self) -> str:
        return "" if shutil.which("rsync") else "rsync (apt install rsync)"

    def prepare(self, site: Site) -> None:
        master = ("ControlMaster auto", f"ControlPath {site.fleet.folder}/%C", "ControlPersist 10")
        site.fleet.write_ssh_config(site.folder / "ssh_config", *master)
        (site.folder / "boards").write_text("".join(f"{board.name}\n" for board in site.fleet.boards))

    def command(self, site: Site) -> list[str]:
        arguments = (site.folder / "ssh_config", site.release, site.out, site.folder / "boards")
        return ["bash", str(PROGRAMS / "rsync.sh"), *map(str, arguments), "" if self.skip else "always"]


def make(name: str) -> Rsync:
    return Rsync(name)
