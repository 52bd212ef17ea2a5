"""Signed releases: an SSH signature over a release's manifest.

The format is OpenSSH's SSHSIG (its source, PROTOCOL.sshsig), armored as ``ssh-keygen -Y sign -n
ascend-deploy`` does,
so that anybody can check one with what is on every machine::

    ssh-keygen -Y verify -f allowed_signers -I anna -n ascend-deploy -s manifest.json.sig < manifest.json

Keys are ed25519, since boards check the signature themselves, with nothing but Python's standard library:
their own ssh-keygen is often too old for ``-Y`` (Ubuntu 18.04 has 7.6; it came with 8.1). The manifest
names every file by SHA-256, so a signed manifest is a signed release.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.schema import SignSettings
from toolkit.errors import ConfigError, InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from toolkit.artefacts.manifest import Release

NAMESPACE = "ascend-deploy"
"""What the signature is for: one that was made for a file or a commit does not fit a release."""

ALLOWED_SIGNERS = "allowed_signers"
"""File in ``<root>/<app>`` on a board with the keys it trusts, in the format of ssh-keygen(1)."""

_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


class Signer:
    """Signs releases with one key. Not picklable: the key stays in the process that read it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = key
        self._raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @staticmethod
    def from_settings(settings: SignSettings) -> Signer | None:
        """The signer that ``sign.*`` names; None with ``sign=none``.

        :raises ConfigError: the key, or its passphrase, cannot be read, or the key is not an ed25519 one.
        """
        if settings.kind == "none" or not settings.key:
            return None
        return Signer(_load(Path(settings.key).expanduser(), settings.passphrase))

    @property
    def public(self) -> str:
        """``ssh-ed25519 AAAA…``, as it stands in allowed_signers behind the name of who signs."""
        return "ssh-ed25519 " + base64.b64encode(self._blob).decode()

    @property
    def _blob(self) -> bytes:
        return _string(b"ssh-ed25519") + _string(self._raw)

    def sign(self, release: Release) -> str:
        """The armored signature of a release's manifest."""
        return self.sign_bytes(release.text.encode())

    def sign_bytes(self, message: bytes) -> str:
        """The armored signature of ``message``."""
        signature = _string(b"ssh-ed25519") + _string(self._key.sign(signed_bytes(message)))
        blob = b"SSHSIG" + struct.pack(">I", 1)
        for part in (self._blob, NAMESPACE.encode(), b"", b"sha512", signature):
            blob += _string(part)
        text = base64.b64encode(blob).decode()
        lines = [text[start : start + 70] for start in range(0, len(text), 70)]
        return "\n".join([_BEGIN, *lines, _END, ""])


def verify(message: bytes, armored: str, allowed: str) -> str:
    """Check a signature against the text of an allowed_signers file; return who signed.

    The near side's own check, with cryptography; a board does the same by itself (toolkit/onboard/agent.py).

    :raises InputError: with the reason.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        blob = base64.b64decode("".join(armored.split(_BEGIN)[1].split(_END)[0].split()))
        if blob[:10] != b"SSHSIG\0\0\0\1":
            raise ValueError("not an SSHSIG of version 1")
        public, namespace, _, algorithm, signature = _strings(blob[10:])
        kind, raw = _strings(signature)
        _, key = _strings(public)
    except (ValueError, IndexError, struct.error) as error:
        raise InputError(f"not an SSH signature: {error}") from error
    if (namespace, algorithm, kind) != (NAMESPACE.encode(), b"sha512", b"ssh-ed25519"):
        raise InputError(
            f"the signature is for {namespace!r} with {kind!r}, not an ed25519 one for {NAMESPACE}"
        )
    who = next((name for name, blob in signers(allowed) if blob == public), None)
    if who is None:
        raise InputError("the signature's key is not among the allowed signers")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(raw, signed_bytes(message))
    except (InvalidSignature, ValueError) as error:
        raise InputError("the signature does not fit the manifest") from error
    return who


def signers(allowed: str) -> Iterator[tuple[str, bytes]]:
    """Names and keys of an allowed_signers file; lines with options we do not know say nothing."""
    for line in allowed.splitlines():
        words = line.split()
        if words and not words[0].startswith("#") and words[1:2] == [f'namespaces="{NAMESPACE}"']:
            del words[1]
        if len(words) >= 3 and not words[0].startswith("#") and words[1] == "ssh-ed25519":
            try:
                yield words[0], base64.b64decode(words[2])
            except ValueError:
                continue


def signed_bytes(message: bytes) -> bytes:
    """What an SSHSIG signature is made over (PROTOCOL.sshsig): the message's hash within its namespace."""
    parts = (NAMESPACE.encode(), b"", b"sha512", hashlib.sha512(message).digest())
    return b"SSHSIG" + b"".join(_string(part) for part in parts)


def problems(settings: SignSettings) -> Iterator[str]:
    """What is wrong with ``sign.*``, each beginning with its key."""
    if settings.kind == "ssh-key" and not settings.key:
        yield "sign.key: no value; a private ed25519 key, such as ~/.ssh/id_ed25519"
    if settings.passphrase and not settings.passphrase.startswith(("env:", "file:", "keyring:")):
        yield (
            "sign.passphrase: a secret does not stand in the config; "
            "write ${secret:env,NAME}, or file, or keyring"
        )


def _load(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    from toolkit.remote.secrets import resolve

    secret = resolve(passphrase).encode() if passphrase else None
    try:
        key = load_ssh_private_key(path.read_bytes(), secret)
    except OSError as error:
        raise ConfigError(f"sign.key: {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"sign.key: {path} cannot be used: {str(error).splitlines()[0]}",
            hint="an OpenSSH private key; where it has a passphrase, sign.passphrase=${secret:env,NAME}",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"sign.key: {path} is not an ed25519 key, and boards check no others",
            hint="ssh-keygen -t ed25519",
        )
    return key


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack(">I", data[:4])
        if size > len(data) - 4:
            raise ValueError("cut off")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found
