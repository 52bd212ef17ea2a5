"""How the agent gets to a board: the command that starts it and the bytes that it reads first."""

from __future__ import annotations

import ast
import base64
import functools
import hashlib
import io
import json
import shlex
import struct
import threading
import tokenize
import zlib
from collections.abc import Sequence
from pathlib import Path

SYNC = b"\x01ascend-deploy\x02"
"""Comes before the far side's first frame; what comes before it is a login shell's chatter."""

PAYLOAD_LIMIT = 16 * 1024
"""Bytes that the packed agent may have: it travels at every connection, before the first answer."""

LAST_RESORT = ("python3", "python", "python2")
"""Tried after the configured interpreters, if only to be able to say what is there."""

_ONBOARD = Path(__file__).resolve().parent.parent / "onboard"


def boot_command(interpreters: Sequence[str]) -> str:
    """The one line for the login shell of a board, whichever shell that is.

    It starts the first interpreter there is with the bootstrap, which goes on to the next one where that is
    too old. Without any, the shell itself says so, as a frame. No data is in it but the interpreters' names.
    """
    packed = base64.b64encode(zlib.compress((_ONBOARD / "bootstrap.py").read_bytes(), 9)).decode()
    code = f'c="{packed}";import zlib,base64;exec(zlib.decompress(base64.b64decode(c)))'
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


_packing = threading.Lock()


def boot_payload() -> bytes:
    """Magic, length, SHA-256 and the packed source of the agent: what the bootstrap reads from stdin."""
    # One thread at a time: Python 3.11's ast.parse is not safe for several (CPython gh-106905), and a cache alone
    # lets all the lines that open at the beginning of a rollout compute it at once.
    with _packing:
        return _payload()


@functools.cache
def _payload() -> bytes:
    return pack((_ONBOARD / "agent.py").read_text(encoding="utf-8"))


def pack(source: str) -> bytes:
    """Pack the source of an agent for its bootstrap."""
    packed = zlib.compress(without_comments(source).encode(), 9)
    return struct.pack(">4sI32s", b"ADA1", len(packed), hashlib.sha256(packed).digest()) + packed


def without_comments(source: str) -> str:
    """``source`` with comments and docstrings blanked out; every line keeps its number."""
    lines = [line.rstrip("\n") for line in io.StringIO(source)]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            number, column = token.start
            lines[number - 1] = lines[number - 1][:column].rstrip()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
            for number in range(first.lineno, first.end_lineno + 1):
                lines[number - 1] = ""
            lines[first.lineno - 1] = " " * first.col_offset + ("pass" if len(node.body) == 1 else "")
    return "\n".join(line.rstrip() for line in lines) + "\n"
