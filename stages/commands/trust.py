"""Read the boards' host keys, show their fingerprints, and pin them once a person has compared them.

    deploy trust +board=200dk
    deploy trust inventory=mine hosts=line-1
    deploy trust inventory=mine hosts=line-1 replace=true     a board that was set up anew

Nobody logs in to a board for that. Compare the fingerprints with what the board itself says:
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. Keys go into the first file of ssh.known_hosts. Machines under hosts:
of an inventory are among them where hosts=, convert.host= or train.remote.host= names them.

A key that changed is refused unless replace=true is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages._boards import (
    Answer,
    Place,
    each,
    exit_code,
    failures_text,
    places_of,
    require_yes,
)
from stages._fleet import limits_of
from stages._invocation import Invocation
from toolkit import paths
from toolkit.errors import ConfigError
from toolkit.remote import trust
from toolkit.remote.hostkeys import HostKey
from toolkit.ui.tables import table
from toolkit.ui.words import counted, who

HELP = "read boards' host keys, show fingerprints, pin them"

State = Literal["known", "new", "changed"]


@dataclass(frozen=True)
class Shown:
    """A board's keys, each with what is known of it. name: as it stands in known_hosts."""

    name: str
    keys: tuple[tuple[HostKey, State], ...]
    pinned: bool
    """The inventory or profile pins a key: known_hosts is not asked."""

    @property
    def new(self) -> list[HostKey]:
        return [key for key, state in self.keys if state != "known"]

    @property
    def changed(self) -> bool:
        return any(state == "changed" for _, state in self.keys)


def run(invocation: Invocation) -> int:
    with places_of(invocation, hosts=True) as places:
        answers = each(invocation, places, _look)
        text = "\n".join([_table(answers), *failures_text(answers)])
        unsafe = _refusals(invocation, answers)
        todo = [item for item in answers if item.value and item.value.new and item.name not in unsafe]
        boards = [_json(item, unsafe.get(item.name, "")) for item in answers]
        count = sum(len(item.value.new) for item in todo if item.value)
        if todo:
            where = _file(invocation)
            if not invocation.flags.json:
                invocation.renderer.data({}, text)
            question = f"Pin {counted(count, 'key')} of {who([item.name for item in todo])} in {paths.relative(where)}?"
            require_yes(invocation, question)
            for item in todo:
                assert item.value is not None
                trust.pin(where, item.value.name, item.value.new, replace=invocation.config.replace)
            text = "" if not invocation.flags.json else text
            text += f"{counted(count, 'key')} pinned in {paths.relative(where)}"
        elif not unsafe and not any(item.error for item in answers):
            text += "\nnothing to pin: all of them are known"
        lines = [line for name, why in unsafe.items() for line in (f"✗ {name}: {why[0]}", f"  what to do: {why[1]}")]
        invocation.renderer.data({"boards": boards, "pinned": count}, "\n".join([text, *lines]).strip("\n"))
    return exit_code(sum(item.error is not None or item.name in unsafe for item in answers), len(answers))


def _look(place: Place) -> Shown:
    """The keys of one board. One connection for each type of key, and no login."""
    address = place.address
    found = trust.shown_keys(address, limits_of(place.target.config))
    pinned = address.host_key
    known = [] if pinned else trust.known_keys(address)

    def state(key: HostKey) -> State:
        if pinned:
            return "known" if pinned in (key.fingerprint, str(key)) or str(key).startswith(f"{pinned} ") else "changed"
        if key in known:
            return "known"
        return "changed" if any(key.type == other.type for other in known) else "new"

    judged = [(key, state(key)) for key in found]
    if pinned and any(one == "known" for _, one in judged):
        # The pinned key is one of several: the board proves itself with that one.
        judged = [(key, one) for key, one in judged if one == "known"]
    return Shown(trust.listed_name(address), tuple(judged), bool(pinned))


def _refusals(invocation: Invocation, answers: list[Answer[Shown]]) -> dict[str, tuple[str, str]]:
    """Board → what is wrong and what to do, for those whose keys changed and may not be replaced here."""
    refused = {}
    for item in answers:
        shown = item.value
        if shown is None or not shown.changed:
            continue
        if shown.pinned:
            place = item.place.board.place or "board.host_key"
            refused[item.name] = (
                "the board has other keys than board.host_key pins",
                f"compare the fingerprint on the board, then change host_key ({place})",
            )
        elif not invocation.config.replace:
            refused[item.name] = (
                "its host key changed: it was set up anew, or it is not this board",
                f"compare the fingerprint on the board, then: {item.place.address.command('trust', 'replace=true')}",
            )
    return refused


def _file(invocation: Invocation) -> Path:
    files = invocation.config.ssh.known_hosts
    if not files:
        raise ConfigError("ssh.known_hosts: no file to pin keys in", hint="ssh.known_hosts=[~/.ssh/known_hosts]")
    return Path(files[0]).expanduser()


def _table(answers: list[Answer[Shown]]) -> str:
    rows = [
        [item.name, item.value.name, key.type, key.fingerprint, state]
        for item in answers
        if item.value
        for key, state in item.value.keys
    ]
    return table(["board", "address", "type", "fingerprint", ""], rows) if rows else ""


def _json(item: Answer[Shown], why: Any) -> dict[str, Any]:
    if item.value is None:
        return {"board": item.name, **item.failure()}
    keys = [{"type": key.type, "fingerprint": key.fingerprint, "state": state} for key, state in item.value.keys]
    value: dict[str, Any] = {"board": item.name, "status": "ok", "name": item.value.name, "keys": keys}
    if why:
        value |= {"status": "failed", "cause": "host-key-changed", "message": why[0], "hint": why[1]}
    return value
