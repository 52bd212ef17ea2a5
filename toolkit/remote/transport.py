# mypy: disable-error-code="attr-defined,misc"
# (the stubs of paramiko leave out what begins with an underscore)
"""paramiko's Transport, with the order of algorithms, the round trips and the waits that we want.

Differences to paramiko's own, each for a measured reason:

* AES-GCM first (half the CPU of CTR and a MAC); elliptic curves before everything else; nothing with SHA-1 or
  MD5.
* No timer thread per handshake, no waking up ten times a second: the watchdog has the deadlines.
* The service request and the authentication go out together, and ``exec`` does not wait to be confirmed: two
  round trips saved. RFC 4252 4 and RFC 4254 5.4 allow both.
* ``ServiceRequestingTransport`` asks for the service once for all login attempts (paramiko's plain Transport
  asks again for each), but sleeps 0.1 s while it waits and sets its event only after sending; both are mended
  here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import (
    cMSG_CHANNEL_REQUEST,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_REQUEST,
)
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.transport import ServiceRequestingTransport

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
_KEX = (
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    # Post-quantum costs most of the CPU of a connection; only for servers that insist on it.
    "mlkem768x25519-sha256",
)


class _Packetizer(Packetizer):
    def start_handshake(self, timeout: float) -> None:
        """The original starts a threading.Timer, which outlives a broken handshake. The watchdog does
        this.
        """


class LineTransport(ServiceRequestingTransport):
    """See the module's docstring. ``key_types`` are the host key algorithms to ask for, the best first."""

    _preferred_ciphers = _CIPHERS
    _preferred_macs = _MACS
    _preferred_kex = tuple(name for name in _KEX if name in paramiko.Transport._kex_info)
    # How often the reading thread looks whether it should end; closing the socket wakes it anyway.
    _active_check_timeout = 5.0

    def __init__(self, sock: Any, key_types: Sequence[str] = (), **options: Any) -> None:
        super().__init__(sock, packetizer_class=_Packetizer, **options)
        if key_types:
            self._preferred_keys = tuple(key_types)
        self._asked_for_service = False
        self.offered: dict[str, list[str]] = {}
        """What the server can do, by kind, for messages."""
        self.login_methods: list[str] = []
        """What the server said it takes, when it last refused a login."""
        self.channel_refusal = ""
        """The server's words when it refused a channel; paramiko keeps the number only."""
        # Each of these waits is watched, with a better error; paramiko's own limits must not come first.
        self.banner_timeout = self.auth_timeout = self.channel_timeout = self.clear_to_send_timeout = 86400.0

    def _check_banner(self) -> None:
        super()._check_banner()
        # Up to here the server may say anything, so what it says is kept and limited; now it is SSH.
        self.sock.greeted = True  # type: ignore[union-attr]

    def ensure_session(self) -> None:
        """Ask for the authentication service, once, and do not wait: the answer comes before the next one."""
        if not self.active or not self.initial_kex_done:
            raise self.get_exception() or paramiko.SSHException("No existing session")
        if not self._asked_for_service:
            message = Message()
            message.add_byte(cMSG_SERVICE_REQUEST)
            message.add_string("ssh-userauth")
            self.auth_handler = _AuthHandler(self)
            self._send_message(message)
            self._asked_for_service = True

    def _really_parse_kex_init(self, m: Message, ignore_first_byte: bool = False) -> Any:
        parsed = super()._really_parse_kex_init(m, ignore_first_byte)
        if not ignore_first_byte:  # with it, paramiko looks at its own message
            self.offered = {
                "key exchange": parsed["kex_algo_list"],
                "host key": parsed["server_key_algo_list"],
                "cipher": parsed["server_encrypt_algo_list"],
                "MAC": parsed["server_mac_algo_list"],
            }
        return parsed

    def _parse_channel_open_failure(self, m: Message) -> None:
        m.get_int()
        m.get_int()
        self.channel_refusal = m.get_text()
        m.rewind()
        super()._parse_channel_open_failure(m)

    def start_exec(self, channel: paramiko.Channel, command: str) -> None:
        """Ask for ``command`` on ``channel`` without waiting for the confirmation (see
        :func:`exec_refused`).
        """
        message = Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        channel._event_pending()
        self._send_user_message(message)


def exec_refused(channel: paramiko.Channel) -> bool:
    """Whether the server said no to the channel's exec request (paramiko then closes the channel)."""
    return bool(channel.closed and not channel.event_ready)


class _AuthHandler(AuthOnlyHandler):
    def _parse_userauth_failure(self, m: Message) -> None:
        self.transport.login_methods = m.get_list()
        m.rewind()
        super()._parse_userauth_failure(m)

    def send_auth_request(
        self, username: str, method: str, finish_message: Callable[[Message], None] | None = None
    ) -> list[str]:
        """As paramiko's, but the event is there before the answer can come: else a quick server is never
        heard.
        """
        self.auth_method = method
        self.username = username
        message = Message()
        message.add_byte(cMSG_USERAUTH_REQUEST)
        message.add_string(username)
        message.add_string("ssh-connection")
        message.add_string(method)
        if finish_message is not None:
            finish_message(message)
        self.auth_event = event = threading.Event()
        with self.transport.lock:
            self.transport._send_message(message)
        allowed: list[str] = self.wait_for_response(event)
        return allowed
