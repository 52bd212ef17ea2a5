"""OpenSSH and rsync with one multiplexed connection a board, all boards at once, tuned by hand.

``rsync`` runs the program each time, as such scripts do. ``rsync-skip`` runs it when rsync has sent
something: quicker when nothing has, but it takes a release whose program failed, or was never run, for one that is in
order. Both compare files by time and size only, and write without fsync.
"""

from __future__ import annotations

import shutil

from benchmarks.fleet.peers import Script, Site


class Rsync(Script):
    script = "rsync.sh"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.skip = name == "rsync-skip"
        self.title = "rsync + ControlMaster, parallel" + (", skips the run" if self.skip else "")

    def lacks(self) -> str:
        return "" if shutil.which("rsync") else "rsync (apt install rsync)"

    def ssh_options(self, site: Site) -> list[str]:
        return ["ControlMaster auto", f"ControlPath {site.fleet.folder}/%C", "ControlPersist 10"]

    def command(self, site: Site) -> list[str]:
        return [*super().command(site), "" if self.skip else "always"]


def make(name: str) -> Rsync:
    return Rsync(name)
