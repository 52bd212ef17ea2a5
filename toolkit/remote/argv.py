"""The one place where words become a line for a shell. Nobody else joins strings into commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from toolkit.errors import ConfigError


def shell_line(argv: Sequence[str]) -> str:
    """Return ``argv`` as a line that every POSIX shell splits into exactly these words again.

    :raises ConfigError: a word holds a NUL or a line break: no argv can carry the first, and csh, which
        some boards have as a login shell, cannot quote the second.
    """
    if not argv:
        raise ConfigError("an empty command")
    for word in argv:
        if "\0" in word or "\n" in word or "\r" in word:
            raise ConfigError(f"a word of a command has a line break or NUL: {word!r}")
    return " ".join(shlex.quote(word) for word in argv)
