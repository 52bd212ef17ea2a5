"""The programs in docs/simulator.md run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.recipe import CHECKOUT, blocks

PROGRAMS = [block.text for block in blocks((CHECKOUT / "docs" / "simulator.md").read_text()) if block.kind == "python"]


def run(text: str, folder: Path, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "test_example.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *words, "test_example.py"]
    return subprocess.run(
        command, cwd=folder, env=environment, input=said, capture_output=True, text=True, timeout=120, check=False
    )


def test_boards_from_python(tmp_path: Path) -> None:
    (boards,) = [text for text in PROGRAMS if "input(" in text]
    done = run(boards, tmp_path, said="\n")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("ssh -i ")]) == 2


def test_a_program_from_python(tmp_path: Path) -> None:
    (call,) = [text for text in PROGRAMS if "run_command" in text]
    (tmp_path / "program.py").write_text("import acl, sys\nprint(acl.get_soc_name())\nsys.exit(acl.init() + 3)\n")
    done = run(call, tmp_path)
    assert (done.stdout, done.stderr) == ("Ascend310B4\nexit code 3\n", "")


def test_the_fixture(tmp_path: Path) -> None:
    (fixture,) = [text for text in PROGRAMS if "@pytest.fixture" in text]
    done = run(fixture, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
