"""A line over Fabric and paramiko: one TCP connection, one channel, host key checked, every wait watched."""

from __future__ import annotations

import threading

import paramiko

from toolkit.errors import LineLost, RemoteError, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.connector import Connector
from toolkit.remote.line import Tail
from toolkit.remote.text import plain
from toolkit.remote.transport import exec_refused

# How often a waiting caller takes what arrived on stderr, so that it cannot fill the channel's window.
_LOOK_AT_STDERR = 0.5


class FabricLine:
    """See :class:`toolkit.remote.line.Line`."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self.sent = 0
        self.received = 0
        self.channels = 0
        self._name = address.name
        self._limits = limits
        self._connector = Connector(address, limits)
        self._guard = self._connector.guard
        self._channel: paramiko.Channel | None = None
        self._stderr = Tail()
        self._draining = threading.Lock()

    @classmethod
    def open(cls, address: Address, limits: Limits, command: str) -> FabricLine:
        """See :func:`toolkit.remote.line.open_line`."""
        line = cls(address, limits)
        try:
            line._connect(command)
        except BaseException:
            line.close()
            raise
        return line

    @property
    def connections(self) -> int:
        """TCP connections made from this machine."""
        return self._connector.connections

    @property
    def host_key(self) -> str:
        """What the board showed, as ``ssh-ed25519 AAAA…``."""
        return self._connector.host_key

    def _connect(self, command: str) -> None:
        transport = self._connector.log_in()
        self._guard.begin(self._limits.channel, self._channel_timeout)
        try:
            self._channel = transport.open_session()
            self.channels += 1
            self._channel.settimeout(_LOOK_AT_STDERR)
            transport.start_exec(self._channel, command)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._guard.fate or self._channel_error(error) from None
        self._guard.ready()

    # ---- traffic

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`toolkit.remote.line.Line.send`."""
        channel = self._open_channel()
        view = memoryview(data).cast("B")
        with self._guard.traffic():
            while view:
                try:
                    count = channel.send(view)  # type: ignore[arg-type]
                except TimeoutError:
                    self._take_stderr()
                    self._guard.check()
                    continue
                except (OSError, EOFError, paramiko.SSHException):
                    count = 0
                if count == 0:
                    self._take_stderr()
                    raise self._ended(channel)
                self.sent += count
                view = view[count:]

    def recv(self, size: int) -> bytes:
        """See :meth:`toolkit.remote.line.Line.recv`."""
        channel = self._open_channel()
        with self._guard.traffic():
            while True:
                self._take_stderr()
                try:
                    data = channel.recv(size)
                except TimeoutError:
                    self._guard.check()
                    continue
                except (OSError, EOFError, paramiko.SSHException):
                    raise self._ended(channel) from None
                if data:
                    self.received += len(data)
                    return data
                self._take_stderr()
                if self._guard.fate is None and not exec_refused(channel) and _ended_cleanly(channel):
                    return b""
                raise self._ended(channel)

    def stderr_tail(self) -> str:
        """See :meth:`toolkit.remote.line.Line.stderr_tail`."""
        self._take_stderr()
        return str(self._stderr)

    def close(self) -> None:
        """See :meth:`toolkit.remote.line.Line.close`."""
        self._connector.close()

    def _channel_timeout(self) -> Unreachable:
        return Unreachable(
            f"{self._name}: the server opened no channel within {self._limits.channel:g} s",
            cause="channel-timeout",
            host=self._name,
            hint="the board is overloaded or out of memory: look at it, then run again",
        )

    def _channel_error(self, error: Exception) -> RemoteError:
        if not isinstance(error, paramiko.ChannelException):
            lost = self._lost()
            if lost.cause != "closed":
                return lost
        why = plain(str(getattr(error, "text", "") or error), 120) or "the connection was closed"
        return Unreachable(
            f"{self._name}: the server refuses a channel: {why}",
            cause="channel-refused",
            host=self._name,
            hint="does the account allow commands (MaxSessions, ForceCommand, a locked shell)?",
        )

    def _open_channel(self) -> paramiko.Channel:
        if self._channel is None or self._guard.closed:
            raise LineLost(f"{self._name}: the line is closed", cause="closed", host=self._name)
        return self._channel

    def _ended(self, channel: paramiko.Channel) -> RemoteError:
        if self._guard.fate is None and exec_refused(channel) and _ended_cleanly(channel):
            return self._channel_error(paramiko.ChannelException(1, "the command was not accepted"))
        return self._lost()

    def _lost(self) -> RemoteError:
        return self._connector.lost(self.stderr_tail())

    def _take_stderr(self) -> None:
        channel = self._channel
        if channel is None or not channel.recv_stderr_ready():
            return
        with self._draining:
            while channel.recv_stderr_ready():
                try:
                    self._stderr.feed(channel.recv_stderr(65536))
                except (OSError, EOFError, paramiko.SSHException):
                    return


def _ended_cleanly(channel: paramiko.Channel) -> bool:
    """Whether the far side ended the channel, not a broken connection: paramiko answers a close with an
    eof.
    """
    return bool(channel.eof_received or channel.eof_sent)
