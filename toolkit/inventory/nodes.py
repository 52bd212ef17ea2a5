"""YAML and JSON as nodes that know their line.

Inventories are walked as PyYAML's composed nodes, not as Python objects: a node has its place, so each
problem can name file and line; and composing is the quick half of loading (libyaml does it), so ten thousand
boards cost no more than they must.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from toolkit.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MAX_DEPTH = 32

# As OmegaConf reads them, so that a value means the same here and in conf/: PyYAML takes 1e-3 for text.
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z")
_INT = re.compile(r"[-+]?(?:0|[1-9]\d*)\Z")


class Problems:
    """Everything that is wrong, each with its place; the same sentence about the same line counts once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, str], None] = {}

    def __len__(self) -> int:
        return len(self._found)

    def at(self, node: Node, text: str) -> None:
        """Note that ``text`` is wrong at ``node``."""
        mark = node.start_mark
        self._found[mark.name, mark.line, text] = None

    def raise_if_any(self, source: str) -> None:
        """Raise ConfigError with every problem in the order of files and lines."""
        if not self._found:
            return
        # Sorted by line within a file; the files in the order of their first problem.
        files = {name: index for index, name in enumerate(dict.fromkeys(key[0] for key in self._found))}
        ordered = sorted(self._found, key=lambda key: (files[key[0]], key[1]))
        problems = [f"{_place(name, line)}: {text}" for name, line, text in ordered]
        count = f"{len(problems)} things are wrong in the inventory {source}"
        raise ConfigError(problems[0] if len(problems) == 1 else count, problems=problems)


def place(node: Node) -> str:
    """``file:line`` of ``node``."""
    return _place(node.start_mark.name, node.start_mark.line)


def _place(name: str, line: int) -> str:
    return f"{name}:{line + 1}" if line >= 0 else name


def line_of(node: Node) -> str:
    """ "line 12" or, where lines are not known, "an earlier entry"."""
    return f"line {node.start_mark.line + 1}" if node.start_mark.line >= 0 else "an earlier entry"


def near(name: str, known: Iterator[str] | list[str]) -> str:
    """ "; did you mean NAME?" for the most similar of ``known``, or ""."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def compose(data: bytes, name: str) -> Node | None:
    """Return the root of a YAML (or JSON) document, None where it is empty; ``name`` stands in messages.

    :raises ConfigError: it is not YAML.
    """
    stream = io.BytesIO(data)
    stream.name = name  # libyaml's reader takes its name from here
    loader = _LOADER(stream)
    try:
        return cast("Node | None", loader.get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        why = error.problem or error.context or "not YAML"
        raise ConfigError(f"{where}: {why}", problems=[f"{where}: {why}"]) from None
    except yaml.YAMLError as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"{name}: {why}", problems=[f"{name}: {why}"]) from None
    finally:
        loader.dispose()


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object, doubles included."""


def from_json(text: str, name: str) -> Node:
    """Return JSON as nodes without lines. :raises ValueError: it is not JSON."""
    return from_data(json.loads(text, object_pairs_hook=_Object), mark_in(name, -1), name)


def mark_in(name: str, line: int) -> Any:
    """Return a place: a line, counted from 0, of the file ``name``; -1 for no line in particular."""
    return yaml.Mark(name, 0, line, 0, None, 0)


def from_data(value: Any, mark: Any, name: str = "") -> Node:
    """Return plain ``value`` as nodes that all stand at ``mark``.

    With ``name`` their places are that name and the keys on the way, ``fleet.py boards.cam-01.port``.
    """

    def inner(item: Any, key: object) -> Node:
        if not name:
            return from_data(item, mark)
        below = f"{name}{'.' if ' ' in name else ' '}{key}"
        return from_data(item, mark_in(below, -1), below)

    if isinstance(value, _Object | dict):
        members = value if isinstance(value, _Object) else value.items()
        pairs = []
        for key, item in members:
            node = inner(item, key)
            pairs.append((scalar(str(key), node.start_mark), node))
        return MappingNode(f"{_TAG}map", pairs, mark, mark)
    if isinstance(value, list):
        return SequenceNode(
            f"{_TAG}seq", [inner(item, number) for number, item in enumerate(value)], mark, mark
        )
    kinds = {bool: "bool", int: "int", float: "float", type(None): "null"}
    kind = kinds.get(type(value), "str")
    shown = "" if value is None else json.dumps(value) if kind != "str" else str(value)
    return ScalarNode(f"{_TAG}{kind}", shown, mark, mark)


