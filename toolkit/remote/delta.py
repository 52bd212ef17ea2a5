"""What of a changed file has to be sent, if the far side has an older one: the near side of deltas.

Content-defined chunks (FastCDC) find what was only moved; what lies between is compared, byte plane by byte
plane, with the old bytes in the same place: retrained weights differ everywhere, but little, and their upper
bytes hardly at all. Each step of the result stands for at most :data:`BLOCK` bytes of the new file, and none
is more than some bytes longer than what it stands for: a delta can be cut, taken up again, and never costs
more than the file.

The board copies, XORs and hashes with the standard library (``rebuild`` in ``toolkit/onboard/agent.py``) and
trusts nothing of it before the SHA-256 of the whole is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pyfastcdc import FastCDC

from toolkit.errors import InputError
from toolkit.remote.once import Once

if TYPE_CHECKING:
    # NumPy is imported where bytes are compared: an index does without, and every first rollout makes one.
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

BLOCK = 1 << 18
"""Bytes of the new file that one step stands for, at most."""

CHUNK = 1 << 15
"""Average size of chunks (bytes), less the 8 KiB that none falls short of: an index has 12 bytes for each."""

WORTH = 0.9
"""A delta, or the compression of a plane, has to save a tenth: the processor's time has a price too."""

_WIDTHS = (1, 2, 4)
_SAMPLES = 8
_SAMPLE = 1 << 14
_ENTRY = struct.Struct(">I8s")
_HEAD = 24
"""Bytes that a step has beside its content, about."""
_STEP = struct.Struct(">cBQI")

Opener = Callable[[], BinaryIO]
Index = tuple[tuple[int, bytes], ...]
"""Length and digest (8 bytes of its SHA-256) of each chunk, in order."""


# ------------------------------------------------------------------------------------------ chunks


