"""Which dotted configuration keys there are, read off the schema: plain dataclasses, no Hydra needed."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from toolkit.config.schema import Config


def known_key(dotted: str) -> bool:
    """Is ``dotted`` one setting (not a whole group of them)?"""
    kind = _kind_of(dotted)
    return kind is not None and not is_dataclass(kind)


def is_text(dotted: str) -> bool:
    """Is the value of the setting ``dotted`` a text?"""
    return _kind_of(dotted) is str


# Read once for all boards of a call; of the others each board may have its own.
_OF_THE_CALL = ("rollout", "engine", "store", "sign")
_SWITCHES = ("simulate", "inventory", "hosts", "release", "replace", "run", "plan", "out", "lock", "board.count")
_OF_A_BOARD = ("rollout.take_over", "rollout.break_lock", "rollout.confirm_within", "rollout.keep_releases")


def is_of_the_call(dotted: str) -> bool:
    """Does the setting (or group) ``dotted`` hold for all boards of a call, so that none can have its own?"""
    if dotted in _OF_A_BOARD:
        return False
    return dotted in _SWITCHES or dotted.split(".", 1)[0] in _OF_THE_CALL


@lru_cache(maxsize=4096)
def _kind_of(dotted: str) -> Any:
    """The type of the setting ``dotted``, None where there is none."""
    kind: Any = Config
    for name in dotted.split("."):
        if kind is dict and name:
            return Any
        if not isinstance(kind, type) or not is_dataclass(kind):
            return None
        kind = _members(kind).get(name)
    return kind


def near_key(dotted: str) -> str:
    """What to say after a key that does not exist: the most similar one, or that it is a group."""
    known = list(_keys(Config, ""))
    inside = [key for key in known if key.startswith(dotted + ".")]
    if inside:
        return f"; it is a group, of {inside[0]} and others"
    close = get_close_matches(dotted, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


@cache
def _members(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    # A field behind a Python keyword has an underscore: model.from_ is the key model.from.
    return {item.name.removesuffix("_"): _kind(hints[item.name]) for item in fields(cls)}


def _kind(hint: Any) -> Any:
    """The dataclass or plain type behind ``X | None``; ``dict`` for mappings of free keys."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return get_origin(hint) or hint


def _keys(cls: type, prefix: str) -> Iterator[str]:
    for name, kind in _members(cls).items():
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name
