"""Fabric's ThreadingGroup as a careful user writes it: two archives, each sent when its digest differs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from benchmarks.fleet import venv
from benchmarks.fleet.boards import USER
from benchmarks.fleet.peers import PROGRAMS, Peer, Site


class FabricGroup(Peer):
    title = "Fabric ThreadingGroup"

    def lacks(self) -> str:
        return "" if venv.program("fab").exists() else "fabric (made by the script itself, unless --no-install)"

    def prepare(self, site: Site) -> None:
        spec = {
            "hosts": {board.host: board.name for board in site.fleet.boards},
            "user": USER,
            "key": str(site.fleet.key),
            "known_hosts": str(site.fleet.known_hosts),
            "release": str(site.release),
            "out": str(site.out),
            "scratch": str(site.folder),
        }
        (site.folder / "spec.json").write_text(json.dumps(spec))

    def command(self, site: Site) -> list[str]:
        program = PROGRAMS / "fabric_group.py"
        return [str(venv.program("python")), "-P", str(program), str(site.folder / "spec.json")]

    def environment(self, site: Site) -> Mapping[str, str]:
        return {}


def make(name: str) -> FabricGroup:
    return FabricGroup(name)
