"""From drafts to boards: every rule about one machine and about all of them together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from yaml.nodes import Node, ScalarNode, SequenceNode

from toolkit.inventory.board import HOST_PROFILE, Board, profile_named
from toolkit.inventory.draft import Draft, Layer
from toolkit.inventory.keys import is_text
from toolkit.inventory.nodes import Problems, is_null, line_of, near, place, plain, text_of

# A name becomes a folder's name, a label stands in hosts= expressions.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,62}\Z")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9._/:+ -]{0,63}\Z")
_RESERVED_LABELS = ("profile", "name", "kind")
# Neither may begin with a dash (an option for ssh) or hold what a shell or a URL could read otherwise.
_HOST = re.compile(r"(?!-)[A-Za-z0-9._:%-]{1,255}\Z")
_USER = re.compile(r"(?!-)[^\s@:/'\"`$;&|<>(){}\\]{1,64}\Z")
_JUMP = re.compile(r"(?:[^\s@,]+@)?(?:\[[^\]\s,]+\]|[^\s@,:\[\]]+)(?::\d{1,5})?\Z")
_HOST_KEY = re.compile(
    r"(?:SHA256:[A-Za-z0-9+/]{43}=?|(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]{20,}={0,2}(?: .*)?)\Z"
)
_SECRET = re.compile(r"\$\{secret:\s*(env|file|keyring)\s*,\s*(.+?)\s*\}\Z")


Wrong = Callable[[str, Any], str]
"""(dotted key, value) → what is wrong with it, "" where nothing is."""


def finish(
    drafts: Sequence[Draft],
    profiles: Collection[str],
    default_profile: str,
    problems: Problems,
    addresses: Mapping[str, str],
    wrong: Wrong,
) -> list[Board]:
    """Return the boards; whatever is wrong goes to ``problems``, and then the result is not to be used."""
    boards = [_board(draft, profiles, default_profile, problems, wrong) for draft in drafts]
    _unique_names(drafts, problems)
    _unique_addresses(drafts, boards, problems, addresses)
    return boards


def _board(
    draft: Draft, profiles: Collection[str], default_profile: str, problems: Problems, wrong: Wrong
) -> Board:
    if not _NAME.match(draft.name) or draft.name.endswith("."):
        problems.at(
            draft.node,
            f"{draft.name!r} cannot be a folder's name: letters, digits and . _ -, first a letter or digit",
        )
    return Board(
        name=draft.name,
        profile=_profile(draft, profiles, default_profile, problems),
        **_connection(draft.layer.fields, problems),
        labels=_labels(draft.layer, problems),
        overrides={key: _value(key, node, problems, wrong) for key, node in draft.layer.overrides.items()},
        kind=draft.kind,
        place=place(draft.node),
        lines={key: place(node) for key, node in draft.layer.overrides.items()},
    )


def check_layer(layer: Layer, problems: Problems) -> None:
    """Check what a group or the defaults say, whether or not any board belongs to them."""
    _connection(layer.fields, problems)
    _labels(layer, problems)


def _connection(fields: dict[str, Node], problems: Problems) -> dict[str, Any]:
    return dict(
        host=_host(fields.get("host"), problems),
        port=_port(fields.get("port"), problems),
        user=_matching("user", _USER, "is not a user's name", fields, problems),
        key_file=text_of(fields.get("key_file")),
        password=_password(fields.get("password"), problems),
        host_key=_matching(
            "host_key", _HOST_KEY, "is not a key: write 'ssh-ed25519 AAAA…' or 'SHA256:…'", fields, problems
        ),
        jump=_jump(fields.get("jump"), problems),
    )


def _profile(draft: Draft, profiles: Collection[str], default: str, problems: Problems) -> str:
    node = draft.layer.fields.get("profile")
    if node is None and draft.kind == "host":
        return HOST_PROFILE
    if node is None:
        if not default:
            where = "write profile: here or in defaults, or give +board=…"
            problems.at(draft.node, f"{draft.name} has no profile: {where}")
        return default
    wanted = text_of(node)
    found = profile_named(wanted, profiles)
    if not found:
        problems.at(node, f"there is no profile {wanted}{near(wanted, sorted(profiles))}")
    elif found == HOST_PROFILE and draft.kind == "board":
        why = f"a machine of profile {found} has no chip, so it is no board"
        problems.at(node, f"{draft.name}: {why}: write it under hosts:")
    return found


def _host(node: Node | None, problems: Problems) -> str:
    host = text_of(node)
    if node is not None and not _HOST.match(host):
        hint = ": user and port have keys of their own" if "@" in host else ""
        problems.at(node, f"host: {host!r} is not a host name or IP address{hint}")
    elif node is not None and re.fullmatch(r"[^:]+:\d+", host):
        problems.at(node, f"host: {host}: the port has a key of its own, port:")
    return host


def _port(node: Node | None, problems: Problems) -> int:
    if node is None:
        return 0
    written = text_of(node)
    port = int(written) if re.fullmatch(r"[0-9]{1,5}", written) else 0
    if not 1 <= port <= 65535:
        problems.at(node, f"port: {written or 'a list'} is not a port number, 1 … 65535")
        return 0
    return port


def _matching(
    name: str, pattern: re.Pattern[str], wrong: str, fields: dict[str, Node], problems: Problems
) -> str:
    node = fields.get(name)
    text = text_of(node)
    if node is not None and not pattern.match(text):
        problems.at(node, f"{name}: {text!r} {wrong}")
    return text


def _jump(node: Node | None, problems: Problems) -> str:
    text = text_of(node)
    if node is not None and not all(_JUMP.match(part.strip()) for part in text.split(",")):
        problems.at(node, f"jump: {text!r} is not [user@]host[:port], several separated by commas, or none")
    return text


def _password(node: Node | None, problems: Problems) -> str:
    text = text_of(node)
    if node is None:
        return ""
    secret = _SECRET.match(text)
    if secret:
        return f"{secret[1]}:{secret[2]}"
    if not re.match(r"(env|file|keyring):.", text):
        # Not shown: it may be the password itself.
        reference = "${secret:env,NAME}, or file, or keyring"
        problems.at(node, f"password: a secret does not stand in an inventory; write {reference}")
    return text


def _labels(layer: Layer, problems: Problems) -> dict[str, str]:
    for name, (value, node) in layer.labels.items():
        if name in _RESERVED_LABELS:
            problems.at(node, f"label {name}: this name is taken, hosts={name}=… has a meaning already")
        elif not _LABEL.match(name):
            problems.at(node, f"label {name!r}: letters, digits and _ - . /, first a letter, digit or _")
        elif not _LABEL_VALUE.match(value):
            problems.at(node, f"label {name}: {value!r}: a value has letters, digits, spaces and . _ - / : +")
    return {name: value for name, (value, _) in layer.labels.items()}


def _value(key: str, node: Node, problems: Problems, wrong: Wrong) -> Any:
    if is_text(key) and isinstance(node, ScalarNode) and not is_null(node):
        return text_of(node)  # a version written 5.10 without quotes is not the number 5.1
    try:
        value = plain(node)
    except ValueError as error:
        problems.at(node, f"{key} {error}")
        return None
    if why := wrong(key, value):
        problems.at(node, why)
    return value


def _unique_names(drafts: Sequence[Draft], problems: Problems) -> None:
    first: dict[str, Draft] = {}
    for draft in drafts:
        # File systems that ignore case would put both boards' results into one folder.
        other = first.setdefault(draft.name.casefold(), draft)
        if other is draft:
            continue
        same = "has this name already"
        if other.name != draft.name:
            same = f"is named {other.name}, the same but for case"
        problems.at(draft.node, f"{draft.name}: {line_of(other.node)} {same}")


def _unique_addresses(
    drafts: Sequence[Draft], boards: Sequence[Board], problems: Problems, addresses: Mapping[str, str]
) -> None:
    """Two boards at one address are a mistake.

    Behind different jump hosts the same private address (a 200 DK's 192.168.1.2) means two machines.
    A build host may be the machine that a board's cards sit in. A board that names no address has its profile's.
    """
    first: dict[tuple[str, str, str, int], Draft] = {}
    for draft, board in zip(drafts, boards, strict=True):
        host = board.host or addresses.get(board.profile, "")
        if not host:
            continue
        address = (board.kind, board.jump, draft.address or host.lower(), board.port or 22)
        other = first.setdefault(address, draft)
        if other is not draft and other.name != draft.name:
            where = f"{draft.address.strip() or host}:{board.port or 22}"
            where += "" if board.host else f", the default of profile {board.profile}"
            node = draft.layer.fields.get("host", draft.node)
            if isinstance(node, SequenceNode) or node is other.layer.fields.get("host"):
                node = draft.node  # a group gives both the same host: their own lines tell them apart
            problems.at(
                node, f"{draft.name} has the address of {other.name} ({line_of(other.node)}): {where}"
            )
