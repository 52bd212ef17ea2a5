"""Entries of an OpenSSH client's configuration as boards: ``inventory=ssh:PATTERN``.

Read as ssh_config(5) says: for each keyword the first value that applies counts, ``Include`` is followed,
``Host`` patterns may be negated. ``Match`` blocks other than ``Match all`` depend on more than the name and
are passed over here; the connection itself looks up the whole file again, by the entry's name.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigError
from toolkit.inventory.draft import Draft, Layer
from toolkit.inventory.nodes import mark_in, near, scalar

_MAX_INCLUDES = 16


@dataclass(frozen=True)
class _Line:
    keyword: str  # in lower case
    words: tuple[str, ...]
    mark: Any
    hosts: tuple[str, ...] | None  # patterns of the block it stands in; None: it never applies


def read_ssh(pattern: str, config: str) -> list[Draft]:
    """Return one draft for each name in a ``Host`` line of the file ``config`` that matches the glob
    ``pattern``.

    Names that are patterns themselves are none. :raises ConfigError: no file, or no such entry.
    """
    path = Path(config).expanduser()
    if not path.is_file():
        raise ConfigError(f"inventory=ssh:{pattern}: there is no {config}")
    lines = _lines(path, ("*",), 0)
    names: dict[str, Any] = {}
    for line in lines:
        if line.keyword == "host":
            for word in line.words:
                if not re.search(r"[*?!]", word):
                    names.setdefault(word, line.mark)
    chosen = {name: mark for name, mark in names.items() if fnmatchcase(name, pattern)}
    if not chosen:
        hint = near(pattern, list(names)).removeprefix("; ") or f"it names {len(names)} hosts"
        raise ConfigError(f"inventory=ssh:{pattern}: no Host of {config} matches", hint=hint)
    return [_draft(name, mark, lines) for name, mark in chosen.items()]


def _draft(name: str, mark: Any, lines: list[_Line]) -> Draft:
    found: dict[str, _Line] = {}
    for line in lines:
        if line.keyword != "host" and line.hosts is not None and _applies(name, line.hosts):
            found.setdefault(line.keyword, line)
    layer = Layer()
    # Not the HostName: the connection looks the name up itself, with all that the file says about it.
    layer.fields["host"] = scalar(name, mark)
    for keyword, fieldname in (("port", "port"), ("user", "user"), ("identityfile", "key_file")):
        # An IdentityFile with tokens (%d, %r, …) is left to the connection.
        if keyword in found and found[keyword].words and "%" not in found[keyword].words[0]:
            layer.fields[fieldname] = scalar(found[keyword].words[0], found[keyword].mark)
    real = found["hostname"].words[0] if "hostname" in found and found["hostname"].words else name
    jump = " ".join(found["proxyjump"].words) if "proxyjump" in found else ""
    return Draft(name, scalar(name, mark), layer=layer, address=f"{jump} {real.replace('%h', name)}")


def _applies(name: str, patterns: tuple[str, ...]) -> bool:
    if any(item.startswith("!") and fnmatchcase(name, item[1:]) for item in patterns):
        return False
    return any(not item.startswith("!") and fnmatchcase(name, item) for item in patterns)


def _lines(path: Path, hosts: tuple[str, ...] | None, depth: int) -> list[_Line]:
    """All lines of a file and of what it includes, each with the block it stands in."""
    if depth > _MAX_INCLUDES:
        raise ConfigError(f"{path}: more than {_MAX_INCLUDES} files include each other")
    found: list[_Line] = []
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    for number, raw in enumerate(text.splitlines()):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = re.match(r"(\w+)(?:\s*=\s*|\s+)(.*)", line)
        if match is None:
            continue
        mark = mark_in(str(path), number)
        keyword, words = match[1].lower(), _words(match[2])
        if keyword == "include":
            for item in words:
                # Relative names are meant in ~/.ssh, or beside a file that is given by hand.
                full = os.path.expanduser(item)
                full = full if os.path.isabs(full) else str(path.parent / full)
                for included in sorted(glob.glob(full)):
                    found += _lines(Path(included), hosts, depth + 1)
            continue
        if keyword == "host":
            hosts = words
        elif keyword == "match":
            hosts = ("*",) if words == ("all",) else None
            continue
        found.append(_Line(keyword, words, mark, hosts))
    return found


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text, comments=True))
    except ValueError:
        return tuple(text.split())
