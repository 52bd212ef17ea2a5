"""What errors and help texts tell people to type exists."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import _registry
from stages.__main__ import HELP
from toolkit import inventory
from toolkit.config import schema
from toolkit.paths import CHECKOUT, INVENTORY

SOURCES = [
    path
    for room in ("toolkit", "stages")
    for path in sorted((CHECKOUT / room).rglob("*.py"))
    if "sim/cann" not in path.as_posix()
]


def keys(of: type, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the configuration, groups included."""
    for name, kind in typing.get_type_hints(of).items():
        key = prefix + name.rstrip("_")
        yield key
        for part in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(part):
                yield from keys(typing.cast(type, part), key + ".")


KEYS = set(keys(schema.Config))
GROUPS = {key.split(".")[0] for key in KEYS if "." in key}
# Written like settings, and none: file names.
FILE = re.compile(r"\.(py|yaml|json|jsonl|csv|txt|om|onnx|air|ckpt|mindir|sh|gz|html|log|read_text)$")


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(CHECKOUT).as_posix() for path in SOURCES])
def test_settings_named_in_texts_exist(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # A text with a space is for people; a bare one may be a key of something else.
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for text in texts:
        for word in re.findall(r"(?<![\w./~-])([a-z]+(?:\.[a-z_]+)+)(?=[=,;:)]| |$)", text if " " in text else ""):
            if word.split(".")[0] in GROUPS and not FILE.search(word):
                assert word in KEYS, f"{path.name}: {text}"


def test_selections_in_help_texts_select_something() -> None:
    profiles = ["200dk", "200i_dk_a2", "300i_pro", "mine"]
    folders = {"factory": INVENTORY, "mine": CHECKOUT / "examples" / "start" / "inventory"}
    helps = [HELP, *(_registry.verb(name).__doc__ or "" for name in _registry.verb_names())]
    named = {match for text in helps for match in re.findall(r"inventory=(\w+).*?hosts=(\S+)", text)}
    assert {fleet for fleet, _ in named} == set(folders)
    for fleet, selection in named:
        assert inventory.select(inventory.load(fleet, [folders[fleet]], profiles, ""), selection), selection


def test_help_texts_use_the_demo_fleet_simulated() -> None:
    """Nothing answers at its addresses, and training ResNet50 for it takes days."""
    helps = {name: _registry.verb(name).__doc__ or "" for name in _registry.verb_names() if name != "sim"}
    for name, text in {"": HELP, **helps}.items():
        for line in text.splitlines():
            assert "inventory=factory" not in line or "simulate=true app=digits" in line, name
