"""Our own form of an inventory: see inventory/example.yaml, which shows all of it.

What holds for a board adds up in this order, later wins: ``defaults``, its groups (a parent before its
children, else as in the file), ``overrides`` of selections in the file's order, its own entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from yaml.nodes import MappingNode, Node, SequenceNode

from toolkit.inventory.checks import check_layer
from toolkit.inventory.draft import Draft, Layer, read_layer, read_overrides
from toolkit.inventory.nodes import Problems, items, mapping, near, sequence, text_of
from toolkit.inventory.selection import GLOB, Terms

SECTIONS = ("boards", "hosts", "groups", "defaults", "overrides")


@dataclass
class _Group:
    node: Node
    layer: Layer
    members: list[Node]
    children: list[Node]
    parents: list[str] = field(default_factory=list)


def read(root: Node | None, problems: Problems) -> list[Draft]:
    """Return the machines that the document ``root`` describes."""
    if isinstance(root, SequenceNode):
        return [draft for draft, _ in _entries(root, "board", problems)]
    sections = mapping(root, problems, "an inventory")
    for name, (key, _) in sections.items():
        if name not in SECTIONS:
            problems.at(key, f"an inventory has no section {name}{near(name, list(SECTIONS))}")

    def section(name: str) -> Node | None:
        return sections[name][1] if name in sections else None

    defaults = read_layer(mapping(section("defaults"), problems, "defaults"), problems, "defaults")
    groups = _groups(section("groups"), problems)
    boards = _entries(section("boards"), "board", problems)
    hosts = [draft for draft, _ in _entries(section("hosts"), "host", problems)]

    for layer in (defaults, *(group.layer for group in groups.values())):
        check_layer(layer, problems)
    own = [draft.layer for draft, _ in boards]
    _apply_groups(boards, defaults, groups, problems)
    for (draft, _), layer in zip(boards, own, strict=True):
        draft.layer.labels.update(layer.labels)  # selections below may ask for them
    _apply_selections(section("overrides"), [draft for draft, _ in boards], own, problems)
    for (draft, _), layer in zip(boards, own, strict=True):
        draft.layer.add(layer)
    return [*(draft for draft, _ in boards), *hosts]


def _entries(node: Node | None, kind: str, problems: Problems) -> list[tuple[Draft, list[Node]]]:
    """Machines from ``{name: {…}}`` or ``[{name: …, …}]``, each with the groups that it names itself."""
    found: list[tuple[Draft, list[Node]]] = []
    what = "a board" if kind == "board" else "a host"
    if isinstance(node, SequenceNode):
        for item in node.value:
            pairs = mapping(item, problems, what)
            if "name" not in pairs:
                if isinstance(item, MappingNode):
                    problems.at(item, f"{what} has no name")
                continue
            name = pairs.pop("name")[1]
            found.append(_entry(name, pairs, kind, what, problems))
        return found
    for key, value in items(node, problems, f"{kind}s"):
        found.append(_entry(key, mapping(value, problems, f"{what}'s entry"), kind, what, problems))
    return found


def _entry(
    name: Node, pairs: dict[str, tuple[Node, Node]], kind: str, what: str, problems: Problems
) -> tuple[Draft, list[Node]]:
    also = ("groups",) if kind == "board" else ()
    layer = read_layer(pairs, problems, what, also)
    groups = sequence(pairs["groups"][1], problems, "groups") if "groups" in pairs and also else []
    return Draft(text_of(name), name, kind, layer), groups


def _groups(node: Node | None, problems: Problems) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for name, (key, value) in mapping(node, problems, "groups").items():
        if isinstance(value, SequenceNode):
            groups[name] = _Group(key, Layer(), value.value, [])
            continue
        pairs = mapping(value, problems, f"group {name}")
        layer = read_layer(pairs, problems, "a group", ("boards", "children"))
        members, children = (
            sequence(pairs[part][1], problems, part) if part in pairs else []
            for part in ("boards", "children")
        )
        groups[name] = _Group(key, layer, members, children)
    for name, group in groups.items():
        for child in group.children:
            if text_of(child) in groups:
                groups[text_of(child)].parents.append(name)
            else:
                problems.at(child, f"there is no group {text_of(child)}{near(text_of(child), list(groups))}")
    for name, group in groups.items():
        if name in _ancestors(name, groups):
            problems.at(group.node, f"group {name} is its own descendant")
            group.parents.clear()
    return groups


def _ancestors(name: str, groups: dict[str, _Group]) -> dict[str, None]:
    """The groups above ``name``, each once."""
    found: dict[str, None] = {}
    waiting = list(groups[name].parents)
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found[parent] = None
            waiting.extend(groups[parent].parents)
    return found


def _apply_groups(
    boards: list[tuple[Draft, list[Node]]], defaults: Layer, groups: dict[str, _Group], problems: Problems
) -> None:
    """Give each board a layer of the defaults and of its groups, whose names become labels."""
    direct = _members(boards, groups, problems)
    lines = {name: _ancestors(name, groups) for name in groups}
    # A parent has fewer ancestors than its children, so it comes first; the sort keeps the file's order else.
    order = {name: index for index, name in enumerate(sorted(groups, key=lambda name: len(lines[name])))}
    for index, (draft, _) in enumerate(boards):
        layer = Layer()
        layer.add(defaults)
        mine = {name for group in direct[index] for name in (group, *lines[group])}
        for name in sorted(mine, key=order.__getitem__):
            layer.labels[name] = "", groups[name].node
            layer.add(groups[name].layer)
        draft.layer = layer


def _members(
    boards: list[tuple[Draft, list[Node]]], groups: dict[str, _Group], problems: Problems
) -> list[list[str]]:
    """For each board the groups it belongs to by its own word or the group's."""
    direct: list[list[str]] = []
    for _, named in boards:
        direct.append([])
        for node in named:
            if text_of(node) in groups:
                direct[-1].append(text_of(node))
            else:
                problems.at(node, f"there is no group {text_of(node)}{near(text_of(node), list(groups))}")
    positions = {draft.name: index for index, (draft, _) in enumerate(boards)}
    for name, group in groups.items():
        for member in group.members:
            pattern = text_of(member)
            matching = list(_matching(pattern, positions))
            if not matching:
                hint = near(pattern, list(positions))
                problems.at(member, f"group {name}: there is no board {pattern}{hint}")
            for index in matching:
                direct[index].append(name)
    return direct


def _matching(pattern: str, positions: dict[str, int]) -> Iterator[int]:
    if not GLOB.search(pattern):
        if pattern in positions:
            yield positions[pattern]
        return
    for name, index in positions.items():
        if fnmatchcase(name, pattern):
            yield index


def _apply_selections(node: Node | None, boards: list[Draft], own: list[Layer], problems: Problems) -> None:
    """Add what the section ``overrides`` says to the boards that each of its selections names."""
    for key, value in items(node, problems, "overrides"):
        layer = Layer()
        read_overrides(value, layer, problems)
        terms = Terms.parse(text_of(key))
        hit = False
        for draft, layer_of_own in zip(boards, own, strict=True):
            named = layer_of_own.fields.get("profile") or draft.layer.fields.get("profile")
            if terms.match(draft.name, text_of(named), draft.label_texts):
                draft.layer.add(layer)
                hit = True
        if not hit:
            forms = "write a name, a glob, @label or label=value"
            problems.at(key, f"overrides: {text_of(key)} selects no board; {forms}")
