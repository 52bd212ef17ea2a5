"""Logging in: which keys to offer in which order, the ssh-agent, and a password from a secret reference."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from paramiko.agent import AgentSSH
from paramiko.ssh_exception import BadAuthenticationType

from toolkit.errors import Unreachable
from toolkit.remote.address import Address
from toolkit.remote.route import Hop
from toolkit.remote.secrets import Secret, resolve
from toolkit.remote.text import plain

# sshd's MaxAuthTries is 6 by default, and it hangs up on the attempt after; one is kept for the password.
_MAX_KEYS = 5
_AGENT_TIMEOUT = 5.0

_BEGIN = b"-----BEGIN "


@dataclass(frozen=True)
class _Loaded:
    """A key, or why there is none."""

    key: paramiko.PKey | None
    why: str = ""


_keys: dict[tuple[str, int, int], _Loaded] = {}
_keys_lock = threading.Lock()
# The key that a server took last, by login and candidates: the same one is offered to the rest of a fleet
# first.
_taken: dict[tuple[str, tuple[str, ...]], bytes] = {}


def load_key(path: str) -> paramiko.PKey | None:
    """Load a private key once per process; None where there is no such file.

    Loading an RSA key costs about 150 ms of CPU, so 64 boards share one.

    :raises _Unreadable: it is there, but encrypted, damaged, not permitted or of a kind that is not
        supported.
    """
    full = os.path.expanduser(path)
    try:
        stat = os.stat(full)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _Unreadable(error.strerror or "cannot be read") from None
    place = (full, stat.st_mtime_ns, stat.st_size)
    with _keys_lock:
        loaded = _keys.get(place)
        if loaded is None:
            loaded = _keys[place] = _read_key(full)
    if loaded.key is None:
        raise _Unreadable(loaded.why)
    return loaded.key


class _Unreadable(Exception):
    """A key file that is there but of no use."""


def _read_key(path: str) -> _Loaded:
    # The errors of the libraries may carry bytes of the key: only our own words go on.
    try:
        data = Path(path).read_bytes()
        if not data.lstrip().startswith(_BEGIN):
            return _Loaded(None, "is not a private key (is it the .pub file?)")
        return _Loaded(_parse_key(path, data))
    except OSError as error:
        return _Loaded(None, error.strerror or "cannot be read")
    except (TypeError, paramiko.PasswordRequiredException):
        return _Loaded(None, "is protected by a passphrase: add it to the ssh-agent (ssh-add)")
    except Exception:
        return _Loaded(None, "is damaged, or of a kind that is not supported (ed25519, rsa, ecdsa are)")


def _parse_key(path: str, data: bytes) -> paramiko.PKey:
    """Read a key as ``PKey.from_path`` does, where that can.

    It parses an RSA key twice, and half of all ECDSA keys without a comment not at all: where OpenSSH's
    format needs no padding, its ``_unpad_openssh`` takes the last byte of the empty comment's length for
    that of the padding.
    """
    load = (
        serialization.load_ssh_private_key
        if b"BEGIN OPENSSH" in data[:40]
        else serialization.load_pem_private_key
    )
    loaded = load(data, password=None)
    key: paramiko.PKey
    if isinstance(loaded, rsa.RSAPrivateKey):
        key = paramiko.RSAKey(key=loaded)
    elif isinstance(loaded, ec.EllipticCurvePrivateKey):
        key = paramiko.ECDSAKey(vals=(loaded, loaded.public_key()))
    else:
        key = paramiko.PKey.from_path(path)
    if os.path.exists(path + "-cert.pub"):
        key.load_certificate(path + "-cert.pub")
    return key


class _Agent(AgentSSH):
    """The ssh-agent; unlike paramiko's, it does not wait for ever for one that hangs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_AGENT_TIMEOUT)
        try:
            self._socket.connect(path)
            self._connect(self._socket)  # type: ignore[attr-defined]
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()


