"""The line to a board: a byte duplex with an end to every wait. Fabric, OpenSSH and local lines all are
one.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from toolkit.errors import ConfigError
from toolkit.remote.address import Address, Limits
from toolkit.remote.text import plain


class Line(Protocol):
    """Bytes to and from one command on a board, over one connection and one channel.

    All methods raise :class:`toolkit.errors.Unreachable` or :class:`toolkit.errors.LineLost`, each with its
    cause.
    """

    @property
    def sent(self) -> int:
        """Payload bytes handed over so far."""

    @property
    def received(self) -> int:
        """Payload bytes taken so far."""

    @property
    def connections(self) -> int:
        """TCP connections made from this machine: 1 (jump hosts are reached through each other)."""

    @property
    def channels(self) -> int:
        """Channels opened on the board: 1."""

    @property
    def host_key(self) -> str:
        """What the server showed, as ``ssh-ed25519 AAAA…``; "" where there is none (local, openssh)."""

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""

    def recv(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes, or ``b""`` when the far side has closed its output."""

    def close(self) -> None:
        """End the line at once. May be called twice, and from any thread."""

    def stderr_tail(self) -> str:
        """Return the last 20 lines that the far side wrote to stderr, without control codes."""


def open_line(address: Address, limits: Limits, command: str) -> Line:
    """Connect to ``address``, log in, open one channel and start ``command`` (a line for its shell) on it.

    :raises Unreachable: no session could be had; ``cause`` says why.
    :raises ConfigError: the address itself is no good.
    """
    if address.client == "fabric":
        from toolkit.remote.fabric_line import FabricLine

        return FabricLine.open(address, limits, command)
    if address.client == "openssh":
        from toolkit.remote.openssh_line import OpensshLine

        return OpensshLine.open(address, limits, command)
    if address.client == "local":
        from toolkit.remote import local_line

        return local_line.open_line(address, limits, command)
    raise ConfigError(
        f"{address.name}: ssh.client={address.client} is not known", hint="use fabric, openssh or local"
    )


class Tail:
    """The last ``lines`` lines of a stream, at most 400 characters of each; safe to feed and read from two
    threads.
    """

    def __init__(self, lines: int = 20) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._rest = b""
        self._lock = threading.Lock()

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream, cut anywhere."""
        with self._lock:
            *whole, rest = (self._rest + data).split(b"\n")
            # A far side that never ends its line must not fill our memory.
            self._rest = rest[-4096:]
            self._lines.extend(plain(line) for line in whole[-20:])

    def __str__(self) -> str:
        """The lines, joined by newlines; an unfinished last one counts."""
        with self._lock:
            lines = [*self._lines, *([plain(self._rest)] if self._rest else [])]
        return "\n".join(lines[-20:])
