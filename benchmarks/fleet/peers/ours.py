"""This project: its own jobs, stages, engine, journal and receipts, over Fabric or over the system's ssh."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.fleet.boards import CHECKOUT, USER, Board
from benchmarks.fleet.peers import PROGRAMS, Peer, Site


class Ours(Peer):
    title = "ascend-deploy"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.client = "openssh" if name == "ours-openssh" else "fabric"
        self.title = f"ascend-deploy ({self.client})"

    def prepare(self, site: Site) -> None:
        config = site.fleet.write_ssh_config(site.folder / "ssh_config")
        spec = {
            "boards": [{"name": board.name, "host": board.host} for board in site.fleet.boards],
            "user": USER,
            "key": str(site.fleet.key),
            "known_hosts": str(site.fleet.known_hosts),
            "ssh_config": str(config) if self.client == "openssh" else "",
            "client": self.client,
            "release": str(site.release),
            "out": str(site.out),
            "runs": str(site.folder / "runs"),
        }
        (site.folder / "spec.json").write_text(json.dumps(spec))

    def command(self, site: Site) -> list[str]:
        return [sys.executable, str(PROGRAMS / "ours.py"), str(site.folder / "spec.json")]

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"PYTHONPATH": str(CHECKOUT), "DEPLOY_HOME": str(site.folder / "home")}

    def installed(self, board: Board) -> Path:
        return board.home / "HIAI_PROJECTS" / "bench" / "current"


def make(name: str) -> Ours:
    return Ours(name)
