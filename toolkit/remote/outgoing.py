"""The contents of a release on their way to a board: as they are, deflated, or what differs from old ones."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from toolkit.remote.frames import CHUNK
from toolkit.remote.once import Once

if TYPE_CHECKING:
    # NumPy and its like are imported where there is a difference to look for.
    from toolkit.remote.delta import Delta

SMALL = 1 << 20
"""Blobs up to this size (bytes) are compressed if that pays; weights hardly compress."""

SMALLEST = 64 << 10
"""Files below this size (bytes) are never sent as differences, and have no index."""

LARGE = 16 << 20
"""Differences of files from this size (bytes) on are given up where the line is fast."""

FAST = 10e6
"""Bytes a second that a line takes, from which on differences cost more time than they save.

Working them out takes 14 to 16 ms a megabyte on a server and putting them together 10 ms, on the processor of a small
board five times as much.
"""

_FILL = 4 << 20
"""Bytes that vanish into windows and buffers before a line shows how fast it is."""

_PROBE = 6 << 20
"""Bytes after which that is known."""

Payloads = Iterable[tuple[bytes | memoryview, int]]


class Pace:
    """How fast a line takes bytes. The first ones are sent whole to see: what working out a difference costs, here
    and on the board, would look like a slow line."""

    def __init__(self, measured: bool) -> None:
        self._measured = measured
        self._sent = 0
        self._seconds = 0.0

    @contextlib.contextmanager
    def sending(self, count: int) -> Iterator[None]:
        """Within the block ``count`` bytes are sent."""
        begun = time.monotonic()
        yield
        self._sent += count
        if _FILL < self._sent <= _PROBE:
            self._seconds += time.monotonic() - begun

    def too_fast(self) -> bool:
        """Whether the next bytes had better be sent as they are."""
        if not self._measured:
            return False
        return self._sent < _PROBE or FAST * self._seconds < (_PROBE - _FILL)


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Part:
    """One content in an install request, and what follows for it on the line.

    ``start``: bytes of the content that the board has. ``packing``: "" = as it is, "z" = deflated, "i" = its
    index, else the SHA-256 of the content to which it is the difference. ``payloads`` gives what to send, in
    pieces that hold until the next one, each with the number of bytes of the content that it stands for.
    """

    sha256: str
    size: int
    start: int
    packing: str
    payloads: Callable[[], Payloads]

    @property
    def entry(self) -> list[object]:
        """What the request says of it."""
        return [self.sha256, self.size, self.start, self.packing]


def parts_of(
    missing: Mapping[str, int],
    sizes: Mapping[str, int],
    open_blob: Callable[[str], BinaryIO],
    deltas: Mapping[str, tuple[str, Delta]],
    pace: Pace,
) -> list[Part]:
    """How to send what is ``missing`` (SHA-256 → bytes there).

    ``deltas``: SHA-256 → that of the content which the board has instead, and the difference.
    """
    parts = []
    # Small ones first: if the line breaks in the model, the rest is there already.
    for size, sha, have in sorted((sizes[sha], sha, min(have, sizes[sha])) for sha, have in missing.items()):
        at, packed = _deflated.place(sha, open_blob, size) if 256 < size <= SMALL and not have else (0, 0)
        base, delta = deltas.get(sha, ("", None))
        start = delta.resume(have) if delta else have
        if size >= SMALLEST:
            # Before its content: it is worked out once for all boards, while the later ones are still logging in.
            parts.append(Part(sha, 0, 0, "i", partial(_index, open_blob, sha)))
        if delta and delta.estimate(start) < (packed or size - have):
            whole = pace.too_fast if size - start >= LARGE else _never
            parts.append(Part(sha, size, start, base, partial(delta.payloads, start, whole)))
        elif packed:
            parts.append(Part(sha, size, 0, "z", partial(_deflated.payloads, at, packed, size)))
        else:
            parts.append(Part(sha, size, have, "", partial(_whole, open_blob, sha, size, have)))
    return parts


class _Deflated:
    """Small contents, deflated once for all boards; they lie in a file, for releases may have thousands."""

    def __init__(self) -> None:
        self._places = Once(1 << 16)
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._end = 0

    def place(self, sha: str, open_blob: Callable[[str], BinaryIO], size: int) -> tuple[int, int]:
        """Where it lies and how long it is; length 0 where deflating saves too little."""

        def make() -> tuple[int, int]:
            with open_blob(sha) as stream:
                data = zlib.compress(stream.read(), 1)
            if len(data) >= 0.8 * size:
                return 0, 0
            with self._lock:
                if self._file is None:
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
                at, self._end = self._end, self._end + len(data)
            os.pwrite(self._file.fileno(), data, at)
            return at, len(data)

        return self._places.get(sha, make)

    def payloads(self, at: int, length: int, size: int) -> Payloads:
        assert self._file is not None
        return _pieces(os.pread(self._file.fileno(), length, at), size)


_deflated = _Deflated()


def _pieces(data: bytes, size: int) -> Payloads:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK], size if start + CHUNK >= len(data) else 0


def _whole(open_blob: Callable[[str], BinaryIO], sha: str, size: int, have: int) -> Payloads:
    if size > have:
        room = memoryview(bytearray(min(CHUNK, size - have)))
        with open_blob(sha) as stream:
            stream.seek(have)
            while count := stream.readinto(room):  # type: ignore[attr-defined]
                yield room[:count], count


def _index(open_blob: Callable[[str], BinaryIO], sha: str) -> Payloads:
    from toolkit.remote.delta import index_of, pack_index

    return _pieces(pack_index(index_of(sha, partial(open_blob, sha))), 0)
