"""The way to a board: what ssh_config(5) adds to its address, and the jump hosts before it."""

from __future__ import annotations

import getpass
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import paramiko

from toolkit.errors import ConfigError
from toolkit.remote.address import Address

DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_MAX_HOPS = 8

# No leading dash (an option for ssh), nothing that a URL, a shell or a config file could read otherwise.
_HOST = re.compile(r"(?!-)[A-Za-z0-9._:%-]{1,255}")
_USER = re.compile(r"(?!-)[^\s@:/\x00-\x1f\x7f'\"`$;&|<>(){}\\-][^\s:/\x00-\x1f\x7f'\"`$;&|<>(){}\\]{0,63}")


@dataclass(frozen=True)
class Hop:
    """One SSH server on the way. The last hop is the board; only that one has ``board`` True."""

    host: str
    port: int
    user: str
    key_files: tuple[str, ...]
    named_keys_only: bool
    key_alias: str
    board: bool

    @property
    def where(self) -> str:
        """``host:port`` for messages."""
        return f"{self.host}:{self.port}"


_configs: dict[tuple[str, int, int], paramiko.SSHConfig] = {}
_configs_lock = threading.Lock()


def load_ssh_config(path: str) -> paramiko.SSHConfig:
    """Read an ssh_config file once per process and state of the file; a missing one counts as empty.

    :raises ConfigError: it is there and cannot be read or understood.
    """
    full = os.path.expanduser(path) if path else ""
    try:
        stat = os.stat(full) if full else None
    except FileNotFoundError:
        stat = None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if stat is None:
        return paramiko.SSHConfig()
    key = (full, stat.st_mtime_ns, stat.st_size)
    with _configs_lock:
        config = _configs.get(key)
        if config is None:
            try:
                config = paramiko.SSHConfig.from_text(Path(full).read_text("utf-8", "replace"))
            except (OSError, paramiko.ssh_exception.ConfigParseError) as error:
                raise ConfigError(f"cannot read {path}: {error}", hint="ssh -G HOST shows the line") from None
            _configs[key] = config
    return config


def route(address: Address) -> tuple[Hop, ...]:
    """Return the hops to ``address``, the jump hosts first and the board last.

    :raises ConfigError: a name that no host or user can have, or jumps in a circle.
    """
    config = load_ssh_config(address.ssh_config)
    board = _hop(config, address, address.host, address.port, address.user, board=True)
    jump = address.jump or _lookup(config, address.host).get("proxyjump", "")
    return (*_jumps(config, address, jump, 0), board)


def _jumps(config: paramiko.SSHConfig, address: Address, jump: str, depth: int) -> tuple[Hop, ...]:
    if not jump or jump.lower() == "none":
        return ()
    hops: list[Hop] = []
    for index, spec in enumerate(jump.split(",")):
        match = re.fullmatch(r"(?:ssh://)?(?:([^@]+)@)?(\[[^\]]+\]|[^:\[\]]+)(?::(\d+))?/?", spec.strip())
        if match is None:
            raise ConfigError(f"{address.name}: jump={jump} is not [user@]host[:port],…")
        user, host, port = match.group(1) or "", match.group(2).strip("[]"), int(match.group(3) or 22)
        if index == 0:
            if depth >= _MAX_HOPS:
                raise ConfigError(
                    f"{address.name}: more than {_MAX_HOPS} jump hosts", hint="does ProxyJump go in a circle?"
                )
            # As OpenSSH: a ProxyJump of the first jump host itself is followed, the others' are not.
            further = _lookup(config, host).get("proxyjump", "")
            hops.extend(_jumps(config, address, further, depth + 1))
        hops.append(_hop(config, address, host, port, user, board=False))
    return tuple(hops)


def _lookup(config: paramiko.SSHConfig, host: str) -> dict[str, str]:
    found = config.lookup(host)
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _hop(
    config: paramiko.SSHConfig, address: Address, host: str, port: int, user: str, *, board: bool
) -> Hop:
    found = config.lookup(host)
    try:
        # 22 is also the default of Address: the config's port counts only where none was given.
        port = port if port != 22 else int(found.get("port", 22))
    except ValueError:
        raise ConfigError(f"{address.name}: Port {found.get('port')!r} in {address.ssh_config}") from None
    real_host = str(found.get("hostname", host))
    real_user = user or str(found.get("user", "")) or getpass.getuser()
    if not _HOST.fullmatch(real_host):
        raise ConfigError(f"{address.name}: {real_host!r} is not a host name or IP address")
    if not _USER.fullmatch(real_user):
        raise ConfigError(f"{address.name}: {real_user!r} is not a user name")
    if not 0 < port < 65536:
        raise ConfigError(f"{address.name}: port {port} is not between 1 and 65535")
    configured = tuple(found.get("identityfile", ()))
    if address.key_file and board:
        keys: tuple[str, ...] = (address.key_file,)
    elif address.key_file:
        keys = (*configured, address.key_file)
    else:
        keys = configured or DEFAULT_KEYS
    return Hop(
        host=real_host,
        port=port,
        user=real_user,
        key_files=tuple(os.path.expanduser(key) for key in keys),
        named_keys_only=bool(address.key_file and board)
        or str(found.get("identitiesonly", "no")).lower() == "yes",
        key_alias=str(found.get("hostkeyalias", "")),
        board=board,
    )
