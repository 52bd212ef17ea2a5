"""Find an inventory by name, path or ``ssh:PATTERN``, tell its form, and read it."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from yaml.nodes import Node

from toolkit.errors import ConfigError
from toolkit.inventory import ansible, native
from toolkit.inventory import ssh_config as ssh_config_file
from toolkit.inventory.ansible_ini import read_ini
from toolkit.inventory.board import Board
from toolkit.inventory.checks import Wrong, finish
from toolkit.inventory.draft import Draft
from toolkit.inventory.nodes import Problems, compose, near
from toolkit.inventory.program import read_printed, read_program

_YAML = (".yaml", ".yml", ".json")
_SUFFIXES = (*_YAML, ".ini", ".py", ".sh", "")


def load(
    spec: str,
    folders: Sequence[Path],
    profiles: Collection[str],
    default_profile: str = "",
    *,
    ssh_config: str = "~/.ssh/config",
    limit: float = 60,
    addresses: Mapping[str, str] | None = None,
    wrong: Wrong = lambda key, value: "",
) -> list[Board]:
    """Return the machines of an inventory in its order, boards before build hosts.

    ``spec`` is a path, a name to look for in ``folders``, or ``ssh:PATTERN`` for entries of the file
    ``ssh_config``. ``profiles`` are the board profiles there are; ``default_profile`` is for boards that name
    none. ``limit`` is how long a program that prints the inventory may take, in seconds. ``addresses`` are
    the profiles' default addresses, where they matter. ``wrong(key, value)`` says what is wrong with an
    override's value, "" where nothing is.

    :raises ConfigError: it cannot be found or read, or anything in it is wrong: ``problems`` lists all of it,
        each with file and line.
    """
    problems = Problems()
    with _no_collection():
        drafts = _read(spec, folders, ssh_config, limit, problems)
        boards = finish(drafts, profiles, default_profile, problems, addresses or {}, wrong)
    problems.raise_if_any(spec)
    return boards


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cycle collector.

    A big inventory is hundreds of thousands of live nodes, which it would walk again and again for nothing:
    it doubles the time for ten thousand boards.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(
    spec: str, folders: Sequence[Path], ssh_config: str, limit: float, problems: Problems
) -> list[Draft]:
    if spec.startswith("ssh:"):
        return ssh_config_file.read_ssh(spec.removeprefix("ssh:"), ssh_config)
    path = _find(spec, folders)
    shown = _shown(path)
    if path.suffix == ".json":
        # Read as YAML, which it nearly always is, for the sake of lines in messages.
        with contextlib.suppress(ConfigError):
            return _document(compose(_bytes(path, shown), shown), path, problems)
        return read_printed(_text(path, shown), shown, problems, path.parent)
    if path.suffix in _YAML:
        return _document(compose(_bytes(path, shown), shown), path, problems)
    if os.access(path, os.X_OK):
        return read_program(path, shown, limit, problems)
    return read_ini(_text(path, shown), shown, problems, path.parent)


def _document(root: Node | None, path: Path, problems: Problems) -> list[Draft]:
    if root is not None and ansible.is_ansible(root):
        return ansible.read_yaml(root, problems, path.parent)
    return native.read(root, problems)


def _text(path: Path, shown: str) -> str:
    return _bytes(path, shown).decode("utf-8-sig", "replace")


def _find(spec: str, folders: Sequence[Path]) -> Path:
    """The file that ``spec`` names."""
    direct = Path(spec).expanduser()
    # A bare word is a name; anything with a slash or a suffix may be a path.
    candidates = [direct] if "/" in spec or os.sep in spec or direct.suffix else []
    candidates += [folder / f"{spec}{suffix}" for folder in folders for suffix in _SUFFIXES]
    for path in candidates:
        if path.is_file():
            return path
    for path in candidates:
        if path.is_dir():
            raise ConfigError(f"inventory={spec} is a folder", hint="name one file in it")
    present = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    names = sorted({path.stem for path in present if path.is_file()})
    where = ", ".join(_shown(folder) for folder in folders) or "no folder"
    hint = near(spec, names).removeprefix("; ") or f"there are: {', '.join(names) or 'none'} in {where}"
    message = f"inventory={spec}: there is no such file"
    raise ConfigError(message, hint=hint, problems=[message])


def _bytes(path: Path, shown: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from None


def _shown(path: Path) -> str:
    """``path`` as short as it can be said."""
    try:
        short = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return str(path) if short.startswith("..") else short
