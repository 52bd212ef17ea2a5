"""Secrets by reference: ``env:NAME``, ``file:PATH``, ``keyring:SERVICE,USER``. Values never show
themselves.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import NoReturn

from toolkit.errors import ConfigError


class Secret:
    """A value that no repr, str, format, comparison message, pickle or traceback of ours gives away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value. Call it where it is used, and keep no copy."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def resolve(reference: str) -> str:
    """Return the value that ``reference`` names; at most one newline at a file's end is cut off.

    :raises ConfigError: it names nothing, or is not a reference. The message shows the reference, never a
        value.
    """
    kind, separator, rest = reference.partition(":")
    if not separator or kind not in ("env", "file", "keyring") or not rest:
        # Not shown: somebody may have written the secret itself here.
        raise ConfigError(
            "a secret is given by reference, and this is none",
            hint="write env:NAME, file:PATH or keyring:SERVICE,USER; never the value itself",
        )
    if kind == "env":
        value = os.environ.get(rest, "")
        if not value:
            raise ConfigError(f"the secret env:{rest} is empty or not set", hint=f"export {rest}=…")
        return value
    return _from_file(rest) if kind == "file" else _from_keyring(rest)


def _from_file(path: str) -> str:
    try:
        value = Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"the secret file:{path} cannot be read: {why}") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise ConfigError(f"the secret file:{path} is empty")
    return value


def _from_keyring(rest: str) -> str:
    service, separator, user = rest.partition(",")
    if not separator:
        raise ConfigError(f"the secret keyring:{rest} lacks a user", hint="keyring:SERVICE,USER")
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        raise ConfigError(
            f"the secret keyring:{rest} needs the package keyring", hint="pip install keyring"
        ) from None
    try:
        value = keyring.get_password(service, user)
    except Exception as error:  # keyring's back ends raise what they like
        raise ConfigError(f"the secret keyring:{rest} cannot be read: {type(error).__name__}") from None
    if not value:
        raise ConfigError(f"the keyring has no secret for {rest}", hint=f"keyring set {service} {user}")
    return str(value)
