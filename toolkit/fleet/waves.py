"""Who comes when: a fleet as waves. Pure; the same boards and settings give the same waves on every
machine."""

from __future__ import annotations

import heapq
import random
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.config.schema import RolloutSettings
from toolkit.errors import ConfigError
from toolkit.ui.words import natural

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")

Labels = Mapping[str, Mapping[str, str]]


def waves(boards: Labels, settings: RolloutSettings) -> list[list[str]]:
    """Share ``boards`` (name → labels) out to waves: every board is in one wave, and in one only.

    Boards come in the order of their names (``sim-2`` before ``sim-10``), or shuffled by ``seed``; those with
    the label ``first`` before the others. With ``by``, each value of that label has waves of its own, one
    value after the other; boards without the label come last. ``waves`` are the sizes of a value's waves (of
    all boards without ``by``): boards, or a percentage of them; the last size repeats. With ``apart``, no
    wave has two boards with the same value of that label.

    :raises ConfigError: no board has a label that the settings name.
    """
    for key in ("by", "apart", "first"):
        label = getattr(settings, key)
        if boards and label and not any(label in labels for labels in boards.values()):
            raise ConfigError(
                f"rollout.{key}: no board has the label {label}",
                hint=f"labels stand in the inventory; rollout.{key}=null does without",
            )
    ordered = sorted(boards, key=natural)
    if settings.order == "shuffled":
        random.Random(settings.seed).shuffle(ordered)
    if settings.first:
        ordered.sort(key=lambda name: settings.first not in boards[name])
    return [
        wave for group in _groups(ordered, boards, settings.by) for wave in _split(group, boards, settings)
    ]


def amount(value: Any, whole: int, *, up: bool) -> int:
    """``3``, ``"3"`` or ``"5%"`` (of ``whole``, rounded up or down) as a number of boards. Raises
    ValueError."""
    match = _PERCENT.match(str(value).strip())
    if match:
        share = whole * float(match[1]) / 100
        # What a float makes of 29 % of 100 must not cost or give a board.
        return int(-((-share + 1e-9) // 1)) if up else int(share + 1e-9)
    number = int(str(value))
    if number < 0:
        raise ValueError(value)
    return number


def _groups(ordered: Sequence[str], boards: Labels, by: str | None) -> Iterable[list[str]]:
    if not by:
        return [list(ordered)] if ordered else []
    groups: dict[str, list[str]] = {}
    without: list[str] = []
    for name in ordered:
        (groups.setdefault(boards[name][by], []) if by in boards[name] else without).append(name)
    return [*groups.values(), *([without] if without else [])]


def _split(group: Sequence[str], boards: Labels, settings: RolloutSettings) -> Iterable[list[str]]:
    sizes = [max(1, amount(size, len(group), up=True)) for size in settings.waves] or [len(group)]
    # One queue for each value of `apart`; a board without it has one of its own. The heap holds the queues by
    # the place of their first board, so that a fleet of one value is not searched once for each wave.
    queues: dict[tuple[str, str], deque[tuple[int, str]]] = {}
    for place, name in enumerate(group):
        labels = boards[name]
        key = (
            ("value", labels[settings.apart])
            if settings.apart and settings.apart in labels
            else ("board", name)
        )
        queues.setdefault(key, deque()).append((place, name))
    heap = [(queue[0][0], key) for key, queue in queues.items()]
    heapq.heapify(heap)
    number = 0
    while heap:
        size = sizes[min(number, len(sizes) - 1)]
        taken = [heapq.heappop(heap) for _ in range(min(size, len(heap)))]
        yield [queues[key].popleft()[1] for _, key in taken]
        for _, key in taken:
            if queues[key]:
                heapq.heappush(heap, (queues[key][0][0], key))
        number += 1
