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


def get(name: str) -> Peer:
    """The peer of that name. Raises KeyError."""
    module = importlib.import_module(f"benchmarks.fleet.peers.{_WHERE[name]}")
    peer: Peer = module.make(name)
    return peer
