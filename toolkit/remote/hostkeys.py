"""Which host keys are known: known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT") and pinned keys.

paramiko's own reader is quadratic in the number of lines; this one reads each line once, each file once per
process, and looks a board up without walking through the plain names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import ConfigError, Unreachable
from toolkit.remote.address import Address

# Signature algorithms by type of key, the best first. An RSA key signs with SHA-2 only.
ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


@dataclass(frozen=True)
class HostKey:
    """A public key: ``type`` as in known_hosts, ``blob`` in SSH's own encoding."""

    type: str
    blob: bytes

    def __str__(self) -> str:
        """``type base64``, as in a known_hosts line."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True)
class Entry:
    """One line that names a key. ``marker``: "", "revoked" or "cert-authority"."""

    marker: str
    names: str
    key: HostKey
    where: str


def host_name(host: str, port: int) -> str:
    """The name under which a board stands in known_hosts: ``host``, or ``[host]:port`` off port 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


@dataclass
class Work:
    """What the reader and its look-ups had to do, for tests of cost."""

    lines: int = 0
    hmacs: int = 0
    lookups: int = 0


@dataclass
class KnownHosts:
    """The entries of one or more files, ready to be asked."""

    work: Work = field(default_factory=Work)
    _plain: dict[str, list[Entry]] = field(default_factory=dict)
    _hashed: list[tuple[bytes, bytes, Entry]] = field(default_factory=list)
    _patterns: list[tuple[tuple[re.Pattern[str], ...], tuple[re.Pattern[str], ...], Entry]] = field(
        default_factory=list
    )

    def read(self, text: str, where: str) -> None:
        """Add the lines of ``text``. Damaged lines are left out, as OpenSSH does."""
        for number, line in enumerate(text.splitlines(), 1):
            self.work.lines += 1
            entry = parse_line(line, f"{where}:{number}")
            if entry is not None:
                self._add(entry)

    def _add(self, entry: Entry) -> None:
        if entry.names.startswith("|1|"):
            hashed = _split_hashed(entry.names)
            if hashed is not None:
                self._hashed.append((*hashed, entry))
            return
        names = entry.names.lower().split(",")
        if not any(_is_pattern(name) for name in names):
            for name in names:
                self._plain.setdefault(name, []).append(entry)
            return
        yes = tuple(_pattern(name) for name in names if name and not name.startswith("!"))
        no = tuple(_pattern(name[1:]) for name in names if name.startswith("!"))
        self._patterns.append((yes, no, entry))

    def find(self, name: str) -> list[Entry]:
        """Return the entries for ``name`` (see :func:`host_name`); each hashed name is HMAC'd once."""
        self.work.lookups += 1
        name = name.lower()
        found = list(self._plain.get(name, ()))
        raw = name.encode()
        for salt, digest, entry in self._hashed:
            self.work.hmacs += 1
            if hmac.digest(salt, raw, "sha1") == digest:
                found.append(entry)
        for yes, no, entry in self._patterns:
            if any(p.fullmatch(name) for p in yes) and not any(p.fullmatch(name) for p in no):
                found.append(entry)
        return found


def parse_line(line: str, where: str) -> Entry | None:
    """Return the entry of one line of known_hosts, or None for an empty, commented or damaged one."""
    fields = line.split(None, 4)
    marker = ""
    if fields and fields[0].startswith("@"):
        marker = fields.pop(0)[1:]
        # A marker that we do not know must never be taken for an ordinary key.
        if marker not in ("revoked", "cert-authority"):
            return None
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    names, kind, encoded = fields[:3]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # The blob begins with its own type; a line whose two types differ is damaged or a trick.
    raw = kind.encode("ascii", "replace")
    if not blob.startswith(len(raw).to_bytes(4, "big") + raw):
        return None
    return Entry(marker, names, HostKey(kind, blob), where)


def _split_hashed(names: str) -> tuple[bytes, bytes] | None:
    parts = names.split("|")
    if len(parts) != 4:
        return None
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return None
    return (salt, digest) if len(digest) == hashlib.sha1().digest_size else None


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name or name.startswith("!")


def _pattern(name: str) -> re.Pattern[str]:
    # fnmatch would give [ ] a meaning, and they stand for themselves here.
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in name))


_cache: dict[tuple[tuple[str, int, int, int], ...], KnownHosts] = {}
_cache_lock = threading.Lock()


