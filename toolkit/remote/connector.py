"""Reaching and logging in to a board with Fabric and paramiko, and naming what went wrong."""

from __future__ import annotations

import copy
import errno
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fabric
import paramiko
from paramiko.auth_strategy import AuthSource, AuthStrategy

from toolkit.errors import LineLost, RemoteError, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.hostkeys import HostKey, HostKeyCheck
from toolkit.remote.login import Login
from toolkit.remote.route import Hop, route
from toolkit.remote.text import plain
from toolkit.remote.transport import LineTransport
from toolkit.remote.watchdog import Guard
from toolkit.remote.wire import JUMP_HINTS, Stream, Wire, dial, greeting_error

# paramiko reports on broken connections by itself, through Python's handler of last resort; ours are the
# errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@functools.lru_cache(maxsize=1)
def _first_config() -> Any:
    """Fabric's Config, made once: that costs more than connecting, and reads files of others.

    ssh_config is not Fabric's business here (see :mod:`toolkit.remote.route`), nor are fabric.yaml files.
    """
    return fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True)


def own_config() -> Any:
    """A Config for one Connection. It writes into it when it is made, and the Config is empty for a moment then:

    two boards at once would find no settings in a shared one.
    """
    config = copy.copy(_first_config())
    config._set(_modifications={}, _config={})
    config.merge()
    return config


class _Policy(paramiko.MissingHostKeyPolicy):
    """paramiko asks this for every key, since we give it no known_hosts of its own; it decides, strictly."""

    def __init__(self, check: HostKeyCheck) -> None:
        self._check = check

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self._check(HostKey(key.get_name(), key.asbytes()))


