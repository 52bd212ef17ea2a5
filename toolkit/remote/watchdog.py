"""One thread that ends every wait of every line in this process.

No timeout of paramiko covers every case: a ``sendall`` into a stopped server, a link cut in the middle, an
``exec`` without an answer wait for ever. So each line has a :class:`Guard`. It knows what the line is doing
now and until when; the :class:`Watchdog` looks at it in time and, when the time is over, notes the error that
names the cause and closes the socket. Whoever was waiting wakes up with an error of its own and finds ours
instead.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator

from toolkit.errors import LineLost, RemoteError
from toolkit.remote.address import Limits


class Guard:
    """The deadlines of one line. ``kill`` must not block: it closes sockets or ends a process, no more.

    Written by the line's threads without a lock (one float or reference at a time), read by the watchdog.
    """

    def __init__(self, name: str, limits: Limits, kill: Callable[[], None]) -> None:
        self.name = name
        self.limits = limits
        self.fate: RemoteError | None = None
        """Why the line was ended; the first reason stays."""
        self.closed = False
        self.moved = time.monotonic()
        """When bytes last moved, in either direction (time.monotonic)."""
        self.scheduled = float("inf")
        """When the watchdog will look next; its own note, kept under its lock."""
        self._kill = kill
        self._board_end = self.moved + limits.board
        self._step: tuple[float, Callable[[], RemoteError]] | None = None
        self._waiting = 0
        self._lock = threading.Lock()

    def begin(self, limit: float, error: Callable[[], RemoteError]) -> None:
        """A step of the connection begins, and ends the one before: ``limit`` seconds, then the fate is
        ``error()``.
        """
        self.check()
        self._step = (time.monotonic() + limit, error)
        WATCHDOG.watch(self)

    def ready(self) -> None:
        """The last step is over; from now on there is only traffic."""
        self._step = None
        self.check()

    @property
    def connecting(self) -> bool:
        """Has a step of the connection begun, and the last one not ended?"""
        return self._step is not None

    @contextlib.contextmanager
    def traffic(self) -> Iterator[None]:
        """Within the block the caller waits for bytes or pushes them: silence counts."""
        if self.fate is not None:
            raise self.fate
        with self._lock:  # one thread may send while another receives
            self.moved = time.monotonic()
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def check(self) -> None:
        """Raise the fate, if there is one."""
        if self.fate is not None:
            raise self.fate

    def moved_now(self) -> None:
        """Bytes have moved."""
        self.moved = time.monotonic()

    def condemn(self, error: RemoteError) -> None:
        """End the line because of ``error``, unless it ended before."""
        with self._lock:
            if self.fate is not None or self.closed:
                return
            self.fate = error
        self._kill()

    def close(self) -> None:
        """No more watching: the line's owner has ended it."""
        self.closed = True
        WATCHDOG.forget(self)

    def next_look(self, now: float) -> float | None:
        """Condemn the line if its time is over; otherwise say when to look again (time.monotonic), None =
        never.
        """
        if self.closed or self.fate is not None:
            return None
        step, silence = self._step, self.limits.silence
        # While nobody waits, silence cannot end before one whole limit from now.
        quiet_end = (self.moved if self._waiting else now) + silence
        if now >= self._board_end:
            self.condemn(self._board_deadline())
        elif step is not None and now >= step[0]:
            self.condemn(step[1]())
        elif now >= quiet_end and step is None:
            self.condemn(self.silent())
        else:
            # Silence may begin to count when the step is over, so never sleep past one whole limit of it.
            return min(self._board_end, step[0], now + silence) if step else min(self._board_end, quiet_end)
        return None

    def silent(self) -> LineLost:
        """The error of a line on which nothing moves."""
        return LineLost(
            f"{self.name}: the line fell silent: no byte moved for {self.limits.silence:g} s",
            cause="silence",
            host=self.name,
            hint="the board hangs, or its link is cut: look at its power and network, then run again; "
            "what has arrived is kept",
        )

    def _board_deadline(self) -> LineLost:
        return LineLost(
            f"{self.name}: not finished within the {self.limits.board:g} s allowed for one board",
            cause="board-deadline",
            host=self.name,
            hint="a slow link? raise the limit for a board, and run again: what has arrived is kept",
        )


class Watchdog:
    """The thread. It starts with the first line, sleeps until the next deadline, and ends with the last
    line.
    """

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Guard]] = []
        self._guards: set[Guard] = set()
        self._count = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, guard: Guard) -> None:
        """Begin to watch ``guard``, or look at it again because it has a nearer deadline."""
        when = guard.next_look(time.monotonic())
        if when is None:
            return
        with self._wake:
            self._guards.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="line-watchdog", daemon=True)
                self._thread.start()
            if when < guard.scheduled:
                self._push(when, guard)

    def forget(self, guard: Guard) -> None:
        """Stop watching; the thread ends when nothing is left to watch."""
        with self._wake:
            self._guards.discard(guard)
            if not self._guards:
                self._due.clear()
                self._wake.notify()

    def end_connecting(self) -> None:
        """End every line that is only being made: whoever asked for it does not hold it yet, and could not close it."""
        with self._wake:
            guards = [guard for guard in self._guards if guard.connecting]
        for guard in guards:
            guard.condemn(LineLost(f"{guard.name}: interrupted", cause="closed", host=guard.name))

    def join(self, timeout: float = 10) -> None:
        """Wait until the thread has ended, after the last line was closed."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._guards:
                    self._thread = None
                    return
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._wake.wait(wait)
                    continue
                when_due, _, guard = heapq.heappop(self._due)
                if guard not in self._guards or when_due != guard.scheduled:
                    continue  # closed meanwhile, or a nearer look was pushed after this one
                guard.scheduled = float("inf")
            # Outside the lock: condemning closes sockets.
            when = self._look(guard)
            with self._wake:
                if when is None:
                    self._guards.discard(guard)
                elif guard in self._guards and when < guard.scheduled:
                    self._push(when, guard)

    @staticmethod
    def _look(guard: Guard) -> float | None:
        try:
            return guard.next_look(time.monotonic())
        except Exception as error:
            # A defect of ours, met by one line: without this thread all the others would wait for ever.
            told = f"a wait took too long; a defect of ascend-deploy: {type(error).__name__}: {error}"
            guard.condemn(LineLost(f"{guard.name}: {told}", cause="closed", host=guard.name))
            return None

    def _push(self, when: float, guard: Guard) -> None:
        """With the lock held."""
        guard.scheduled = when
        heapq.heappush(self._due, (when, next(self._count), guard))
        if self._due[0][2] is guard:
            self._wake.notify()

    def after_fork(self) -> None:
        """A forked child has no threads, and none of the parent's lines."""
        self.__init__()  # type: ignore[misc]


WATCHDOG = Watchdog()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WATCHDOG.after_fork)