def load(paths: Sequence[str]) -> KnownHosts:
    """Return the known hosts of all ``paths`` together; read once per process and state of the files.

    Missing files count as empty.

    :raises ConfigError: a file is there but cannot be read.
    """
    state: list[tuple[str, int, int, int]] = []
    for path in paths:
        full = os.path.expanduser(path)
        try:
            stat = os.stat(full)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check ssh.known_hosts") from None
        state.append((full, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    key = tuple(state)
    # Within the lock: of 64 boards that start together, one reads and 63 wait for it.
    with _cache_lock:
        known = _cache.get(key)
        if known is None:
            known = KnownHosts()
            for full, *_ in key:
                try:
                    known.read(Path(full).read_text("utf-8", "replace"), full)
                except OSError as error:
                    raise ConfigError(
                        f"cannot read {full}: {error.strerror}", hint="check ssh.known_hosts"
                    ) from None
            _cache.clear()
            _cache[key] = known
    return known


class HostKeyCheck:
    """The check of one board's key: what is expected is looked up before connecting, to ask for that type."""

    def __init__(
        self, address: Address, host: str, port: int, *, alias: str = "", pinned: str = "", who: str = ""
    ) -> None:
        """``host`` and ``port`` as connected to, ``alias`` as HostKeyAlias; ``pinned`` as
        Address.host_key.
        """
        self.name = who or address.name
        self._board = address.name
        self.shown: HostKey | None = None
        self._pin = parse_pin(pinned, self.name) if pinned else None
        self._pinned_text = pinned
        self._files = address.known_hosts
        self._add, self._replace = address.command("trust"), address.command("trust", "replace=true")
        if self.name != address.name:
            # A jump host. deploy trust reads boards' keys through it, and so needs it trusted already.
            file = address.known_hosts[0] if address.known_hosts else "known_hosts"
            self._add = f"ssh-keyscan -p {port} {host} >> {file}"
            self._replace = f"ssh-keygen -R '{host_name(host, port)}' -f {file}; {self._add}"
        self._listed_as = host_name(alias, 22) if alias else host_name(host, port)
        self._entries: list[Entry] = []
        self._portless: list[Entry] = []
        if self._pin is None or address.known_hosts:
            known = load(address.known_hosts)
            self._entries = known.find(self._listed_as)
            if not alias and port != 22 and not any(entry.marker == "" for entry in self._entries):
                # As OpenSSH: a key known for the host as such counts for its other ports, if it is the same.
                self._portless = known.find(host_name(host, 22))

    def key_types(self) -> tuple[str, ...]:
        """Host key algorithms to ask for: those of the keys we know first, since only they can be checked."""
        if isinstance(self._pin, HostKey):
            wanted = [self._pin.type]
        else:
            wanted = [e.key.type for e in (*self._entries, *self._portless) if e.marker == ""]
        order = [*wanted, *ALGORITHMS]
        return tuple(dict.fromkeys(a for kind in order for a in ALGORITHMS.get(kind, ())))

    def __call__(self, shown: HostKey) -> None:
        """Check the key that the server showed (and proved to hold).

        :raises Unreachable: cause host-key-unknown or host-key-changed.
        """
        self.shown = shown
        for entry in (*self._entries, *self._portless):
            if entry.marker == "revoked" and entry.key.blob == shown.blob:
                raise self._error(
                    "host-key-changed",
                    f"its host key {shown.fingerprint} is revoked by {entry.where}",
                    "somebody may be impersonating the board: do not trust it before its key was replaced",
                )
        if self._pin is not None:
            self._check_pin(self._pin, shown)
            return
        known = [entry for entry in self._entries if entry.marker == ""]
        if any(e.key == shown for e in (*known, *self._portless) if e.marker == ""):
            return
        if known:
            same = next((e for e in known if e.key.type == shown.type), known[0])
            raise self._error(
                "host-key-changed",
                f"its host key is {shown.type} {shown.fingerprint}, but {same.where} has "
                f"{same.key.type} {same.key.fingerprint}",
                f"new board or new system on it? compare the fingerprint, then: {self._replace}; "
                "otherwise somebody may be in between",
            )
        authority = any(entry.marker == "cert-authority" for entry in self._entries)
        hint = f"compare the fingerprint with the machine's own, then: {self._add}"
        if authority:
            hint += " (known_hosts names a certificate authority for it: ssh.client=openssh can use that)"
        files = ", ".join(self._files) or "known_hosts (none configured)"
        raise self._error(
            "host-key-unknown",
            f"its host key {shown.type} {shown.fingerprint} is not in {files} as {self._listed_as}",
            hint,
        )

    def _check_pin(self, pin: HostKey | str, shown: HostKey) -> None:
        if pin == shown or pin == shown.fingerprint:
            return
        raise self._error(
            "host-key-changed",
            f"its host key is {shown.type} {shown.fingerprint}, but the inventory pins "
            f"{pin if isinstance(pin, str) else pin.type + ' ' + pin.fingerprint}",
            "compare the fingerprint with the board's, then change host_key in the inventory; "
            f"{self._add} shows all its keys",
        )

    def _error(self, cause: str, message: str, hint: str) -> Unreachable:
        return Unreachable(f"{self.name}: {message}", cause=cause, host=self._board, hint=hint)


def parse_pin(text: str, who: str) -> HostKey | str:
    """Return the key of ``ssh-ed25519 AAAA…``, or a fingerprint ``SHA256:…`` without padding.

    :raises ConfigError: it is neither.
    """
    words = text.split()
    if len(words) == 1 and re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", words[0]):
        return words[0].rstrip("=")
    entry = parse_line(f"* {' '.join(words[:2])}", "pin") if len(words) >= 2 else None
    if entry is None:
        raise ConfigError(
            f"{who}: host_key is neither a public key nor a fingerprint",
            hint="write it as in known_hosts without the name, 'ssh-ed25519 AAAA…', or as 'SHA256:…'",
        )
    return entry.key
