"""One fleet of simulated boards that the demo was rolled out to, and copies of it to do things to."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.__main__ import run as command
from tests.e2e.conftest import Demo, Deploy, Result, copy_of, environment, first_demo
from toolkit.sim import SimBoard, Simulation

__all__ = ["first_demo"]


def run(home: Path, *arguments: str, json_lines: bool = True) -> Result:
    """``deploy`` with ``arguments``, in this process: a new one takes longer to start than most verbs to run."""
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(home))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command([*arguments, *(["--json"] if json_lines else [])])
    finally:
        os.environ.clear()
        os.environ.update(before)
    events = [json.loads(line) for line in out.getvalue().splitlines()] if json_lines else []
    return Result(code, out.getvalue(), err.getvalue(), events)


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """``deploy(*arguments)`` in a fresh folder."""
    home = tmp_path / "run"
    home.mkdir()
    return lambda *arguments, **options: run(home, *arguments, **options)


BOARDS = ("sim-1", "sim-2", "sim-3")


@dataclass(frozen=True)
class Fleet:
    """A folder with the demo's three boards, as the rollout left them."""

    home: Path

    def deploy(self, *arguments: str, **options: Any) -> Result:
        return run(self.home, *arguments, **options)

    def ask(self, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """What a verb says about each board, by name."""
        done = self.deploy(*arguments)
        assert done.code == code, done.out + done.err
        (result,) = done.of("result")
        return {item["board"]: item for item in result["boards"]}

    def disk(self, board: str) -> Path:
        """A board's home folder."""
        return self.home / ".deploy" / "sim" / board / "home"

    def app(self, board: str) -> Path:
        return self.disk(board) / "HIAI_PROJECTS" / "digits"

    def inventory(self, overrides: dict[str, dict[str, Any]] | None = None) -> str:
        """The same three boards as an inventory, with overrides for some; its name."""
        boards = {name: {"overrides": (overrides or {}).get(name, {})} for name in BOARDS}
        folder = self.home / "inventory"
        folder.mkdir(exist_ok=True)
        (folder / "ops.yaml").write_text(json.dumps({"defaults": {"profile": "200dk"}, "boards": boards}))
        return "inventory=ops"


@pytest.fixture(scope="session")
def fleet(first_demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """To look at: tests that use it leave the boards as they are."""
    return Fleet(copy_of(first_demo, tmp_path_factory.mktemp("fleet") / "run").home)


@pytest.fixture
def own_fleet(first_demo: Demo, tmp_path: Path) -> Fleet:
    """To do things to."""
    return Fleet(copy_of(first_demo, tmp_path / "run").home)


@dataclass(frozen=True)
class Live:
    """Boards at addresses of their own, as strangers are: nothing of this program knows that they are simulated."""

    home: Path
    simulation: Simulation

    def inventory(self, *, profile: str = "200dk", pinned: bool = False, **overrides: Any) -> None:
        """Write inventory/live.yaml; ``overrides`` hold for all boards."""
        boards = {}
        for place in self.simulation.addresses:
            boards[place.name] = {
                "host": place.host,
                "port": place.port,
                "user": place.user,
                "key_file": str(place.key_file),
                **({"host_key": place.host_key} if pinned else {}),
                "overrides": overrides,
            }
        folder = self.home / "inventory"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "live.yaml").write_text(json.dumps({"defaults": {"profile": profile}, "boards": boards}))

    @property
    def known_hosts(self) -> Path:
        return self.home / "known_hosts"

    def deploy(self, *arguments: str, **options: Any) -> Result:
        return run(self.home, *arguments, f"ssh.known_hosts=[{self.known_hosts}]", "ssh.config=''", **options)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """``live(board, …)`` starts boards; they end with the test."""
    running: list[Simulation] = []

    def start(*boards: SimBoard) -> Live:
        home = tmp_path / "live"
        home.mkdir(exist_ok=True)
        simulation = Simulation(boards, tmp_path / "boards")
        simulation.start()
        running.append(simulation)
        return Live(home, simulation)

    yield start
    for simulation in running:
        simulation.stop()
