"""From Hydra's composed config to plain dataclasses: the one place, besides the command line, that knows OmegaConf.

Hydra lets ``+typo=1`` through even with a schema, and a missing value only shows when it is read. So the composed
config is held against the schema once more here: unknown keys, wrong types and missing values all end in one
:class:`~toolkit.errors.ConfigError` that lists every problem by its dotted key.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from toolkit.config.checks import check
from toolkit.config.schema import BoardSettings, Config
from toolkit.errors import ConfigError

# ``from`` is a keyword of Python, so the field behind the key ``model.from`` has another name.
RENAMED = {"model.from": "model.from_"}

SECRET_PREFIX = "secret:"


def register_resolvers() -> None:
    """Make ``${secret:env,NAME}`` stay a reference: only the line that needs a secret resolves it."""
    if not OmegaConf.has_resolver("secret"):
        OmegaConf.register_new_resolver("secret", lambda kind, *rest: f"{kind}:{','.join(map(str, rest))}")


def schema_keys(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key that the schema knows, groups included."""
    hints = get_type_hints(cls)
    for item in fields(cls):
        key = prefix + item.name
        yield {v: k for k, v in RENAMED.items()}.get(key, key)
        kind = hints[item.name]
        for candidate in (kind, *get_args(kind)):
            if isinstance(candidate, type) and is_dataclass(candidate) and "list" not in str(kind):
                yield from schema_keys(candidate, key + ".")


def nearest(key: str) -> str:
    """The key of the schema that looks most like ``key``, or "" where none does."""
    known = list(schema_keys())
    leaf_of = {name: name.rsplit(".", 1)[-1] for name in known}
    longer = [name for name in known if name.startswith(key) and "." in key]
    if longer:
        return min(longer, key=len)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    leaf = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaf_of.values()), n=1, cutoff=0.7)
    return next((name for name in known if leaf and leaf_of[name] == leaf[0]), "")


def unknown_key(key: str) -> str:
    """One sentence about a key that does not exist."""
    near = nearest(key)
    return f"{key}: there is no such setting" + (f"; did you mean {near}?" if near else "")


def load(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Return ``composed`` as a :class:`Config`, or raise :class:`ConfigError` with every problem found."""
    if isinstance(composed, DictConfig):
        try:
            missing = OmegaConf.missing_keys(composed)
        except OmegaConfBaseException as error:
            raise ConfigError(_first_line(error)) from error
        if missing:
            raise ConfigError(
                "settings without a value: " + ", ".join(sorted(missing)),
                hint=" ".join(f"{key}=…" for key in sorted(missing)),
                problems=[f"{key}: no value" for key in sorted(missing)],
            )
        try:
            data = OmegaConf.to_container(composed, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_first_line(error)) from error
    else:
        data = dict(composed)
    tree = cast("dict[str, Any]", data)
    _rename(tree)
    problems: list[str] = []
    try:
        config = cast(Config, _as_it_is(Config, tree))
    except _NotAsItIs:
        merged = _merge_checked(tree, problems)
        if not problems:
            config = cast(Config, OmegaConf.to_object(merged))
    if not problems:
        problems = check(config)
        if not problems:
            return config
    raise ConfigError(
        problems[0] if len(problems) == 1 else f"{len(problems)} settings are wrong", problems=problems
    )


def wrong_value(key: str, value: Any) -> str:
    """What is wrong with ``value`` as the value of the setting ``key``, in one sentence; "" where its type fits."""
    again = key, repr(value)  # a fleet says the same many times
    if again not in _judged:
        _judged[again] = ""
        try:
            OmegaConf.update(_blank(), RENAMED.get(key, key), value, merge=True, force_add=False)
        except (ConfigKeyError, ConfigAttributeError, AssertionError):
            _judged[again] = unknown_key(key)
        except OmegaConfBaseException as error:
            _judged[again] = f"{key}: {_first_line(error)}"
    return _judged[again]


_judged: dict[tuple[str, str], str] = {}


@cache
def _blank() -> DictConfig:
    return _fresh(board=True)


def _rename(tree: dict[str, Any]) -> None:
    for key, name in RENAMED.items():
        group, leaf = key.split(".")
        node = tree.get(group)
        if isinstance(node, dict) and leaf in node:
            node[name.split(".")[1]] = node.pop(leaf)


class _NotAsItIs(Exception):
    """A value is not plainly what the schema says: OmegaConf converts it, or says what is wrong with it."""


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _as_it_is(kind: Any, value: Any) -> Any:
    """``value`` as the schema's type ``kind``, where nothing has to be converted: nearly always.

    OmegaConf's merging comes to the same and takes twenty times as long, a tenth of what ``deploy status`` takes.

    :raises _NotAsItIs: it is for OmegaConf to judge.
    """
    given = type(value)
    if given is dict and isinstance(kind, type) and is_dataclass(kind) and value.keys() <= _hints(kind).keys():
        return kind(**{key: _as_it_is(_hints(kind)[key], item) for key, item in value.items()})
    if given is list and (kind is Any or get_origin(kind) is list):
        inner = Any if kind is Any else get_args(kind)[0]
        return [_as_it_is(inner, item) for item in value]
    if given is dict and get_origin(kind) is dict and all(type(key) is str and key.isidentifier() for key in value):
        return {key: _as_it_is(get_args(kind)[1], item) for key, item in value.items()}
    if given is str and ("${" in value or value == "???"):
        raise _NotAsItIs
    if kind is given or (kind is Any and given in (str, int, float, bool, type(None))):
        return value
    if kind is float and given is int:
        return float(value)
    if isinstance(kind, type) and issubclass(kind, Enum) and given is str and value in kind.__members__:
        return kind[value]
    if type(None) in (choices := get_args(kind)) and len(choices) == 2:
        return None if value is None else _as_it_is(next(item for item in choices if item is not type(None)), value)
    raise _NotAsItIs


@cache
def _schema() -> DictConfig:
    """To copy from: making one takes five times as long, and a fleet needs many."""
    return cast(DictConfig, OmegaConf.structured(Config))


def _fresh(*, board: bool) -> DictConfig:
    """A schema to merge into; ``board``: with the settings of one, which a call may do without."""
    schema = copy.deepcopy(_schema())
    if board:
        schema.board = OmegaConf.structured(BoardSettings)
    return schema


def _merge_checked(tree: dict[str, Any], problems: list[str]) -> DictConfig:
    """Merge leaf by leaf into a fresh schema, so that all wrong keys and types are found, not just the first."""
    schema = _fresh(board=tree.get("board") is not None)
    for key, value in _leaves(tree):
        shown = {v: k for k, v in RENAMED.items()}.get(key, key)
        try:
            OmegaConf.update(schema, key, value, merge=True, force_add=False)
        except (ConfigKeyError, ConfigAttributeError, AssertionError):
            problems.append(unknown_key(shown))
        except OmegaConfBaseException as error:
            problems.append(f"{shown}: {_first_line(error)}")
    return schema


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and dotted != "board.faults":
            yield from _leaves(value, dotted + ".")
        else:
            yield dotted, value


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
