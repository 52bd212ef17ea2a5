"""Ansible's INI inventories: ``[group]``, ``[group:children]``, ``[group:vars]``, ``host key=value``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from toolkit.inventory.ansible import Tree, Variables, drafts, expand
from toolkit.inventory.draft import Draft
from toolkit.inventory.nodes import Problems, mark_in, scalar

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(children|vars|hosts))?\]\s*(?:[#;].*)?\Z")


def read_ini(text: str, name: str, problems: Problems, folder: Path | None) -> list[Draft]:
    """Return the machines of a file; ``name`` stands in messages, ``folder`` may hold group_vars/."""
    tree = Tree()
    group, part = tree.group("ungrouped"), "hosts"
    for number, raw in enumerate(text.splitlines()):
        line = raw.strip()
        mark: Any = mark_in(name, number)
        if not line or line[0] in "#;":
            continue
        section = _SECTION.match(line)
        if section:
            group, part = tree.group(section[1]), section[2] or "hosts"
        elif part == "children":
            child = line.split("#", 1)[0].strip()
            group.children[child] = scalar(child, mark)
        elif part == "vars":
            key, equals, value = line.partition("=")
            if not equals:
                problems.at(scalar("", mark), f"{line!r} is not key=value")
            else:
                group.variables[key.strip()] = (
                    scalar(key.strip(), mark),
                    scalar(_unquote(value.strip()), mark),
                )
        else:
            _host(line, mark, tree, group, problems)
    return drafts(tree, problems, folder)


def _host(line: str, mark: Any, tree: Tree, group: Any, problems: Problems) -> None:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        problems.at(scalar("", mark), f"cannot be read: {str(error).lower()}")
        return
    if line.startswith("[") and ":" not in line.split("]", 1)[0]:
        problems.at(scalar("", mark), f"{line} is not a section such as [cameras] or [cameras:vars]")
        return
    node = scalar(words[0], mark)
    variables: Variables = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            problems.at(node, f"{words[0]}: {word!r} is not key=value")
        else:
            variables[key] = scalar(key, mark), scalar(value, mark)
    # A port after the name, but not the last part of an IPv6 address.
    port = re.fullmatch(r"([^:\[\]]+(?:\[[^\]]*\][^:\[\]]*)*):(\d+)", words[0])
    if port:
        variables.setdefault("ansible_port", (node, scalar(port[2], mark)))
    for host in expand(port[1] if port else words[0], node, problems):
        tree.host(host, node, group, dict(variables))


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" else text
