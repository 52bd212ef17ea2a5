"""The ways of rolling out, one file each; what they run on the client lies in ``programs/``."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet.boards import Board, Fleet
from benchmarks.fleet.workload import SCENARIOS

PROGRAMS = Path(__file__).resolve().parent.parent / "programs"

_WHERE = {
    "ours": "ours",
    "ours-openssh": "ours",
    "rsync": "rsync",
    "rsync-skip": "rsync",
    "scp": "scp",
    "fabric": "fabric_group",
    "ansible": "ansible_playbook",
    "pyinfra": "pyinfra_deploy",
    "bare": "bare",
}
NAMES = tuple(_WHERE)


@dataclass(frozen=True)
class Site:
    """What a peer is given. ``folder``: a new one, its own. ``out``: where ``<board>/result-*.txt`` go."""

    fleet: Fleet
    release: Path
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"


class Peer(ABC):
    """One way of rolling out."""

    title: str
    scenarios: Sequence[str] = SCENARIOS
    """Those that it takes part in."""
    rolls_out = True
    """False: there is nothing to check afterwards, it only shows what the line alone takes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lacks(self) -> str:
        """What has to be installed before this peer can take part; "" = nothing."""
        return ""

    @abstractmethod
    def prepare(self, site: Site) -> None:
        """Write its configuration, once; not measured."""

    @abstractmethod
    def command(self, site: Site) -> list[str]:
        """The one command that is measured."""

    def environment(self, site: Site) -> Mapping[str, str]:
        """More environment variables for the command."""
        return {}

    def installed(self, board: Board) -> Path:
        """Where the release is on a board."""
        return board.home / "bench" / "release"

    def block(self, board: Board) -> str:
        """What the board's .bashrc says."""
        return (board.home / ".bashrc").read_text()


class Script(Peer):
    """A script for bash in ``programs/``, called with SSH_CONFIG RELEASE OUT BOARDS; BOARDS: a name a line."""

    script: str

    def ssh_options(self, site: Site) -> Sequence[str]:
        """More lines for its SSH_CONFIG."""
        return ()

    def prepare(self, site: Site) -> None:
        site.fleet.write_ssh_config(site.folder / "ssh_config", *self.ssh_options(site))
        (site.folder / "boards").write_text("".join(f"{board.name}\n" for board in site.fleet.boards))

    def command(self, site: Site) -> list[str]:
        arguments = (site.folder / "ssh_config", site.release, site.out, site.folder / "boards")
        return ["bash", str(PROGRAMS / self.script), *map(str, arguments)]


def get(name: str) -> Peer:
    """The peer of that name. Raises KeyError."""
    module = importlib.import_module(f"benchmarks.fleet.peers.{_WHERE[name]}")
    peer: Peer = module.make(name)
    return peer
