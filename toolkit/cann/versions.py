"""CANN's version numbers: parsing, ordering, choosing by range."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

# 20.x (2020) came before 5.0 (2021): CANN went from year numbers to counting from 5. The community calls the
# same release 20.2 = 3.3 and 21.0 = 5.0 (Ascend samples, version maps), so year numbers sort first.
_PATTERN = re.compile(r"^(\d+)\.(\d+)(?:\.(\d+))?(?:\.?(RC|alpha|beta|T)(\d+)?)?(?:\.(?:alpha|beta)?(\d+))?$", re.I)
_STAGE = {"alpha": -3, "beta": -2, "t": -2, "rc": -1}

Version = tuple[int, int, int, int, int, int, int]


class Ranged(Protocol):
    """Something that holds from one version (included) to another (excluded)."""

    since: str | None
    before: str | None


RangedT = TypeVar("RangedT", bound=Ranged)


def parse_version(text: str) -> Version | None:
    """Return a sortable tuple for a CANN version such as ``20.2``, ``5.0.4`` or ``8.0.RC1``; None if it isn't one."""
    match = _PATTERN.match(text.strip())
    if match is None:
        return None
    major, minor, patch, stage, number, build = match.groups()
    era = 0 if int(major) >= 19 else 1
    return (
        era,
        int(major),
        int(minor),
        int(patch or 0),
        _STAGE.get((stage or "").lower(), 0),
        int(number or 0),
        int(build or 0),
    )


def choose(ranges: Sequence[RangedT], version: str) -> RangedT | None:
    """Return the first of ``ranges`` that holds ``version``, or None."""
    wanted = parse_version(version)
    if wanted is None:
        return None
    for item in ranges:
        low = parse_version(item.since) if item.since else None
        high = parse_version(item.before) if item.before else None
        if (low is None or wanted >= low) and (high is None or wanted < high):
            return item
    return None


def newer(a: str, b: str) -> bool:
    """Is CANN ``a`` newer than ``b``? False where one of them cannot be parsed."""
    left, right = parse_version(a), parse_version(b)
    return left is not None and right is not None and left > right
