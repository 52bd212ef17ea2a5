"""What is taken as it is, is what OmegaConf makes of it; what is not is judged by OmegaConf."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from toolkit.config import store
from toolkit.config.schema import Config
from toolkit.errors import ConfigError
from toolkit.paths import CONF

ODD: list[Any] = [
    None, True, 0, -1, 7, 1.5, float("inf"), "", "x", "1", "1.5", "yes", "digits", "${x}", "${train.epochs}", "???",
    [], [1], ["a"], [None], [[1]], ["${x}"], {}, {"a": 1}, {"a": None}, {"a.b": 1}, {"a[0]": 1}, {"a": {"b": []}},
]  # fmt: skip


@cache
def composed(board: str) -> dict[str, Any]:
    store.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = OmegaConf.to_container(compose("deploy", [f"+board={board}"]), resolve=True)
    assert isinstance(made, dict)
    return {str(key): value for key, value in made.items()}


def merged(tree: dict[str, Any]) -> object:
    """What OmegaConf makes of it, or its problems."""
    problems: list[str] = []
    config = store._merge_checked(tree, problems)
    return problems or OmegaConf.to_object(config)


@pytest.mark.parametrize("board", sorted(path.stem for path in (CONF / "board").glob("*.yaml")))
def test_what_is_shipped_is_taken_as_it_is(board: str) -> None:
    tree = deepcopy(composed(board))
    store._rename(tree)
    # Types as well: 60 and 60.0 are equal, and not the same text in a message.
    assert repr(store._as_it_is(Config, tree)) == repr(merged(tree))


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_odd_values_come_to_the_same(data: st.DataObject) -> None:
    """What OmegaConf refuses is never taken, and what is taken is what OmegaConf makes of it."""
    tree = deepcopy(composed("sim"))
    store._rename(tree)
    node: dict[str, Any] = tree
    while True:
        key = data.draw(st.sampled_from([*sorted(node), "typo"]))
        if not (isinstance(node.get(key), dict) and node[key] and data.draw(st.integers(0, 9))):
            break
        node = node[key]
    node[key] = data.draw(st.sampled_from(ODD))
    try:
        taken = store._as_it_is(Config, deepcopy(tree))
    except store._NotAsItIs:
        return
    assert repr(taken) == repr(merged(tree))


def test_what_has_to_be_converted_still_is() -> None:
    tree = {**composed("sim"), "bench": {"count": "30", "warmup": 2}}
    assert store.load(tree).bench.count == 30
    with pytest.raises(ConfigError, match=r"bench\.count"):
        store.load({**tree, "bench": {"count": "many"}})


def schema(cls: Any = Config) -> dict[str, tuple[Any, Any]]:
    """Every field of every dataclass of the schema: its type and its default."""
    found: dict[str, tuple[Any, Any]] = {}
    made, hints = cls(), get_type_hints(cls)
    for item in fields(cls):
        kind = hints[item.name]
        found[f"{cls.__name__}.{item.name}"] = kind, getattr(made, item.name)
        for inner in (kind, *get_args(kind)):
            if isinstance(inner, type) and is_dataclass(inner):
                found |= schema(inner)
    return found


def test_a_default_is_what_omegaconf_would_make_of_it() -> None:
    """A setting that conf/ leaves out has the schema's default, whichever way the rest goes."""
    for name, (kind, default) in schema().items():
        assert not (kind is float and isinstance(default, int)), f"{name}: write {default}.0"
        # OmegaConf merges mappings: what is given would be added to the default.
        assert not (get_origin(kind) is dict and default), f"{name}: a mapping starts empty"
