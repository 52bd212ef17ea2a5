"""One machine of an inventory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What an inventory may say about the way to a board, besides its profile. Setting ``board.<name>`` each.
CONNECTION = ("host", "port", "user", "key_file", "password", "host_key", "jump")


#: The profile of a machine without a chip: what one of kind "host" is, unless it names another.
HOST_PROFILE = "host"


@dataclass(frozen=True)
class Board:
    """A board, or with ``kind`` "host" a machine that is none: a build host with CANN's toolkit.

    What the inventory leaves out is empty ("", port 0) and means: as the profile says. ``password`` is a
    reference such as ``env:NAME``, never a value. ``labels`` map a name to a text, "" where a label has no
    value; ``overrides`` map dotted configuration keys to plain values. ``place`` is where it stands:
    ``file:line``; ``lines`` is where each of its overrides does.
    """

    name: str
    profile: str
    host: str = ""
    port: int = 0
    user: str = ""
    key_file: str = ""
    password: str = ""
    host_key: str = ""
    jump: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kind: str = "board"
    place: str = field(default="", compare=False)
    lines: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def settings(self) -> dict[str, Any]:
        """Everything this entry sets, by dotted configuration key: overrides, ``board.host`` and so on."""
        given = {f"board.{name}": getattr(self, name) for name in CONNECTION}
        return {**self.overrides, **{key: value for key, value in given.items() if value}}


def profile_named(name: str, profiles: Collection[str]) -> str:
    """Return the profile that ``name`` means, or "".

    Profiles are never named by a bare number, since Hydra reads ``board=500`` as an int. People write the
    product's number all the same: ``500`` means ``atlas500``, ``500_a2`` ``atlas500_a2``.
    """
    return next((known for known in (name, f"atlas{name}") if known in profiles), "")
