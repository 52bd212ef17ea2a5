"""The command line as a user runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Result:
    """How a command ended. ``events`` are its JSON lines, when --json was given."""

    code: int
    out: str
    err: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """The events of one kind whose fields are as wanted."""
        return [e for e in self.events if e["event"] == kind and all(e.get(k) == v for k, v in wanted.items())]

    @property
    def boards(self) -> dict[str, dict[str, Any]]:
        """The outcomes by board."""
        (result,) = self.of("result")
        return {item["board"]: item for item in result["boards"]}

    @property
    def ran(self) -> list[str]:
        """The build stages that ran."""
        return [event["stage"] for event in self.of("done")]


Deploy = Callable[..., Result]


def environment(home: Path) -> dict[str, str]:
    """A user's environment without what this test run set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "DEPLOY_"))}
    return {**kept, "DEPLOY_HOME": str(home), "ONEDNN_MAX_CPU_ISA": "AVX2"}


def run(home: Path, *arguments: str, json_lines: bool = True, cwd: Path | None = None, **extra: str) -> Result:
    """Run ``deploy`` with ``arguments``; what it writes goes below ``home``."""
    flags = ["--json"] if json_lines else []
    done = subprocess.run(
        [sys.executable, "-m", "stages", *arguments, *flags],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=cwd,
        env={**environment(home), **extra},
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()] if json_lines else []
    return Result(done.returncode, done.stdout, done.stderr, events)


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """``deploy(*arguments)`` in a fresh folder."""
    home = tmp_path / "run"
    home.mkdir()
    return lambda *arguments, **options: run(home, *arguments, **options)


@dataclass(frozen=True)
class Demo:
    """A folder in which the demo ran once."""

    home: Path
    first: Result

    def deploy(self, *arguments: str, **options: Any) -> Result:
        return run(self.home, *arguments, **options)

    def artefact(self, stage: str) -> Path:
        """What ``stage`` made in the first run."""
        records = [json.loads(path.read_text()) for path in (self.home / ".deploy/records" / stage).iterdir()]
        first = min(records, key=lambda record: float(record["time"]))
        return self.home / ".deploy" / "artefacts" / str(first["digest"])

    @property
    def run_folder(self) -> Path:
        """The first run's folder."""
        return min((self.home / "runs").iterdir())


@pytest.fixture(scope="session")
def first_demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """``deploy +board=sim``, just so: the real training, three boards. To look at only."""
    return once("demo", tmp_path_factory, lambda home: run(home, "+board=sim"))


def once(name: str, folders: pytest.TempPathFactory, work: Callable[[Path], Result]) -> Demo:
    """What ``work`` leaves in a folder, done once for all tests, also where several processes run them."""
    shared = folders.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    home, result = shared / f"once-{name}", shared / f"once-{name}.json"
    with (shared / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            home.mkdir()
            result.write_text(json.dumps(asdict(work(home))))
    return Demo(home, Result(**json.loads(result.read_text())))


def copy_of(demo: Demo, home: Path) -> Demo:
    """A demo's folder as it was left. With its hard links: releases and blobs on boards share their files."""
    subprocess.run(["cp", "-a", str(demo.home), str(home)], check=True)
    return Demo(home, demo.first)


@pytest.fixture
def demo(first_demo: Demo, tmp_path: Path) -> Demo:
    """A folder in which the demo ran once, to do things in."""
    return copy_of(first_demo, tmp_path / "demo")
