"""Frames over a line: the near side of the agent's protocol. What comes in is untrusted and bounded."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from toolkit.errors import BoardRefused, LineLost, RemoteError
from toolkit.remote.boot import SYNC
from toolkit.remote.line import Line
from toolkit.remote.text import plain

PROTOCOL = 1
MAX_FRAME = 8 << 20
CHUNK = 1 << 18
_LARGE = 1 << 16
"""Payloads from this size (bytes) on are not copied into the queue: the queue goes, then they."""
_CHATTER = 1 << 16
"""Bytes that a login shell may print before the agent speaks."""

_CAUSES = frozenset(
    [
        "no-python",
        "python2-only",
        "python-too-old",
        "no-numpy",
        "no-pillow",
        "no-acl",
        "disk-full",
        "read-only",
        "wrong-owner",
        "locked",
        "foreign-release",
        "signature",
        "no-release",
        "reverted",
        "missing",
        "too-large",
        "agent-failed",
    ]
)
_HINTS = {
    "no-python": "install Python 3.6 or newer on the board, or set board.interpreters",
    "python2-only": "install Python 3.6 or newer beside it, or set board.interpreters",
    "python-too-old": "install Python 3.6 or newer beside it, or set board.interpreters",
}

Json = dict[str, Any]


class Frames:
    """Sends requests and blobs, receives answers and what comes before them."""

    def __init__(self, line: Line, name: str, boot: bytes) -> None:
        self._line = line
        self._name = name
        self._out = bytearray(boot)
        self._in = bytearray()
        self._greeted = False
        self._number = 0

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self._number

    # -- out

    def request(self, verb: str, **arguments: Any) -> None:
        """Queue a request; nothing leaves before :meth:`flush` or a full buffer."""
        self._number += 1
        payload = json.dumps({**arguments, "verb": verb, "id": self._number}).encode()
        if len(payload) > MAX_FRAME:
            raise BoardRefused(
                f"{self._name}: the request to {verb} has {len(payload)} bytes, the agent takes {MAX_FRAME}",
                cause="too-large",
                host=self._name,
                hint="deploy fewer files",
            )
        self.frame(b"Q", payload)

    def frame(self, kind: bytes, payload: bytes | memoryview = b"") -> None:
        """Queue one frame. Small ones travel together; a large ``payload`` has left when this returns."""
        self._out += kind + struct.pack(">I", len(payload))
        if len(payload) >= _LARGE:
            self.flush()
            self._send(payload)
            return
        self._out += payload
        if len(self._out) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Send what is queued. If the far side ended instead of listening, say what it said."""
        data, self._out = self._out, bytearray()
        if data:
            self._send(data)

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._line.send(data)
        except LineLost as lost:
            if lost.cause in ("closed", "reset"):
                self._last_words()
            raise

    def _last_words(self) -> None:
        """Raise what an agent said before it ended, or why none came up; return if nobody said anything."""
        try:
            while True:
                kind, payload = self.receive()
                if kind == b"A":
                    self._error(self.json(payload))
        except LineLost as lost:
            if lost.detail:
                raise

    # -- in

    def answer(self, other: Callable[[bytes, bytes], None] | None = None) -> Json:
        """The answer to the last request. Frames that come before it go to ``other`` (kind, payload)."""
        self.flush()
        while True:
            kind, payload = self.receive()
            if kind == b"A":
                answer = self.json(payload)
                if answer.get("id") != self._number:
                    raise self.garbage("an answer to a request that was not made")
                self._error(answer)
                return answer
            if other is None:
                raise self.garbage(f"a frame of kind {kind!r} where an answer was due")
            other(kind, payload)

    def receive(self) -> tuple[bytes, bytes]:
        """The next frame that is not a heartbeat."""
        if not self._greeted:
            self._greet()
        while True:
            kind, payload = self._frame()
            if kind != b".":
                return kind, payload

    def _frame(self) -> tuple[bytes, bytes]:
        kind, size = struct.unpack(">cI", self._take(5))
        if kind not in b"HAV.FDE" or size > MAX_FRAME:
            raise self.garbage("something that is not a frame")
        return kind, self._take(size)

    def _greet(self) -> None:
        """Skip what the login shell said, then read the agent's hello or the reason why there is no agent."""
        while (found := self._in.find(SYNC)) < 0:
            if len(self._in) > _CHATTER:
                raise self.garbage("no agent but " + plain(bytes(self._in[:200])))
            self._fill()
        chatter = plain(bytes(self._in[:found]))
        del self._in[: found + len(SYNC)]
        self._greeted = True
        kind, payload = self._frame()
        content = self.json(payload)
        if kind == b"F":
            self._error({"error": {**content, "detail": chatter}})
        if kind != b"H" or content.get("protocol") != PROTOCOL:
            raise self.garbage(f"protocol {plain(str(content.get('protocol')))} instead of {PROTOCOL}")

    def _take(self, size: int) -> bytes:
        while len(self._in) < size:
            self._fill()
        data = bytes(self._in[:size])
        del self._in[:size]
        return data

    def _fill(self) -> None:
        data = self._line.recv(CHUNK)
        if not data:
            said = plain(bytes(self._in[:200])) if not self._greeted else ""
            detail = self._line.stderr_tail() or said
            raise LineLost(
                f"{self._name}: the agent ended" + (f": {detail.splitlines()[-1]}" if detail else ""),
                cause="closed",
                host=self._name,
                hint="if it happens again, look at the board's memory and dmesg",
                detail=detail,
            )
        self._in += data

    def json(self, payload: bytes) -> Json:
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError) as problem:
            raise self.garbage("an answer that is not JSON") from problem
        if not isinstance(value, dict):
            raise self.garbage("an answer that is not a JSON object")
        return value

    def garbage(self, what: str) -> LineLost:
        """The error for a far side that does not keep to the protocol."""
        return LineLost(
            f"{self._name}: the board sent {what}",
            cause="garbage",
            host=self._name,
            hint="something between us and the agent writes into the line, or the board is not to be trusted",
        )

    def _error(self, answer: Json) -> None:
        error = answer.get("error")
        if error is None:
            return
        if not isinstance(error, dict):
            raise self.garbage("an error without a cause")
        cause = str(error.get("cause"))
        raise BoardRefused(
            f"{self._name}: {plain(str(error.get('message', '')))}",
            cause=cause if cause in _CAUSES else "agent-failed",
            host=self._name,
            hint=plain(str(error.get("hint") or _HINTS.get(cause, ""))),
            detail="\n".join(plain(line) for line in str(error.get("detail", "")).splitlines()[-20:]),
        )


@contextlib.contextmanager
def typed(frames: Frames) -> Iterator[None]:
    """Turn answers of the wrong shape into :class:`LineLost`: a lying agent gets no traceback out of us."""
    try:
        yield
    except RemoteError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise frames.garbage(
            f"an answer of the wrong shape ({type(problem).__name__}: {problem})"
        ) from problem
