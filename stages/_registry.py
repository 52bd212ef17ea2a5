"""Finds the stages and the verbs: a new one is a new file. A board stage takes its place in ``BOARD_ORDER``, too."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import stages
import stages.commands

if TYPE_CHECKING:
    # The front end needs names only: --version and Hydra's own flags should not wait for what talks to boards.
    from toolkit.fleet.job import Session
    from toolkit.pipeline import Stage

# Board stages run in this order on each board; build stages follow from what they need.
BOARD_ORDER = ("push", "env", "infer", "fetch", "verify")


@cache
def modules() -> Mapping[str, ModuleType]:
    """Every stage's module by name."""
    found = {}
    for info in pkgutil.iter_modules(stages.__path__):
        if not info.name.startswith("_") and not info.ispkg:
            found[info.name] = importlib.import_module(f"stages.{info.name}")
    return found


def build_stages() -> Mapping[str, Stage]:
    """The stages that run once per distinct target."""
    return {name: cast("Stage", module) for name, module in modules().items() if hasattr(module, "VERSION")}


def board_stages(last: str = BOARD_ORDER[-1]) -> list[tuple[str, Callable[[Session], None]]]:
    """The stages that run on each board, in order, up to ``last``."""
    return [(name, modules()[name].run) for name in BOARD_ORDER[: BOARD_ORDER.index(last) + 1]]


def stage_names() -> list[str]:
    """All stages by name, without importing them."""
    return sorted(
        info.name
        for info in pkgutil.iter_modules(stages.__path__)
        if not info.name.startswith("_") and not info.ispkg
    )


def verb_names() -> list[str]:
    """All verbs by name, without importing them."""
    return sorted(info.name for info in pkgutil.iter_modules(stages.commands.__path__))


def help_of(name: str) -> tuple[str, str]:
    """A verb's or stage's ``HELP`` and its docstring. Read, not imported: all that they need takes half a second."""
    package = stages.commands if name in verb_names() else stages
    tree = ast.parse((Path(package.__path__[0]) / f"{name}.py").read_bytes())
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name("HELP")], value=ast.Constant(str(line))):
                return line, ast.get_docstring(tree, clean=False) or ""
    module = importlib.import_module(f"{package.__name__}.{name}")  # where it is put together
    return module.HELP, module.__doc__ or ""


def verb(name: str) -> ModuleType:
    """A verb's module: ``HELP`` (first line for the list of verbs) and ``run(invocation) -> exit code``."""
    return importlib.import_module(f"stages.commands.{name}")
