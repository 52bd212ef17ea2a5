"""One call of ``deploy``: what was asked for, composed; and how to compose variants of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The front end takes its flags from here, and --version should not wait for what only deploying needs.
    from omegaconf import DictConfig

    from toolkit.config.schema import Config
    from toolkit.ui.console import Renderer


def split_boards(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """What Hydra can compose, and what it can't yet: ``board.…=`` where no profile is chosen by ``+board=``."""
    from toolkit.artefacts.lock import key_of

    if any(key_of(item) == "board" for item in overrides):
        return list(overrides), []
    ours = [item for item in overrides if key_of(item).startswith("board.")]
    return [item for item in overrides if item not in ours], ours


# What says which boards a call means, and how to get to them and to what is theirs.
_CHOOSING = ("board", "inventory", "hosts", "simulate", "app", "experiment", "ssh")


def selection(invocation: Invocation, boards: Sequence[str] | None = None) -> str:
    """The words that chose the boards of the call, as a shell takes them; ``boards`` of them, by name."""
    from toolkit.artefacts.lock import key_of

    words = [item for item in invocation.overrides if key_of(item).split(".")[0] in _CHOOSING]
    if boards is not None and invocation.config.inventory is not None:
        words = [item for item in words if key_of(item) != "hosts"] + [f"hosts={','.join(boards)}"]
    return shlex.join([*_config_dir(), *map(_unquoted, words)])


def command_for(invocation: Invocation, verb: str, boards: Sequence[str] | None = None) -> str:
    """What to type for ``verb`` with these boards of the call: what chose them, and nothing else."""
    return f"deploy {verb} {selection(invocation, boards)}".rstrip()


def again(invocation: Invocation, verb: str, *more: str) -> str:
    """What to type for ``verb`` with all that was typed now."""
    from toolkit.artefacts.lock import key_of

    kept = [item for item in invocation.overrides if key_of(item) not in ("plan", "out")]
    return shlex.join(["deploy", verb, *_config_dir(), *map(_unquoted, kept), *more])


def _config_dir() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [word for source in sources if source.provider == "command-line" for word in ("--config-dir", source.path)]


def _unquoted(override: str) -> str:
    """Without the quotes that the front end adds, and adds again."""
    return re.sub(r"^(\+?[\w.]+=)'([^'\\]*)'$", r"\1\2", override)


@dataclass(frozen=True)
class Flags:
    """The front end's own flags."""

    yes: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False
    detailed_exitcode: bool = False
    until_done: bool = False
    attach: bool = False
    receipts: bool = False


@dataclass(frozen=True)
class Invocation:
    """What a verb gets.

    composed: Hydra's config as it is. config: the same, typed. overrides: what was typed. compose: composes again
    with other overrides (for the profiles of an inventory). of_boards: those of ``overrides`` that set ``board.…``
    for all boards of an inventory, each of which brings a profile of its own; ``compose`` needs them again. rest:
    words behind the verb, and everything after ``--``. results: filled by a stage's verb with what was made:
    stage, artefact (its digest), path, notes, seconds. build_hosts: the machines that ``convert.host`` of some target
    names, composed once for all targets.
    """

    verb: str
    composed: DictConfig
    config: Config
    overrides: Sequence[str]
    flags: Flags
    renderer: Renderer
    compose: Callable[[Sequence[str]], DictConfig]
    of_boards: Sequence[str] = ()
    words: Sequence[str] = field(default=())
    rest: Sequence[str] = field(default=())
    results: list[Mapping[str, Any]] = field(default_factory=list)
    build_hosts: dict[str, Any] = field(default_factory=dict)
