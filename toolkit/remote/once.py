"""What many boards' threads share: made once, by the first that asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Once:
    """Results by key: made once each, the ``keep`` most recent ones kept."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._found: dict[object, Callable[[], object]] = {}

    def get(self, key: object, make: Callable[[], _T]) -> _T:
        """The result of ``make``, this time or an earlier one; other keys are not held up by it."""
        with self._lock:
            entry = self._found.pop(key, None) or _locked(make)
            self._found[key] = entry
            while len(self._found) > self._keep:
                del self._found[next(iter(self._found))]
        return entry()  # type: ignore[return-value]


def _locked(make: Callable[[], _T]) -> Callable[[], _T]:
    """``make``, at most one thread at a time; it is called again only if it failed."""
    lock = threading.Lock()
    made: list[_T] = []

    def once() -> _T:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return once
