"""The TCP connection below a line: made within a limit, watched, counted, and closed so that everybody
wakes up.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import queue
import select
import socket
import sys
import threading
import time
from typing import Any, Protocol

from toolkit.errors import Unreachable
from toolkit.remote.text import plain
from toolkit.remote.watchdog import Guard

_LOOK = 0.2  # seconds between two looks whether a connection that is being made was ended
_HEAD = 512  # bytes of the greeting that are kept to tell what kind of server it is
_GREETING_MAX = 65536  # RFC 4253 4.2 lets a server talk before its banner, but not for ever

_NO_ROUTE = {
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.ENETDOWN,
    errno.EPERM,
    errno.EACCES,
}

JUMP_HINTS = {
    "refused": "is the jump host up, is sshd running on it, is its port right (board.jump)?",
    "connect-timeout": "is the jump host up and in this network, does a firewall drop the packets?",
    "no-route": "check the network, and the jump host's address (board.jump)",
    "name-unknown": "check the jump host's name: board.jump, or HostName in the ssh config",
    "not-ssh": "another service has this port: check the port in board.jump",
    "no-banner": "the jump host's sshd hangs, or turns new connections away (MaxStartups, fail2ban): try again later",
    "auth-timeout": "the jump host is overloaded, or its PAM or name service hangs",
}
"""What to do where it is a jump host that cannot be reached, by cause."""


class Stream(Protocol):
    """What paramiko needs of a socket, and what a channel through a jump host has as well."""

    def send(self, data: Any, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, timeout: float | None, /) -> None: ...
    def close(self) -> None: ...


class Wire:
    """A socket (or a jump host's channel) that tells the guard whenever bytes move.

    ``sent`` and ``received`` count bytes on the wire, encrypted; ``head`` holds the first bytes received;
    ``error`` the first error of the socket, which paramiko turns into a bare EOFError.
    """

    def __init__(self, stream: Stream, guard: Guard) -> None:
        self._stream = stream
        self._guard = guard
        self._closed = False  # the name that paramiko's stop_thread looks at
        self._inside = 0  # threads in send() or recv()
        self._released = False
        self._lock = threading.Lock()
        self.sent = 0
        self.received = 0
        self.head = b""
        self.greeted = False
        self.error: OSError | None = None

    def send(self, data: Any) -> int:
        self._enter()
        try:
            count = self._stream.send(data)
        except OSError as error:
            raise self._broken(error) from None
        finally:
            self._leave()
        self.sent += count
        self._guard.moved = time.monotonic()
        return count

    def recv(self, size: int) -> bytes:
        if self._closed:
            return b""  # what still comes in is nobody's any more
        self._enter()
        try:
            data = self._stream.recv(size)
        except OSError as error:
            raise self._broken(error) from None
        finally:
            self._leave()
        self.received += len(data)
        self._guard.moved = time.monotonic()
        if not self.greeted:
            self.head = (self.head + data)[:_HEAD]
            if self.received > _GREETING_MAX:
                raise EOFError
        return data

    def _enter(self) -> None:
        with self._lock:
            self._inside += 1

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            self._give_up()

    def _give_up(self) -> None:
        """With the lock held."""
        if self._released and not self._inside and isinstance(self._stream, socket.socket):
            self._stream.close()

    def _broken(self, error: OSError) -> OSError:
        """Note an error of the socket; a time-out of ours (no errno) is none, the kernel's ETIMEDOUT is."""
        if isinstance(error, TimeoutError) and error.errno is None:
            return error
        self.error = self.error or error
        # paramiko would take the kernel's for ours, and try again on a socket that is dead.
        return ConnectionAbortedError(*error.args) if isinstance(error, TimeoutError) else error

    def settimeout(self, timeout: float | None) -> None:
        self._stream.settimeout(timeout)

    def getpeername(self) -> Any:
        return self._stream.getpeername() if isinstance(self._stream, socket.socket) else ("", 0)

    def close(self) -> None:
        """End the connection at once: whoever waits in recv() or send() is woken, which a plain close() would not do.

        The descriptor stays open until :meth:`release`. Given up here, its number could go to the next board's
        connection before a thread that was woken has looked: it would go on waiting, on that one.
        """
        self._closed = True
        # A jump host's channel is left alone: closing it would send a message, which can block. Its connection is
        # closed as well, and ends it.
        if isinstance(self._stream, socket.socket):
            with self._lock, contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the descriptor back: at once where no thread is in recv() or send(), else when the last one leaves."""
        with self._lock:
            self._closed = self._released = True
            self._give_up()


def dial(host: str, port: int, guard: Guard, who: str) -> socket.socket:
    """Open a TCP connection within ``guard.limits.connect`` seconds, names and all addresses together.

    :raises Unreachable: causes refused, no-route, connect-timeout, name-unknown.
    """
    limit = guard.limits.connect
    end = time.monotonic() + limit
    where = f"{host}:{port}"
    failures: list[OSError] = []
    # All of this has its own ends, with better words than the watchdog's: it is told of us so that we can be ended.
    guard.begin(limit + 1, lambda: _connect_error([TimeoutError()], who, guard.name, where, limit))
    addresses = _resolve(host, port, guard, who)
    for index, (family, address) in enumerate(addresses):
        guard.check()
        # An address that swallows packets must leave time for the next one.
        share = max(0.05, (end - time.monotonic()) / (len(addresses) - index))
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _tune(sock, guard.limits.silence)
            _connect(sock, address, share, guard)
        except OSError as error:
            sock.close()
            failures.append(error)
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    raise _connect_error(failures, who, guard.name, where, limit)


def _connect(sock: socket.socket, address: Any, limit: float, guard: Guard) -> None:
    """As ``sock.connect(address)`` within ``limit`` seconds, but looks now and then whether the line was ended."""
    end = time.monotonic() + limit
    sock.setblocking(False)
    code = sock.connect_ex(address)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        guard.check()
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if poll.poll(1000 * min(left, _LOOK)):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.settimeout(limit)


def _resolve(host: str, port: int, guard: Guard, who: str) -> list[tuple[int, Any]]:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return [(socket.AF_INET if address.version == 4 else socket.AF_INET6, (host, port))]
    # getaddrinfo knows no timeout, and a dead name server can hold it for half a minute.
    answer: queue.SimpleQueue[list[tuple[int, Any]] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([(family, address) for family, _, _, _, address in found])
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name="resolve-name", daemon=True).start()
    end = time.monotonic() + guard.limits.connect
    found: list[tuple[int, Any]] | OSError | UnicodeError | None = None
    while found is None and (left := end - time.monotonic()) > 0:
        guard.check()
        with contextlib.suppress(queue.Empty):
            found = answer.get(timeout=min(left, _LOOK))
    if found is None:
        why = f"no answer from the name server within {guard.limits.connect:g} s"
    else:
        if isinstance(found, list):
            return found
        why = (found.strerror if isinstance(found, OSError) else None) or str(found)
    raise Unreachable(
        f"{who}: the name {host} is not known: {why}",
        cause="name-unknown",
        host=guard.name,
        hint="check board.host, or HostName in the ssh config; an IP address works too",
    )


def _connect_error(failures: list[OSError], who: str, name: str, where: str, limit: float) -> Unreachable:
    """Name the cause from all addresses' failures: one refusal says more than a silence beside it."""

    def unreachable(cause: str, message: str, hint: str) -> Unreachable:
        return Unreachable(f"{who}: {message}", cause=cause, host=name, hint=hint)

    if any(isinstance(failure, ConnectionRefusedError) for failure in failures):
        return unreachable(
            "refused",
            f"nothing listens on {where}",
            "is the board up, is sshd running, is the port right (board.port)?",
        )
    if all(isinstance(failure, TimeoutError) for failure in failures):
        return unreachable(
            "connect-timeout",
            f"no answer from {where} within {limit:g} s",
            "is the board switched on and in this network, does a firewall drop the packets?",
        )
    worst = next((f for f in failures if f.errno in _NO_ROUTE), failures[-1])
    text = worst.strerror or str(worst)
    return unreachable(
        "no-route", f"cannot reach {where}: {text}", "check cable, network and address of the board"
    )


def _tune(sock: socket.socket, silence: float) -> None:
    """No Nagle: a small packet must not wait for an acknowledgement. Dead peers: a second net below the
    watchdog.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(1, int(silence))
    options = [("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", max(1, seconds // 3)), ("TCP_KEEPCNT", 3)]
    if sys.platform == "linux":
        # Later than the watchdog, whose error is the better one.
        options.append(("TCP_USER_TIMEOUT", (2 * seconds + 5) * 1000))
    for option, value in options:
        number = getattr(socket, option, None)
        if number is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, number, value)


def greeting_error(wire: Wire, who: str, name: str, where: str, limit: float, late: bool) -> Unreachable:
    """Say what was wrong with a server that never sent an SSH banner."""
    said = plain(wire.head, 60)
    if wire.head and not wire.head.startswith(b"SSH-"):
        return Unreachable(
            f"{who}: {where} is not an SSH server: it says {said!r}",
            cause="not-ssh",
            host=name,
            hint="another service has this port: check board.port",
        )
    what = f"sent no SSH banner within {limit:g} s" if late else "closed the connection before its SSH banner"
    return Unreachable(
        f"{who}: {where} {what}",
        cause="no-banner",
        host=name,
        hint="sshd hangs, or turns new connections away (MaxStartups, fail2ban, hosts.deny): look at the "
        "board's own console, or try again later",
    )
