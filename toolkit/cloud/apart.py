"""Calls that a Ctrl-C must not tear apart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def apart(call: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """Run ``call`` in a thread of its own and return or raise what it does; Ctrl-C ends only the waiting.

    A KeyboardInterrupt while a ``ThreadPoolExecutor`` starts a worker leaves a thread behind that nobody ends,
    and the program never exits. Our transfers have such pools, and Huawei's SDK signs each request in one.
    ``stop`` is called when the waiting was interrupted.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException:
        stop()
        raise
    if errors:
        raise errors[0]
    return results[0]