def chunks_of(stream: BinaryIO) -> Index:
    """Cut what is left of a stream into content-defined chunks."""
    cutter = FastCDC(CHUNK, min_size=CHUNK // 4, max_size=CHUNK * 4)
    found = cutter.cut_stream(_Reader(stream))
    return tuple((chunk.length, hashlib.sha256(chunk.data).digest()[:8]) for chunk in found)


class _Reader:
    """Small reads, whatever the cutter asks for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, count: int) -> bytes:
        return self._stream.read(min(count, BLOCK))


def pack_index(index: Index) -> bytes:
    """An index as it lies on a board."""
    return b"".join(_ENTRY.pack(*entry) for entry in index)


def unpack_index(data: bytes, size: int) -> Index | None:
    """Read an index of a file of ``size`` bytes; None where it cannot be one."""
    if len(data) % _ENTRY.size:
        return None
    index = tuple((int(length), bytes(digest)) for length, digest in _ENTRY.iter_unpack(data))
    return index if sum(length for length, _ in index) == size and all(entry[0] for entry in index) else None


_indexes = Once(64)
_deltas = Once(4)


def index_of(sha256: str, opened: Opener) -> Index:
    """The index of a content; ``opened`` gives a stream of it."""

    def make() -> Index:
        with opened() as stream:
            return chunks_of(stream)

    return _indexes.get(sha256, make)


def delta_of(base: str, sha256: str, size: int, opened: Opener, old: Path | Index) -> Delta | None:
    """What makes the content ``sha256`` (``size`` bytes) of ``base``; None where that does not pay.

    ``old``: the file with the content ``base``, or only its index. Boards with the same base share one delta.
    """

    def make() -> Delta | None:
        known = index_of(base, lambda: old.open("rb")) if isinstance(old, Path) else old
        index = index_of(sha256, opened)
        with contextlib.ExitStack() as files:
            new = files.enter_context(opened())
            before = files.enter_context(old.open("rb")) if isinstance(old, Path) else None
            delta = Delta(_plan(index, known, new, before), new, before, files.pop_all())
        return delta if delta.estimate(0) < WORTH * size else None

    # An index that a board made up must not become that of other boards.
    return _deltas.get((base, sha256, None if isinstance(old, Path) else old), make)


# ------------------------------------------------------------------------------------------ steps


@dataclass(frozen=True)
class Step:
    """``size`` bytes of the new file from ``start`` on: copied from ``old`` in the old one, or (if ``width``)
    sent as so many byte planes, XORed with the old bytes there unless ``old`` is -1."""

    start: int
    size: int
    old: int
    width: int
    estimate: float
    """Bytes on the line, by samples."""


class Delta:
    """Steps, and what each takes on the line: made when first asked for, kept in a file for other boards."""

    def __init__(
        self, steps: tuple[Step, ...], new: BinaryIO, old: BinaryIO | None, files: contextlib.ExitStack
    ) -> None:
        self.steps = steps
        self._new, self._old, self._files = new, old, files
        self._lock = threading.Lock()
        self._spool = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0
        # In small files the text between the weights counts, and time does not.
        self._thorough = sum(step.size for step in steps) <= 4 * BLOCK

    def __del__(self) -> None:
        self._files.close()

    def resume(self, have: int) -> int:
        """Where in the new file the step begins that goes on after ``have`` bytes."""
        return max((step.start for step in self.steps if step.start <= have), default=0)

    def estimate(self, start: int) -> float:
        """Bytes on the line from there on: by samples, in large files."""
        if self._thorough:
            return sum(len(payload) + 5 for payload, _ in self.payloads(start))
        return sum(step.estimate for step in self.steps if step.start >= start)

    def payloads(
        self, start: int, whole: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[bytes, int]]:
        """What the agent needs from ``start`` (the beginning of a step) on, and how much comes of it: step by
        step. Where ``whole()`` is true, a step that is not a mere copy is sent as it is."""
        for number, step in enumerate(self.steps):
            if step.start >= start:
                plain = step.width and whole()
                yield as_it_is(step, self._new) if plain else self._payload(number), step.size

    def _payload(self, number: int) -> bytes:
        with self._lock:
            if number not in self._places:
                data = encode(self.steps[number], self._new, self._old, self._thorough)
                written = 0
                while written < len(data):
                    written += os.pwrite(self._spool.fileno(), data[written:], self._end + written)
                self._places[number], self._end = (self._end, len(data)), self._end + len(data)
            begin, length = self._places[number]
        return os.pread(self._spool.fileno(), length, begin)


def as_it_is(step: Step, new: BinaryIO) -> bytes:
    """A step as the bytes that it stands for."""
    head = _STEP.pack(b"d", 1, 0, step.size) + struct.pack(">I", step.size)
    return head + _bytes(new, step.start, step.size).tobytes()


def encode(step: Step, new: BinaryIO, old: BinaryIO | None, thorough: bool = False) -> bytes:
    """A step as the agent's ``rebuild`` takes it. ``thorough``: repetitions are looked for, at all price."""
    if not step.width:
        return _STEP.pack(b"c", 0, step.old, step.size)
    content = _bytes(new, step.start, step.size)
    kind = b"d"
    if step.old >= 0 and old is not None:
        content, kind = content ^ _bytes(old, step.old, step.size), b"x"
        if not content.any():
            return _STEP.pack(b"c", 0, step.old, step.size)
    planes = [_pack_plane(plane, thorough) for plane in _planes(content, step.width)]
    lengths = struct.pack(f">{step.width}I", *map(len, planes))
    return _STEP.pack(kind, step.width, max(step.old, 0), step.size) + lengths + b"".join(planes)


def _planes(content: Bytes, width: int) -> list[Bytes]:
    """Every ``width``-th byte from the first on, from the second on, …"""
    if len(content) % width:
        return [content[plane::width] for plane in range(width)]
    import numpy as np

    # The same by shifting numbers: several times as fast as picking bytes.
    numbers = content.view(f"<u{width}")
    return [(numbers >> (8 * plane)).astype(np.uint8) for plane in range(width)]


def _pack_plane(plane: Bytes, thorough: bool) -> bytes:
    """A plane as it is, or deflated where that is shorter, which the length tells.

    Planes of weights have skewed values and no repetitions but runs: Z_RLE looks for no others, which makes
    it several times as fast as zlib's level 1, and shorter.
    """
    data = plane.tobytes()
    if not thorough and _bits(plane[:: len(plane) // _SAMPLE + 1]) > 8 * WORTH:
        return data
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    ways = [data, packer.compress(data) + packer.flush()]
    if thorough:
        ways.append(zlib.compress(data))
    return min(ways, key=len)


def _bits(plane: Bytes) -> float:
    """Bits that a byte of this plane takes, if each is coded by itself (entropy of order 0)."""
    import numpy as np

    counts = np.bincount(plane, minlength=256)
    shares = counts[counts > 0] / max(1, len(plane))
    return float(-(shares * np.log2(shares)).sum())


def _bytes(file: BinaryIO, start: int, size: int) -> Bytes:
    data = os.pread(file.fileno(), size, start)
    if len(data) < size:
        name = getattr(file, "name", "a file")
        raise InputError(f"{name} became shorter while it was being sent", hint="start again")
    import numpy as np

    return np.frombuffer(data, np.uint8)


# ------------------------------------------------------------------------------------------ planning


def _plan(
    new: Index, old: Index, new_file: BinaryIO, old_file: BinaryIO | None
) -> tuple[Step, ...]:
    steps: list[Step] = []
    gap = after = 0
    old_size = sum(length for length, _ in old)
    for start, size, where in [*_copies(new, old), (sum(length for length, _ in new), 0, old_size)]:
        if start > gap:
            places = {after, where - (start - gap)} if old_file else set()
            steps += _fill(new_file, gap, start - gap, old_file, old_size, places)
        steps += _cut(start, size, where, 0, 0.0)
        gap, after = start + size, where + size
    return tuple(steps)


def _copies(new: Index, old: Index) -> list[tuple[int, int, int]]:
    """Ranges that are in both: start in the new file, size, start in the old one; neighbours joined."""
    places: dict[tuple[int, bytes], int] = {}
    at: dict[int, tuple[int, bytes]] = {}
    position = 0
    for entry in old:
        places.setdefault(entry, position)
        at[position] = entry
        position += entry[0]
    found: list[tuple[int, int, int]] = []
    position = 0
    for entry in new:
        if entry in places:
            start, size, where = found[-1] if found else (0, 0, 0)
            if found and start + size == position and at.get(where + size) == entry:
                found[-1] = (start, size + entry[0], where)
            else:
                same = at.get(position) == entry
                found.append((position, entry[0], position if same else places[entry]))
        position += entry[0]
    return found


def _cut(start: int, size: int, old: int, width: int, share: float) -> list[Step]:
    steps = []
    for done in range(0, size, BLOCK):
        part = min(BLOCK, size - done)
        steps.append(Step(start + done, part, old + done if old >= 0 else -1, width, share * part + _HEAD))
    return steps


def _fill(
    new: BinaryIO, start: int, size: int, old: BinaryIO | None, old_size: int, places: Iterable[int]
) -> list[Step]:
    """Steps for a range of the new file that holds no chunk of the old one.

    ``places``: where in the old file it may correspond to something, perhaps beginning or ending outside.
    """
    share, width = _by_planes(new, start, size)
    best = share * size, _cut(start, size, -1, width, share)
    for place in sorted(places):
        lead = max(0, -place)
        count = min(size, old_size - place) - lead
        if count <= 0:
            continue
        share, width = _by_planes(new, start + lead, count, old, place + lead)
        cost = share * count + size - count
        if cost < best[0]:
            end = start + lead + count
            steps = _cut(start, lead, -1, 1, 1) + _cut(start + lead, count, place + lead, width, share)
            best = cost, steps + _cut(end, start + size - end, -1, 1, 1)
    return best[1]


def _by_planes(
    new: BinaryIO, start: int, size: int, old: BinaryIO | None = None, place: int = 0
) -> tuple[float, int]:
    """The share of its size that a range takes as byte planes (by samples), and their number; 1, 1 if that
    does not pay."""
    part = min(size, _SAMPLE)
    offsets = sorted({(size - part) * number // (_SAMPLES - 1) for number in range(_SAMPLES)})
    samples = [_bytes(new, start + offset, part) for offset in offsets]
    if old is not None:
        samples = [one ^ _bytes(old, place + at, part) for one, at in zip(samples, offsets, strict=True)]
    best = min((_share(samples, width), width) for width in _WIDTHS)
    return best if best[0] < WORTH else (1.0, 1)


def _share(samples: list[Bytes], width: int) -> float:
    """What these bytes take as byte planes, as a share of their own size."""
    taken = total = 0.0
    for sample in samples:
        for part in _planes(sample, width):
            bits = _bits(part)
            taken += len(part) * (bits if bits <= 8 * WORTH else 8) / 8
            total += len(part)
    return taken / max(1.0, total)
