"""A line to this machine: the same command in a subprocess, over pipes, with the same ends to every wait."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import threading
import time

from toolkit.errors import LineLost, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.line import Tail

# How often a waiting caller looks whether the line was closed.
_LOOK = 0.2


class LocalLine:
    """A :class:`toolkit.remote.line.Line` over the pipes of a child process, which leads a process group."""

    host_key = ""
    connections = 1
    channels = 1

    def __init__(self, process: subprocess.Popen[bytes], name: str, limits: Limits) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.sent = 0
        self.received = 0
        self._process, self._name, self._limits = process, name, limits
        self._end = time.monotonic() + limits.board
        self._in, self._out = process.stdout.fileno(), process.stdin.fileno()
        self._err = process.stderr.fileno()
        os.set_blocking(self._out, False)
        os.set_blocking(self._err, False)
        # Sending, receiving and closing may happen in different threads: a descriptor is closed when nobody waits on
        # it. Its number goes to whoever opens something next, and the kernel would let the thread wait on that.
        self._sending, self._receiving, self._closing = threading.Lock(), threading.Lock(), threading.Lock()
        self._tail = Tail()
        self._closed = threading.Event()
        self._err_open = True

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; see :class:`toolkit.remote.line.Line`."""
        view = memoryview(data)
        with self._sending:
            while view:
                self._wait(self._out, writing=True)
                try:
                    count = os.write(self._out, view[: 1 << 16])
                except BlockingIOError:
                    continue
                except OSError as problem:
                    raise self._lost("closed", "the far side stopped listening") from problem
                self.sent += count
                view = view[count:]

    def recv(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes, or ``b""``; see :class:`toolkit.remote.line.Line`."""
        with self._receiving:
            self._wait(self._in, writing=False)
            data = os.read(self._in, size)
            if not data:
                self._drain()
            self.received += len(data)
            return data

    def _wait(self, handle: int, *, writing: bool) -> None:
        """Until ``handle`` is ready; reads the far side's stderr meanwhile, so that it never blocks on it."""
        silent = time.monotonic() + self._limits.silence
        while True:
            if self._closed.is_set():
                raise self._lost("closed", "the line was closed")
            now = time.monotonic()
            if now >= self._end:
                raise self._lost("board-deadline", f"it took longer than {self._limits.board:g} s in all")
            if now >= silent:
                raise self._lost("silence", f"nothing moved for {self._limits.silence:g} s")
            ready = self._poll(handle, writing, min(silent - now, self._end - now, _LOOK))
            if self._err in ready:
                self._read_stderr()
            if handle in ready:
                return

    def _poll(self, handle: int, writing: bool, timeout: float) -> set[int]:
        poll = select.poll()  # select() knows no numbers above 1023
        if self._err_open:
            poll.register(self._err, select.POLLIN)
        if handle != self._err:
            poll.register(handle, select.POLLOUT if writing else select.POLLIN)
        return {number for number, _ in poll.poll(math.ceil(timeout * 1000))}

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._err, 65536)
        except BlockingIOError:  # who sends was quicker than who receives
            return
        self._tail.feed(data)
        self._err_open = bool(data)

    def _drain(self) -> None:
        """After the end: what stderr still holds."""
        while self._err_open and not self._closed.is_set() and self._poll(self._err, False, _LOOK):
            self._read_stderr()

    def _lost(self, cause: str, why: str) -> LineLost:
        return LineLost(f"{self._name}: {why}", cause=cause, host=self._name, detail=str(self._tail))

    def stderr_tail(self) -> str:
        """The last 20 lines of the far side's stderr."""
        return str(self._tail)

    def close(self) -> None:
        """Close the pipes; an agent that does not leave by itself within 2 s is killed with its group."""
        with self._closing:
            if self._closed.is_set():
                return
            self._closed.set()
        with self._sending, self._receiving:
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                with contextlib.suppress(OSError):
                    if stream:
                        stream.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def open_line(address: Address, limits: Limits, command: str) -> LocalLine:
    """Start ``command`` (a line for a shell) on this machine, as sshd would: in a session of its own.

    :raises Unreachable: there is no shell here.
    """
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as problem:
        raise Unreachable(
            f"{address.name}: the shell cannot be started: {problem}",
            cause="channel-refused",
            host=address.name,
        ) from problem
    return LocalLine(process, address.name, limits)