class Login:
    """Logs in to one hop; handed to paramiko as its ``auth_strategy``."""

    def __init__(self, address: Address, hop: Hop, who: str) -> None:
        self._address = address
        self._hop = hop
        self._who = who
        self._tried: list[str] = []
        self._problems: list[str] = []
        self._allowed: list[str] = []
        self._agent: _Agent | None = None

    def authenticate(self, transport: Any) -> None:
        """Try the candidates in order until the server takes one.

        :raises Unreachable: cause auth-failed or key-unreadable.
        """
        try:
            if not self._with_keys(transport) and not self._with_password(transport):
                self._allowed = self._allowed or transport.login_methods
                raise self._failure()
        finally:
            if self._agent is not None:
                self._agent.close()

    def _with_keys(self, transport: Any) -> bool:
        memory = (self._hop.user, self._hop.key_files)
        keys = list(self._candidates())
        if len(keys) > 1 and memory in _taken:
            keys.sort(key=lambda pair: pair[1].asbytes() != _taken[memory])
        for label, key in keys[:_MAX_KEYS]:
            self._tried.append(label)
            try:
                self._allowed = transport.auth_publickey(self._hop.user, key)
            except BadAuthenticationType as error:
                self._allowed = list(error.allowed_types)
                return False
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    raise self._failure("the server hung up") from None
                continue
            except (OSError, EOFError, paramiko.SSHException) as error:
                if not transport.is_active():
                    raise
                # The agent could not sign, or the server knows no signature for this key.
                self._problems.append(f"{label}: {plain(str(error), 100) or type(error).__name__}")
                continue
            if not self._allowed:
                _taken[memory] = key.asbytes()
                return True
            return False  # one factor of several; a password may be the other
        return False

    def _candidates(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Keys from files, then from the agent, each once."""
        seen: set[bytes] = set()
        only: set[bytes] = set()
        for path in self._hop.key_files:
            label = Path(path).name
            try:
                key = load_key(path)
            except _Unreadable as error:
                self._problems.append(f"{path} {error}")
                key = None
            else:
                if key is None and path == os.path.expanduser(self._address.key_file):
                    self._problems.append(f"{path} does not exist")
            if key is not None and key.asbytes() not in seen:
                seen.add(key.asbytes())
                yield label, key
            only |= _public_half(path)
        for agent_key in self._agent_keys():
            blob = agent_key.asbytes()
            # A key that has a passphrase may lie open in the agent: that one is as good as named.
            if blob not in seen and (not self._hop.named_keys_only or blob in only):
                seen.add(blob)
                yield f"agent key {plain(agent_key.comment, 40) or agent_key.fingerprint}", agent_key

    def _agent_keys(self) -> tuple[paramiko.AgentKey, ...]:
        path = os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            return ()
        try:
            self._agent = _Agent(path)
        except (OSError, paramiko.SSHException):
            self._problems.append("the ssh-agent does not answer")
            return ()
        return tuple(self._agent.get_keys())

    def _with_password(self, transport: Any) -> bool:
        if not self._address.password or not self._hop.board:
            return False
        secret = Secret(resolve(self._address.password))
        self._tried.append("password")
        try:
            # Falls back on keyboard-interactive by itself, which many embedded systems offer instead.
            self._allowed = transport.auth_password(self._hop.user, secret.reveal())
        except BadAuthenticationType as error:
            self._allowed = list(error.allowed_types)
            return False
        except paramiko.AuthenticationException:
            return False
        return not self._allowed

    def _failure(self, why: str = "") -> Unreachable:
        user, where = self._hop.user, self._hop.where
        tried = ", ".join(self._tried) or "nothing, there is no key and no password to try"
        detail = "; ".join(self._problems)
        allowed = f"; the server takes: {', '.join(map(plain, self._allowed))}" if self._allowed else ""
        if self._problems and not self._tried:
            return Unreachable(
                f"{self._who}: no key for {user}@{where}: {detail}",
                cause="key-unreadable",
                host=self._address.name,
                hint="check board.key_file",
            )
        port = f"-p {self._hop.port} " if self._hop.port != 22 else ""
        return Unreachable(
            f"{self._who}: {user}@{where} refuses the login{': ' + why if why else ''} (tried: "
            f"{tried}){allowed}",
            cause="auth-failed",
            host=self._address.name,
            hint=f"ssh-copy-id {port}{user}@{self._hop.host} puts your key there"
            + ("; or set board.user, board.key_file or a password reference" if self._hop.board else ""),
            detail=detail,
        )


def _public_half(path: str) -> set[bytes]:
    """The blob of ``path``.pub, as a set of one or none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return {base64.b64decode(Path(path + ".pub").read_text("ascii").split()[1], validate=True)}
    return set()
