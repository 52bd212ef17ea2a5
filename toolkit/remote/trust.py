"""What ``deploy trust`` does: read a board's host keys without logging in, and pin them in known_hosts."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import ConfigError, InputError, Unreachable
from toolkit.remote.address import Address, Limits
from toolkit.remote.connector import Connector
from toolkit.remote.hostkeys import ALGORITHMS, HostKey, KnownHosts, host_name, load, parse_line
from toolkit.remote.route import route


def listed_name(address: Address) -> str:
    """The name under which the board stands in known_hosts: HostKeyAlias, or ``host`` or ``[host]:port``."""
    board = route(address)[-1]
    return host_name(board.key_alias, 22) if board.key_alias else host_name(board.host, board.port)


def shown_keys(address: Address, limits: Limits) -> list[HostKey]:
    """Return the board's host keys, one of each type it has, ed25519 first. Nobody logs in to the board.

    One connection for each type; a board behind jump hosts is asked through them (trusted already).

    :raises Unreachable: no key could be read.
    """
    found: list[HostKey] = []
    refused: Unreachable | None = None
    for kinds in (("ssh-ed25519",), tuple(k for k in ALGORITHMS if k.startswith("ecdsa")), ("ssh-rsa",)):
        connector = Connector(address, limits)
        try:
            found.append(connector.host_key_only(tuple(a for kind in kinds for a in ALGORITHMS[kind])))
        except Unreachable as error:
            # A board has not every type: then the two sides agree on no algorithm. All else is an answer.
            if error.cause != "kex-failed":
                raise
            refused = error
        finally:
            connector.close()
    if not found and refused is not None:
        raise refused
    return found


def known_keys(address: Address) -> list[HostKey]:
    """Return the keys that the address's known_hosts files have for the board now."""
    entries = load(address.known_hosts).find(listed_name(address))
    return list(dict.fromkeys(entry.key for entry in entries if entry.marker == ""))


def pin(path: Path, name: str, keys: Sequence[HostKey], *, replace: bool = False) -> list[HostKey]:
    """Add ``keys`` for ``name`` (see :func:`listed_name`) to a known_hosts file; return the new ones.

    All other lines stay as they are, byte by byte. The file is replaced in one step (written beside, fsynced,
    renamed), behind a symbolic link too, keeps its mode, and is made (0600) where it is missing.

    :param replace: take out the name's other keys: a key that changed is pinned anew.
    :raises ConfigError: another key of the same type stands there, and ``replace`` is False.
    :raises InputError: the file cannot be read or written.
    """
    target = Path(os.path.realpath(path.expanduser()))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two runs at once must not lose each other's lines. The lock is on the folder, which is not replaced.
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            return _rewrite(target, name, keys, replace, folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", hint="check ssh.known_hosts") from None


def _rewrite(target: Path, name: str, keys: Sequence[HostKey], replace: bool, folder: int) -> list[HostKey]:
    old = target.read_bytes() if target.exists() else b""
    lines = old.splitlines(keepends=True)
    kept: list[bytes] = []
    there: set[HostKey] = set()
    for number, line in enumerate(lines, 1):
        key = _key_for(line, name)
        if key is None:
            kept.append(line)
        elif key in keys:
            there.add(key)
            kept.append(line)
        elif replace:
            rest = _without(line, name)
            if rest:
                kept.append(rest)
        elif any(key.type == new.type for new in keys):
            raise ConfigError(
                f"{target}:{number} has another {key.type} for {name}: {key.fingerprint}",
                hint="compare the fingerprints on the board; then add replace=true",
            )
        else:
            kept.append(line)
    new = [key for key in dict.fromkeys(keys) if key not in there]
    if kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\n"
    kept += [f"{name} {key}\n".encode() for key in new]
    if b"".join(kept) != old:
        _replace(target, b"".join(kept), folder)
    return new


def _replace(target: Path, content: bytes, folder: int) -> None:
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o600
    handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    os.fsync(folder)


def _key_for(line: bytes, name: str) -> HostKey | None:
    """The key of a line that names exactly ``name`` (plain or hashed; patterns are nobody's own line)."""
    entry = parse_line(line.decode("utf-8", "replace"), "")
    if entry is None or entry.marker:
        return None
    if entry.names.startswith("|1|"):
        known = KnownHosts()
        known.read(line.decode("utf-8", "replace"), "")
        return entry.key if known.find(name) else None
    return entry.key if name in entry.names.lower().split(",") else None


def _without(line: bytes, name: str) -> bytes:
    """``line`` without ``name``; empty when it names nobody else."""
    head, rest = line.split(None, 1)
    if head.startswith(b"|1|"):
        return b""
    names = [word for word in head.split(b",") if word.decode("utf-8", "replace").lower() != name]
    return b",".join(names) + b" " + rest if names else b""


__all__ = ["known_keys", "listed_name", "pin", "shown_keys"]
