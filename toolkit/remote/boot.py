"""How the agent gets to a board: the command that starts it and the bytes that it reads first."""

from __future__ import annotations

import base64
import functools
import json
import shlex
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

SYNC = b"\x01ascend-deploy\x02"
"""Comes before the far side's first frame; what comes before it is a login shell's chatter."""

PAYLOAD_LIMIT = 17 * 1024
"""Bytes that the packed agent may have: it travels at every connection, before the first answer."""

HEADER = struct.Struct(">4sIII")
"""Magic, length, CRC-32, length of the first half: what comes before both halves of the agent's source."""

SECOND_HALF = "# ================"
"""How the line of the agent's source begins from which on it is compiled only when a request needs it."""

LAST_RESORT = ("python3", "python", "python2")
"""Tried after the configured interpreters, if only to be able to say what is there."""

_ONBOARD = Path(__file__).resolve().parent.parent / "onboard"


def boot_command(interpreters: Sequence[str]) -> str:
    """The one line for the login shell of a board, whichever shell that is.

    It starts the first interpreter there is with the bootstrap, which goes on to the next one where that is
    too old. Without any, the shell itself says so, as a frame. No data is in it but the interpreters' names.
    """
    packed = base64.b64encode(zlib.compress((_ONBOARD / "bootstrap.py").read_bytes(), 9)).decode()
    code = f'c="{packed}";import zlib,binascii;exec(zlib.decompress(binascii.a2b_base64(c)))'
    refusal = json.dumps({"cause": "no-python", "message": "there is no Python on the board"}).encode()
    frame = SYNC + b"F" + struct.pack(">I", len(refusal)) + refusal
    script = (
        "b=$1;shift;while [ $# -gt 0 ];do p=$1;shift;"
        'command -v "$p" >/dev/null 2>&1&&exec "$p" -E -s -S -u -c "$b" "$@";done;'
        f'printf "{_octal(frame)}";exit 3'
    )
    candidates = dict.fromkeys([*interpreters, *LAST_RESORT])
    return shlex.join(["sh", "-c", script, "ascend-deploy", code, *candidates])


def _octal(data: bytes) -> str:
    """For printf(1) within double quotes: letters as they are, all else as octal."""
    return "".join(chr(byte) if chr(byte).isalpha() and byte < 128 else f"\\{byte:03o}" for byte in data)


@functools.cache
def boot_payload() -> bytes:
    """The packed source of the agent with its header: what the bootstrap reads from stdin."""
    return pack((_ONBOARD / "agent.py").read_text(encoding="utf-8"))


def pack(source: str) -> bytes:
    """Pack the source of an agent for its bootstrap: :data:`HEADER`, first half, second half.

    The second half is deflated with the first one as its dictionary.
    """
    lines = without_comments(source).splitlines(keepends=True)
    cut = next((number for number, line in enumerate(source.splitlines()) if line.startswith(SECOND_HALF)), len(lines))
    text, rest = ("".join(part).encode() for part in (lines[:cut], lines[cut:]))
    first = zlib.compress(text, 9)
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zdict=text)
    body = first + packer.compress(rest) + packer.flush()
    return HEADER.pack(b"ADA2", len(body), zlib.crc32(body), len(first)) + body


def without_comments(source: str) -> str:
    """``source`` with comments and docstrings blanked out; every line keeps its number.

    By the looks of them, since parsing takes longer than a whole connection: a comment begins a line or follows two
    spaces, a docstring fills its lines.
    """
    lines = []
    within = False
    for line in source.splitlines():
        text = line.strip()
        if within:
            within, line = not text.endswith(_QUOTES), ""
        elif text.startswith(_QUOTES):
            within, line = not (text.endswith(_QUOTES) and len(text) > 3), line[: line.index(_QUOTES)] + "0"
        elif text.startswith("#"):
            line = ""
        elif "  # " in line:
            line = line[: line.index("  # ")]
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


_QUOTES = '"""'
