"""The contents of a release on their way to a board: as they are, deflated, or what differs from old ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from toolkit.remote.delta import SMALLEST, Delta, index_of, pack_index
from toolkit.remote.frames import CHUNK

SMALL = 1 << 20
"""Blobs up to this size (bytes) are compressed if that pays; weights hardly compress."""

_PACKED = 8 << 20
"""Bytes of compressed blobs that are held in memory for one board."""


@dataclass(frozen=True)
class Part:
    """One content in an install request, and what follows for it on the line.

    ``start``: bytes of the content that the board has. ``packing``: "" = as it is, "z" = deflated, "i" = its
    index, else the SHA-256 of the content to which it is the difference. ``payloads`` gives what to send, in
    pieces, each with the number of bytes of the content that it stands for.
    """

    sha256: str
    size: int
    start: int
    packing: str
    payloads: Callable[[], Iterable[tuple[bytes, int]]]

    @property
    def entry(self) -> list[object]:
        """What the request says of it."""
        return [self.sha256, self.size, self.start, self.packing]


def parts_of(
    missing: Mapping[str, int],
    sizes: Mapping[str, int],
    open_blob: Callable[[str], BinaryIO],
    deltas: Mapping[str, tuple[str, Delta]],
) -> list[Part]:
    """How to send what is ``missing`` (SHA-256 → bytes there).

    ``deltas``: SHA-256 → that of the content which the board has instead, and the difference.
    """
    parts, room = [], _PACKED
    # Small ones first: if the line breaks in the model, the rest is there already.
    for size, sha, have in sorted((sizes[sha], sha, min(have, sizes[sha])) for sha, have in missing.items()):
        packed = _packed(open_blob, sha, size) if 256 < size <= SMALL and not have and room > 0 else b""
        base, delta = deltas.get(sha, ("", None))
        start = delta.resume(have) if delta else have
        if len(packed) > room:
            packed = b""
        if delta and delta.estimate(start) < (len(packed) if packed else size - have):
            parts.append(Part(sha, size, start, base, partial(delta.payloads, start)))
        elif packed:
            room -= len(packed)
            parts.append(Part(sha, size, 0, "z", partial(_pieces, packed, size)))
        else:
            parts.append(Part(sha, size, have, "", partial(_whole, open_blob, sha, size, have)))
        if size >= SMALLEST:
            parts.append(Part(sha, 0, 0, "i", partial(_index, open_blob, sha)))
    return parts


def _packed(open_blob: Callable[[str], BinaryIO], sha: str, size: int) -> bytes:
    """The content deflated; empty where that saves too little."""
    with open_blob(sha) as stream:
        data = zlib.compress(stream.read(), 1)
    return data if len(data) < 0.8 * size else b""


def _pieces(data: bytes, size: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK], size if start + CHUNK >= len(data) else 0


def _whole(
    open_blob: Callable[[str], BinaryIO], sha: str, size: int, have: int
) -> Iterator[tuple[bytes, int]]:
    if size > have:
        with open_blob(sha) as stream:
            stream.seek(have)
            while piece := stream.read(CHUNK):
                yield piece, len(piece)


def _index(open_blob: Callable[[str], BinaryIO], sha: str) -> Iterator[tuple[bytes, int]]:
    return _pieces(pack_index(index_of(sha, partial(open_blob, sha))), 0)
