"""Ansible's inventories: YAML, INI (:mod:`toolkit.inventory.ansible_ini`), and what dynamic ones print.

Of Ansible's variables the ones about reaching a host count (``ansible_host``, ``ansible_port``,
``ansible_user``, ``ansible_ssh_private_key_file``, a ProxyJump in ``ansible_ssh_common_args``); everything
else of ours is a variable ``deploy_profile``, ``deploy_labels``, ``deploy_overrides``, ``deploy_password``,
``deploy_host_key``, ``deploy_jump`` or ``deploy_kind``. Groups become labels. As in Ansible, a variable of a
child group wins over its parent's, a host's over any group's, and ``group_vars/`` and ``host_vars/`` beside
the file are read. Hosts that Ansible does not reach by SSH (``ansible_connection``) are left out. Templates
(``{{ … }}``) are not evaluated, but for a password's ``lookup('env', NAME)``. Source: Ansible's
documentation, "How to build your inventory".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from toolkit.errors import ConfigError
from toolkit.inventory.draft import Draft, Layer, read_labels, read_overrides
from toolkit.inventory.nodes import (
    Problems,
    compose,
    from_data,
    is_null,
    items,
    mapping,
    mark_in,
    near,
    plain,
    scalar,
    sequence,
    text_of,
)

Variables = dict[str, tuple[Node, Node]]

_PARTS = ("hosts", "children", "vars")
_NO_LABEL = ("all", "ungrouped")
_SSH = ("", "ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh")
_NAMES = {
    "host": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "key_file": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    "password": ("deploy_password", "ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
    "profile": ("deploy_profile",),
    "host_key": ("deploy_host_key",),
    "jump": ("deploy_jump",),
}
_OURS = ("profile", "labels", "overrides", "password", "host_key", "jump", "kind")
_ARGUMENTS = ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args")
_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")
_LOOKUP = re.compile(
    r"""\{\{\s*lookup\(\s*['"](?:ansible\.builtin\.)?env['"]\s*,\s*['"](\w+)['"]\s*\)\s*\}\}\Z"""
)
_MAX_HOSTS = 100_000


@dataclass
class Group:
    """A group: ``children`` by name with the node that names them; ``hosts`` are names."""

    hosts: dict[str, Node] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)
    variables: Variables = field(default_factory=dict)


@dataclass
class Tree:
    """A whole inventory before anything is merged."""

    groups: dict[str, Group] = field(default_factory=dict)
    hosts: dict[str, Node] = field(default_factory=dict)
    variables: dict[str, Variables] = field(default_factory=dict)  # of hosts

    def group(self, name: str) -> Group:
        """Return the group ``name``, made if there is none."""
        return self.groups.setdefault(name, Group())

    def host(self, name: str, node: Node, group: Group, variables: Variables) -> None:
        """Add a host to ``group``; it may be named in several groups."""
        self.hosts.setdefault(name, node)
        group.hosts.setdefault(name, node)
        self.variables.setdefault(name, {}).update(variables)


def is_ansible(root: Node | None) -> bool:
    """Does a YAML document have Ansible's form: groups with ``hosts``, ``children`` or ``vars``?"""
    if not isinstance(root, MappingNode) or not root.value:
        return False
    found = False
    for key, value in root.value:
        if text_of(key) == "boards" or not (is_null(value) or isinstance(value, MappingNode)):
            return False
        if isinstance(value, MappingNode):
            if any(text_of(part) not in _PARTS for part, _ in value.value):
                return False
            found = found or bool(value.value)
    return found


def read_yaml(root: Node, problems: Problems, folder: Path | None) -> list[Draft]:
    """Return the machines of a YAML inventory; ``folder`` may hold group_vars/ and host_vars/."""
    tree = Tree()
    for name, (_, value) in mapping(root, problems, "an inventory").items():
        _read_group(name, value, tree, problems, 0)
    return drafts(tree, problems, folder)


def _read_group(name: str, node: Node, tree: Tree, problems: Problems, depth: int) -> None:
    group = tree.group(name)
    if depth > 32:
        problems.at(node, f"group {name}: nested too deeply")
        return
    for part, (key, value) in mapping(node, problems, f"group {name}").items():
        if part == "hosts":
            for host, variables in items(value, problems, f"hosts of {name}"):
                for single in expand(text_of(host), host, problems):
                    tree.host(single, host, group, mapping(variables, problems, f"host {single}"))
        elif part == "children":
            for child, (child_key, child_node) in mapping(value, problems, f"children of {name}").items():
                group.children[child] = child_key
                _read_group(child, child_node, tree, problems, depth + 1)
        elif part == "vars":
            group.variables.update(mapping(value, problems, f"vars of {name}"))
        else:
            problems.at(key, f"group {name} has no {part}{near(part, list(_PARTS))}")


def read_dynamic(root: Node, problems: Problems, folder: Path | None) -> list[Draft]:
    """Return the machines that a dynamic inventory printed: groups, and variables in ``_meta.hostvars``."""
    tree = Tree()
    found = mapping(root, problems, "a dynamic inventory")
    for name, (_, value) in found.items():
        if name == "_meta":
            continue
        group = tree.group(name)
        # Old programs print a bare list of hosts for a group.
        parts = (
            {"hosts": (value, value)} if isinstance(value, SequenceNode) else mapping(value, problems, name)
        )
        for part, (key, part_node) in parts.items():
            if part == "hosts":
                for node in sequence(part_node, problems, f"hosts of {name}"):
                    tree.host(text_of(node), node, group, {})
            elif part == "children":
                for node in sequence(part_node, problems, f"children of {name}"):
                    group.children[text_of(node)] = node
            elif part == "vars":
                group.variables.update(mapping(part_node, problems, f"vars of {name}"))
            else:
                problems.at(key, f"group {name} has no {part}{near(part, list(_PARTS))}")
    if "_meta" in found:
        meta = mapping(found["_meta"][1], problems, "_meta")
        if "hostvars" in meta:
            for host, (_, variables) in mapping(meta["hostvars"][1], problems, "hostvars").items():
                if host in tree.hosts:
                    tree.variables[host].update(mapping(variables, problems, f"hostvars of {host}"))
    return drafts(tree, problems, folder)


def drafts(tree: Tree, problems: Problems, folder: Path | None) -> list[Draft]:
    """Merge each host's variables and make a draft of it."""
    for name in list(tree.groups):
        for child, node in list(tree.groups[name].children.items()):
            if child not in tree.groups:
                problems.at(node, f"there is no group {child}{near(child, list(tree.groups))}")
                del tree.groups[name].children[child]
    parents: dict[str, list[str]] = {name: [] for name in tree.groups}
    for name, group in tree.groups.items():
        for child in group.children:
            parents[child].append(name)
    lines = {name: _ancestors(name, parents) for name in tree.groups}
    for name, above in lines.items():
        if name in above:
            node = next(iter(tree.groups[name].children.values()))
            problems.at(node, f"group {name} is its own descendant")
            return []
    for name, group in tree.groups.items():
        group.variables.update(_beside(folder, "group_vars", name, problems))
    tree.group("all").variables.update(_beside(folder, "group_vars", "all", problems))
    everything = tree.group("all").variables
    members: dict[str, set[str]] = {host: set() for host in tree.hosts}
    for name, group in tree.groups.items():
        for host in group.hosts:
            members[host] |= {name, *lines[name]}
    found = []
    for host, node in tree.hosts.items():
        mine = sorted(
            members[host] - {"all"}, key=lambda name: (len(lines[name]), _priority(tree, name), name)
        )
        variables = dict(everything)
        for name in mine:
            variables.update(tree.groups[name].variables)
        variables.update(tree.variables[host])
        variables.update(_beside(folder, "host_vars", host, problems))
        draft = _draft(host, node, variables, [name for name in mine if name not in _NO_LABEL], problems)
        if draft is not None:
            found.append(draft)
    return found


def _ancestors(name: str, parents: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(parents[name])
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting.extend(parents[parent])
    return found


def _priority(tree: Tree, name: str) -> int:
    given = tree.groups[name].variables.get("ansible_group_priority")
    text = text_of(given[1]) if given else ""
    return int(text) if text.isdigit() else 1


def _draft(
    name: str, node: Node, variables: Variables, groups: list[str], problems: Problems
) -> Draft | None:
    if "ansible_connection" in variables and text_of(variables["ansible_connection"][1]) not in _SSH:
        return None
    draft = Draft(name, node)
    layer = Layer()
    # Ansible's groups may be Python identifiers only; labels may be more.
    layer.labels = {group: ("", node) for group in groups}
    for fieldname, names in _NAMES.items():
        given = next((variables[item][1] for item in names if item in variables), None)
        if given is not None and not is_null(given):
            layer.fields[fieldname] = _plain_text(given, fieldname, problems)
    if "host" not in layer.fields:
        layer.fields["host"] = scalar(name, node.start_mark)
    if "jump" not in layer.fields:
        _jump(variables, layer, problems)
    for variable, (key, value) in variables.items():
        if variable == "deploy_labels":
            layer.labels.update(read_labels(_structure(value, problems, commas=True), problems))
        elif variable == "deploy_overrides":
            read_overrides(_structure(value, problems), layer, problems)
        elif variable == "deploy_kind":
            draft.kind = text_of(value)
            if draft.kind not in ("board", "host"):
                problems.at(value, f"deploy_kind: {draft.kind} is neither board nor host")
        elif variable.startswith("deploy_") and variable.removeprefix("deploy_") not in _OURS:
            problems.at(
                key, f"there is no variable {variable}{near(variable, [f'deploy_{x}' for x in _OURS])}"
            )
    draft.layer = layer
    return draft


def _plain_text(node: Node, fieldname: str, problems: Problems) -> Node:
    """``node``, or what stands for it; a template or a vault's cipher is a problem."""
    text = text_of(node)
    if fieldname == "password":
        lookup = _LOOKUP.match(text)
        if lookup:
            return scalar(f"env:{lookup[1]}", node.start_mark)
        if node.tag == "!vault" or text.startswith("$ANSIBLE_VAULT"):
            problems.at(node, "a password in ansible-vault is not read: name the secret with deploy_password")
            return scalar("env:VAULT", node.start_mark)
    if "{{" in text:
        problems.at(node, f"{fieldname}: templates are not evaluated; give deploy a plain value")
        return scalar("template" if fieldname != "port" else "22", node.start_mark)
    return node


def _jump(variables: Variables, layer: Layer, problems: Problems) -> None:
    """Take a jump host from ssh's arguments, ``-J`` or ``ProxyJump``."""
    for name in _ARGUMENTS:
        node = variables[name][1] if name in variables else None
        text = text_of(node)
        found = re.search(r"(?:-J\s*|ProxyJump[=\s]+)['\"]?([^\s'\"]+)", text)
        if found and node is not None:
            layer.fields["jump"] = scalar(found[1], node.start_mark)
            return
        if "ProxyCommand" in text and node is not None:
            problems.at(node, f"{name}: a ProxyCommand is not understood; give the jump host as deploy_jump")
            return


def _structure(node: Node, problems: Problems, commas: bool = False) -> Node:
    """INI files hold text only: ``{site: berlin}`` there is read as YAML; ``site=berlin,indoors`` too."""
    text = text_of(node).strip()
    if not isinstance(node, ScalarNode) or not text:
        return node
    if text.startswith(("{", "[")):
        try:
            inner = compose(text.encode(), "text")
        except ConfigError:
            problems.at(node, f"{text!r} is not YAML")
            return (
                scalar("", node.start_mark) if commas else MappingNode("", [], node.start_mark, node.end_mark)
            )
        return from_data(plain(inner) if inner is not None else {}, node.start_mark)
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return from_data({key.strip(): value.strip() for key, _, value in pairs}, node.start_mark)


def _beside(folder: Path | None, kind: str, name: str, problems: Problems) -> Variables:
    """The variables in ``group_vars/NAME.yaml`` and the like; a folder ``NAME/`` holds several files."""
    found: Variables = {}
    if folder is None or not (folder / kind).is_dir() or "/" in name or name.startswith("."):
        return found
    base = folder / kind
    files = [base / f"{name}{suffix}" for suffix in ("", ".yaml", ".yml", ".json")]
    if (base / name).is_dir():
        files += sorted(
            path for path in (base / name).iterdir() if path.suffix in ("", ".yaml", ".yml", ".json")
        )
    for path in files:
        if not path.is_file():
            continue
        data = path.read_bytes()
        if data.startswith(b"$ANSIBLE_VAULT"):
            problems.at(scalar("", mark_in(str(path), 0)), "encrypted by ansible-vault: not read")
            continue
        found.update(mapping(compose(data, str(path)), problems, str(path)))
    return found


def expand(pattern: str, node: Node, problems: Problems) -> Iterator[str]:
    """Expand Ansible's ranges: ``cam[01:20]``, ``cam[a:f]``, ``cam[0:10:2]``; several multiply."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, step = match[1], match[2], int(match[3] or 1)
    if first.isdigit() and last.isdigit() and step:
        width = len(first) if first.startswith("0") else 0
        values = [str(number).zfill(width) for number in range(int(first), int(last) + 1, step)[:_MAX_HOSTS]]
    elif len(first) == len(last) == 1 and first.isalpha() and last.isalpha() and step:
        values = [chr(number) for number in range(ord(first), ord(last) + 1, step)]
    else:
        values = []
    if not values:
        problems.at(node, f"{pattern}: {match[0]} is not a range such as [01:20] or [a:f]")
        return
    for value in values:
        yield from expand(pattern[: match.start()] + value + pattern[match.end() :], node, problems)
