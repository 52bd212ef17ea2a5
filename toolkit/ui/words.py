"""How counts and lists of names are put to people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_NUMBERS = re.compile(r"([0-9]+)")

NAMES = 6
"""How many names are told before they are shortened."""


def counted(count: int, noun: str) -> str:
    """``1 board``, ``2 boards``, ``2 entries``."""
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{count} {noun}"


def natural(name: str) -> tuple[list[tuple[int, Any]], str]:
    """Sorts numbers in names by their value; no two names are alike."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in _NUMBERS.split(name) if part], name


def named(names: Sequence[str]) -> str:
    """Names in their natural order; of many the first ones and the last, for where their number stands beside it."""
    ordered = sorted(names, key=natural)
    if len(ordered) <= NAMES:
        return ", ".join(ordered)
    return f"{', '.join(ordered[: NAMES - 2])}, … {ordered[-1]}"


def who(boards: Sequence[str]) -> str:
    """:func:`named`, with the number of the boards where they are many."""
    return named(boards) if len(boards) <= NAMES else f"{counted(len(boards), 'board')} ({named(boards)})"