class Connector:
    """The connection of one line: what it consists of, who watches it, and how it is ended."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self.address = address
        self.limits = limits
        self.guard = Guard(address.name, limits, self.kill)
        self.connections = 0
        self.host_key = ""
        self._wires: list[Wire] = []
        self._links: list[tuple[Any, LineTransport]] = []

    def log_in(self) -> LineTransport:
        """Connect to the board, through its jump hosts, check all host keys, and log in.

        :raises Unreachable: with the cause.
        """
        *jumps, board = route(self.address)
        self._pass(jumps)
        self._log_in(board, self._reach(board))
        return self._links[-1][1]

    def host_key_only(self, algorithms: Sequence[str]) -> HostKey:
        """Return the key that the board shows when only ``algorithms`` are asked for; do not log in to it.

        :raises Unreachable: cause kex-failed when it has none of these.
        """
        *jumps, board = route(self.address)
        self._pass(jumps)
        wire = self._reach(board)
        transport = LineTransport(wire, algorithms)
        made = [transport]
        self._links.append((None, transport))
        self.guard.begin(self.limits.banner, lambda: self._handshake_error(board, wire, made, None))
        try:
            transport.start_client()
            key = transport.get_remote_server_key()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.guard.fate or self._handshake_error(board, wire, made, error) from None
        return HostKey(key.get_name(), key.asbytes())

    def kill(self) -> None:
        """Shut the sockets, so that all waits end. Never blocks: closing a channel would send a message."""
        for wire in self._wires:
            wire.close()

    def close(self) -> None:
        """End the connection; its threads are gone when this returns."""
        self.guard.close()
        self.kill()
        for connection, transport in reversed(self._links):
            if connection is not None:
                connection.client.close()
            transport.close()
            if transport.is_alive() and transport is not threading.current_thread():
                # Its socket is shut, so this is about the time to switch threads.
                transport.join(5)
        for wire in self._wires:
            wire.release()

    def _who(self, hop: Hop) -> str:
        return self.address.name if hop.board else f"{self.address.name}: jump host {hop.host}"

    def _pass(self, jumps: Sequence[Hop]) -> None:
        """Log in to the jump hosts. What to do is about them, not about the board."""
        try:
            for hop in jumps:
                self._log_in(hop, self._reach(hop))
        except Unreachable as error:
            error.hint = JUMP_HINTS.get(error.cause, error.hint)
            raise

    def _reach(self, hop: Hop) -> Wire:
        """A wire to ``hop``: a TCP connection to the first one, a channel of the hop before to the others."""
        who = self._who(hop)
        stream: Stream
        if not self._links:
            stream = dial(hop.host, hop.port, self.guard, who)
            self.connections += 1
        else:
            stream = self._through(hop, self._links[-1][1])
        wire = Wire(stream, self.guard)
        self._wires.append(wire)
        return wire

    def _through(self, hop: Hop, jump: LineTransport) -> Stream:
        self.guard.begin(
            self.limits.connect,
            lambda: Unreachable(
                f"{self.address.name}: the jump host got no answer from {hop.where} within "
                f"{self.limits.connect:g} s",
                cause="connect-timeout",
                host=self.address.name,
                hint="is the board switched on, and can the jump host reach it?",
            ),
        )
        try:
            channel = jump.open_channel("direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.guard.fate or self._jump_error(hop, jump, error) from None
        return channel

    def _log_in(self, hop: Hop, wire: Wire) -> None:
        who, guard, limits = self._who(hop), self.guard, self.limits
        check = HostKeyCheck(
            self.address,
            hop.host,
            hop.port,
            alias=hop.key_alias,
            pinned=self.address.host_key if hop.board else "",
            who=who,
        )
        made: list[LineTransport] = []

        def transport(sock: Wire, **options: Any) -> LineTransport:
            made.append(LineTransport(sock, check.key_types(), **options))
            return made[0]

        connection = fabric.Connection(
            hop.host,
            user=hop.user,
            port=hop.port,
            config=own_config(),
            gateway=False,
            connect_kwargs={
                "sock": wire,
                "transport_factory": transport,
                "auth_strategy": _Watched(
                    Login(self.address, hop, who), guard, limits, lambda: self._auth_timeout(hop)
                ),
            },
        )
        connection.client.set_missing_host_key_policy(_Policy(check))
        guard.begin(limits.banner, lambda: self._handshake_error(hop, wire, made, None))
        try:
            connection.open()
        except RemoteError as error:
            raise self.guard.fate or error from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.guard.fate or self._handshake_error(hop, wire, made, error) from None
        finally:
            self._links.extend((connection, link) for link in made)
            if hop.board and check.shown:
                self.host_key = str(check.shown)

    # ---- what went wrong

    def _handshake_error(
        self, hop: Hop, wire: Wire, made: list[LineTransport], error: Exception | None
    ) -> Unreachable:
        """Name the cause from how far the connection came. ``error`` None: the time for this was over."""
        name, who, limit = self.address.name, self._who(hop), self.limits.banner
        if not made or not made[0].remote_version:
            return greeting_error(wire, who, name, hop.where, limit, late=error is None)
        transport = made[0]
        server = plain(transport.remote_version, 60)
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            return kex_error(who, name, hop.where, server, transport)
        if not transport.initial_kex_done:
            why = f"not done within {limit:g} s" if error is None else self._why(error, wire)
            return Unreachable(
                f"{who}: key exchange with {hop.where} ({server}) failed: {why}",
                cause="kex-failed",
                host=name,
                hint="the server hangs or breaks off: look at sshd's log on the board",
            )
        return Unreachable(
            f"{who}: {hop.where} ended the connection during the login: {self._why(error, wire)}",
            cause="auth-failed",
            host=name,
            hint="too many keys offered? name one with board.key_file; else see sshd's log on the board",
        )

    def _why(self, error: Exception | None, wire: Wire) -> str:
        cause = wire.error or error
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        return plain(str(cause or ""), 120) or "the connection was closed"

    def _auth_timeout(self, hop: Hop) -> Unreachable:
        return Unreachable(
            f"{self._who(hop)}: {hop.where} did not answer the login of {hop.user} within "
            f"{self.limits.auth:g} s",
            cause="auth-timeout",
            host=self.address.name,
            hint="the board is overloaded, or its PAM or name service hangs (UseDNS no helps)",
        )

    def _jump_error(self, hop: Hop, jump: LineTransport, error: Exception) -> RemoteError:
        if not isinstance(error, paramiko.ChannelException):
            return self.lost()
        text = plain(jump.channel_refusal or str(error.text), 120)
        low = text.lower()
        if "refused" in low:
            cause, hint = "refused", "is sshd running on the board, is the port right (board.port)?"
        elif "resol" in low or "name or service" in low:
            cause, hint = "name-unknown", "the jump host must know the board's name; an IP address works too"
        elif error.code == 1:
            cause, hint = "channel-refused", "the jump host forbids forwarding (AllowTcpForwarding)"
        elif "timed out" in low:
            cause, hint = "connect-timeout", "is the board switched on, and can the jump host reach it?"
        else:
            cause, hint = "no-route", "can the jump host reach the board?"
        return Unreachable(
            f"{self.address.name}: the jump host cannot reach {hop.where}: {text}",
            cause=cause,
            host=self.address.name,
            hint=hint,
        )

    def lost(self, detail: str = "") -> RemoteError:
        """Name the cause of a session that broke, after all that had arrived was taken."""
        if self.guard.fate is not None:
            return self.guard.fate
        for wire in self._wires:
            number = wire.error.errno if wire.error is not None else None
            if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
                return self._line_lost(
                    detail, "reset", "the connection was reset", "did the board restart? run again"
                )
            if number is not None and number not in (errno.EBADF,):
                if isinstance(wire.error, TimeoutError) or number == errno.ETIMEDOUT:
                    return self.guard.silent()
                return self._line_lost(detail, "closed", f"the connection broke: {wire.error}", "run again")
        for _, transport in self._links:
            trouble = transport.saved_exception
            if isinstance(trouble, paramiko.SSHException):
                return self._line_lost(
                    detail,
                    "garbage",
                    f"what arrived is not SSH any more: {plain(str(trouble), 100)}",
                    "run again",
                )
        return self._line_lost(
            detail, "closed", "the board closed the connection", "look at sshd's log on the board"
        )

    def _line_lost(self, detail: str, cause: str, message: str, hint: str) -> LineLost:
        name = self.address.name
        return LineLost(f"{name}: {message}", cause=cause, host=name, hint=hint, detail=detail)


class _Watched(AuthStrategy):
    """A login with its limit: it begins when the host key has been checked."""

    def __init__(self, login: Login, guard: Guard, limits: Limits, late: Callable[[], RemoteError]) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._login = login
        self._guard = guard
        self._limit = limits.auth
        self._late = late

    def get_sources(self) -> Iterator[AuthSource]:
        raise NotImplementedError("authenticate() is replaced as a whole")

    def authenticate(self, transport: Any) -> Any:
        self._guard.begin(self._limit, self._late)
        return self._login.authenticate(transport)


def kex_error(who: str, name: str, where: str, server: str, transport: LineTransport) -> Unreachable:
    """Say which kind of algorithm the two sides have not in common; nearly always an old server with SHA-1
    only.
    """
    ours: dict[str, Sequence[str]] = {
        "key exchange": transport.preferred_kex,
        "host key": transport.preferred_keys,
        "cipher": transport.preferred_ciphers,
        "MAC": transport.preferred_macs,
    }
    kind, offers = next(
        ((kind, theirs) for kind, theirs in transport.offered.items() if not set(theirs) & set(ours[kind])),
        ("algorithm", []),
    )
    offers = [offer for offer in offers if not offer.startswith(("ext-info-", "kex-strict-"))]
    return Unreachable(
        f"{who}: no common {kind} with {where} ({server}): it offers {plain(', '.join(offers), 160) or '?'}",
        cause="kex-failed",
        host=name,
        hint="its sshd is too old (SHA-1 only): update it; or use ssh.client=openssh with the algorithm "
        "allowed in your ssh config",
    )
