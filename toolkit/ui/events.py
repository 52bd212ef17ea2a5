"""What happens, as data. Stages and the fleet emit events; renderers and the journal consume them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["start", "progress", "done", "skip", "fail", "log", "warning", "outcome", "summary"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    kind:
        ``start``, ``done``, ``skip`` (with the reason as text) and ``fail`` frame a stage; ``progress`` has
        ``data = {"done": number, "total": number | None, "unit": str}`` and any figures worth showing;
        ``log`` is a line of output worth keeping; ``outcome`` is the end of one board; ``summary`` the end of all.
    stage, board:
        where it happened; empty where it belongs to the whole run.
    time:
        seconds since the epoch on this machine.
    """

    kind: Kind
    text: str = ""
    stage: str = ""
    board: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)


Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An :data:`Emit` that drops everything."""
