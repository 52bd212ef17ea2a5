"""Every recipe, as it is written, against simulated boards: the files, the commands, and what they print."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.recipe import CHECKOUT, RECIPES, Block, blocks, commands, marked, missing_line
from tests.e2e.conftest import environment
from tests.interpreters import venv_with


def start(recipe: str, folder: Path, trained: Path | None) -> dict[str, str]:
    """Make the folder that ``recipe`` begins in; return the environment of its commands.

    ``deploy`` and ``python`` are this checkout's, or those of a copy of it that the folder is; what a run writes goes
    into the folder, as without DEPLOY_HOME.
    """
    clone = marked(recipe, "in") == ["a", "clone"]
    for part in ("conf", "inventory", "stages", "toolkit") if clone else ():
        shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    programs = folder / ".programs"
    programs.mkdir()
    for name, words in {"deploy": "-m stages", "python": ""}.items():
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    requirements = marked(recipe, "needs")
    if requirements:
        # The whole folder on PATH would bring another python3 with it.
        for program in venv_with("3.11", *requirements).parent.glob("ansible*"):
            (programs / program.name).symlink_to(program)
    if trained is not None:
        for part in ("artefacts", "records"):
            shutil.copytree(trained / ".deploy" / part, folder / ".deploy" / part)
    variables = environment(folder)
    del variables["DEPLOY_HOME"]
    return {
        **variables,
        "PATH": os.pathsep.join([str(programs), variables["PATH"]]),
        "PYTHONPATH": str(folder if clone else CHECKOUT),
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "200",
    }


def write(block: Block, folder: Path) -> None:
    """Write the file that a block is; nowhere but below ``folder``."""
    path = folder / block.file
    assert path.resolve().is_relative_to(folder.resolve()), block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def type_in(typed: str, folder: Path, variables: dict[str, str]) -> str:
    """What ``typed`` prints, errors included. It has to end with 0: a recipe shows another code with echo."""
    done = subprocess.run(
        ["bash", "-c", typed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=variables,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{typed}\n{done.stdout}"
    return done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_works_as_written(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    recipe = path.read_text("utf-8")
    parts = blocks(recipe)
    trained = request.getfixturevalue("first_demo").home if marked(recipe, "starts from") == ["demo"] else None
    folder = tmp_path / "recipe"
    folder.mkdir()
    variables = start(recipe, folder, trained)
    ran: list[str] = []
    for part in parts:
        if part.file:
            write(part, folder)
        elif part.kind == "console":
            for command in commands(part):
                printed = type_in(command.typed, folder, variables)
                missing = missing_line(printed, command.printed)
                assert missing is None, f"{path.name}:{command.line}: {missing}\n$ {command.typed}\n{printed}"
                ran.append(command.typed)
    assert len(ran) >= 2
    for name in (".github/workflows/boards.yml", ".gitlab-ci.yml"):
        if (folder / name).exists():
            done = {line.split("; echo")[0] for line in ran}
            assert set(steps(folder / name)) <= done, "a CI does what the recipe showed to work"


def steps(workflow: Path) -> list[str]:
    """The ``deploy`` lines of a CI's file."""
    (job,) = [value for value in jobs(yaml.safe_load(workflow.read_text())) if isinstance(value, dict)]
    lines = job.get("script") or [step["run"] for step in job["steps"] if "run" in step]
    found = [line for line in lines if line.startswith("deploy ")]
    assert len(found) == 2
    return found


def jobs(content: dict[str, object]) -> list[object]:
    """The jobs of GitHub's file (below ``jobs``) or GitLab's (the file itself)."""
    below = content.get("jobs", content)
    assert isinstance(below, dict)
    return list(below.values())