def scalar(text: str, mark: Any) -> ScalarNode:
    """Return ``text`` as a node."""
    return ScalarNode(f"{_TAG}str", text, mark, mark)


def is_null(node: Node | None) -> bool:
    """Is there nothing, or YAML's null?"""
    return node is None or (isinstance(node, ScalarNode) and node.tag == f"{_TAG}null")


def text_of(node: Node | None) -> str:
    """The text of a scalar as it is written (``07`` stays ``07``); "" for null and for what is no scalar."""
    return str(node.value) if isinstance(node, ScalarNode) and node.tag != f"{_TAG}null" else ""


def items(node: Node | None, problems: Problems, what: str) -> list[tuple[Node, Node]]:
    """The pairs of a mapping, doubles included, ``<<`` merged in; [] for null. Anything else is a problem."""
    if is_null(node):
        return []
    if not isinstance(node, MappingNode):
        if node is not None:
            problems.at(node, f"{what} must be a mapping, `key: value`")
        return []
    if all(key.tag != f"{_TAG}merge" for key, _ in node.value):
        return cast("list[tuple[Node, Node]]", node.value)
    own = [pair for pair in node.value if pair[0].tag != f"{_TAG}merge"]
    names = {text_of(key) for key, _ in own}
    merged: dict[str, tuple[Node, Node]] = {}
    for key, value in node.value:
        if key.tag == f"{_TAG}merge":
            for part in value.value if isinstance(value, SequenceNode) else [value]:
                if part is node:
                    problems.at(part, f"{what} is merged into itself")
                    continue
                for pair in items(part, problems, "what is merged with <<"):
                    merged.setdefault(text_of(pair[0]), pair)
    return [pair for name, pair in merged.items() if name not in names] + own


def mapping(node: Node | None, problems: Problems, what: str) -> dict[str, tuple[Node, Node]]:
    """The pairs of a mapping by key; a key that occurs twice is a problem."""
    found: dict[str, tuple[Node, Node]] = {}
    for key, value in items(node, problems, what):
        name = text_of(key)
        if name in found:
            problems.at(key, f"{name} is given twice, first in {line_of(found[name][0])}")
        elif not name:
            problems.at(key, f"{what}: a key must be a text")
        else:
            found[name] = key, value
    return found


def sequence(node: Node | None, problems: Problems, what: str) -> list[Node]:
    """The items of a list, one scalar counting as a list; [] for null. Anything else is a problem."""
    if is_null(node):
        return []
    if isinstance(node, SequenceNode):
        return cast("list[Node]", node.value)
    if isinstance(node, ScalarNode):
        return [node]
    if node is not None:
        problems.at(node, f"{what} must be a list")
    return []


def plain(node: Node, depth: int = 0) -> Any:
    """Return ``node`` as plain data, read as OmegaConf does. :raises ValueError: nested too deeply."""
    if depth > _MAX_DEPTH:
        raise ValueError("is nested too deeply; does an anchor refer to itself?")
    if isinstance(node, MappingNode):
        return {text_of(key): plain(value, depth + 1) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [plain(value, depth + 1) for value in node.value]
    text, tag = str(node.value), node.tag
    if tag == f"{_TAG}null":
        return None
    if tag == f"{_TAG}bool":
        return text.lower() in ("yes", "true", "on")
    quoted = isinstance(node, ScalarNode) and node.style in ("'", '"', "|", ">")
    if tag in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}str") and not quoted:
        if _INT.match(text):
            return int(text)
        if _FLOAT.match(text) and not re.match(r"[-+]?0\d", text):
            return float(text)
        if tag == f"{_TAG}float" and text.lstrip("+-").lower() in (".inf", ".nan"):
            return float(text.replace(".", ""))
    # Everything else that YAML 1.1 has a type for (dates, 12:30, 0b1) stays the text that was written.
    return text
