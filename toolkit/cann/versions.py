"""CANN's version numbers: parsing, ordering, choosing by range.

The forms that occur: ``20.2``, ``20.1.rc1``, ``20.2.alpha001`` (2020 and 2021, named by the year), then from
5.0 on ``5.0.4``, ``5.0.4.6`` (a patch), ``5.1.RC1.alpha005``, ``6.0.0.alpha003``, ``8.2.RC1.alpha003``,
``8.1.RC1.beta1``, ``8.5.0``, ``9.1.0.beta.1`` and ``8.0.T63``: names of packages in public install scripts,
and the version table of the Ascend samples, whose dates show that the alphas of 8.2.RC1 appeared before
8.2.RC1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

_PATTERN = re.compile(
    r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?"
    r"(?:[.-]?(RC|T)\.?(\d{0,4}))?"
    r"(?:[.-]?(alpha|beta)\.?(\d{0,4}))?"
    r"(?:\.(\d{1,6}))?\Z",
    re.IGNORECASE | re.ASCII,
)

# Years came before counting: CANN 20.x was followed by 5.0.
_FIRST_YEAR = 19

# The stages of one version, in the order of their appearance. An alpha of a version without a third number
# (20.2.alpha001) came before its release candidates; one with it (8.0.0.alpha002) after them.
_EARLY, _TEST, _CANDIDATE, _FINAL = range(4)
_PREVIEW = {"alpha": 0, "beta": 1, "": 2}


class Version(NamedTuple):
    """A version, comparable with others."""

    era: int
    major: int
    minor: int
    patch: int
    stage: int
    stage_number: int
    preview: int
    preview_number: int
    build: int


class Ranged(Protocol):
    """Something that holds from one version (included) to another (excluded)."""

    since: str | None
    before: str | None


RangedT = TypeVar("RangedT", bound=Ranged)


def parse_version(text: str) -> Version | None:
    """Return a CANN version such as ``20.2``, ``5.0.4`` or ``8.0.RC1`` in sortable form, or None."""
    match = _PATTERN.match(text.strip())
    if match is None:
        return None
    major, minor, patch, candidate, candidate_number, preview, preview_number, build = match.groups()
    if candidate:
        stage = _TEST if candidate.upper() == "T" else _CANDIDATE
    else:
        stage = _EARLY if preview and patch is None else _FINAL
    return Version(
        era=0 if int(major) >= _FIRST_YEAR else 1,
        major=int(major),
        minor=int(minor),
        patch=int(patch or 0),
        stage=stage,
        stage_number=int(candidate_number or 0),
        preview=_PREVIEW[(preview or "").lower()],
        preview_number=int(preview_number or 0),
        build=int(build or 0),
    )


def holds(item: Ranged, version: str) -> bool:
    """Is ``version`` within ``item``'s range, ``since`` included and ``before`` excluded?

    False for what is no version. An end of a range that is None, or no version, does not limit it.
    """
    wanted = parse_version(version)
    if wanted is None:
        return False
    low = parse_version(item.since) if item.since else None
    high = parse_version(item.before) if item.before else None
    return (low is None or wanted >= low) and (high is None or wanted < high)


def choose(ranges: Sequence[RangedT], version: str) -> RangedT | None:
    """Return the first of ``ranges`` that holds ``version``, or None."""
    return next((item for item in ranges if holds(item, version)), None)


def newer(a: str, b: str) -> bool:
    """Is CANN ``a`` newer than ``b``? False where one of them cannot be parsed."""
    left, right = parse_version(a), parse_version(b)
    return left is not None and right is not None and left > right
