"""The om container: reading and writing offline-model files.

The outer shape is that of a real om: a 256-byte header which begins with the magic number 0x444F4D49
(``IMOD`` in the file), then a partition table, then the partitions. The header's fields stand where
``ModelFileHeader`` of CANN has them (hicann/ge ``inc/framework/common/types.h``), so tools that peek at the
magic number, the header length or the model's name find them in their places. What is *in* the partitions
is the simulator's own: the model definition is JSON, the weights are an ONNX model ready to run.

The bytes are a function of the inputs alone: no clock, no random numbers.
"""

import json
import os
import struct
import zlib
from typing import Any, Dict, List, Tuple

MAGIC = 0x444F4D49
HEADER_LENGTH = 256
FORMAT_VERSION = 0x10000000
PARTITION_MODEL_DEF = 0
PARTITION_WEIGHTS = 1

# magic, header length, version, checksum (64 bytes; ours: CRC32 and zeros), length of what follows the
# header, encrypted, checked, model type, generation mode, name (32), ops, user info (32), IR version, model
# count, platform version (20), platform type, padding (3), model length (64 bit); the rest is reserved.
_HEADER = struct.Struct("<III64sIBBBB32sI32sII20sB3xQ")
_TABLE_COUNT = struct.Struct("<I")
_TABLE_ENTRY = struct.Struct("<IQQ")


class OmError(ValueError):
    """A file or buffer is not a usable om."""


class NotAnOm(OmError):
    """The magic number is missing, or there are fewer bytes than a header has."""


class CorruptOm(OmError):
    """It begins like an om, but its lengths or its checksum disagree with its bytes (a truncated copy,
    usually)."""


def pack(meta: Dict[str, Any], model: bytes) -> bytes:
    """Return the om for ``meta`` (JSON-able) and ``model`` (a serialised ONNX model)."""
    definition = json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    partitions = [(PARTITION_MODEL_DEF, definition), (PARTITION_WEIGHTS, bytes(model))]
    body = [_TABLE_COUNT.pack(len(partitions))]
    offset = 0
    for kind, content in partitions:
        body.append(_TABLE_ENTRY.pack(kind, offset, len(content)))
        offset += len(content)
    body.extend(content for _, content in partitions)
    length = sum(map(len, body))
    checksum = 0
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    header = _HEADER.pack(
        MAGIC, HEADER_LENGTH, FORMAT_VERSION, struct.pack("<I", checksum & 0xFFFFFFFF),
        # The old 32-bit length field overflows at 4 GiB; CANN added the 64-bit one for that.
        length & 0xFFFFFFFF, 0, 1, 0, 0, _clipped(meta.get("name"), 32), 0, b"", 0, 1,
        _clipped(meta.get("cann_version"), 20), 0, length,
    )  # fmt: skip
    return b"".join([header.ljust(HEADER_LENGTH, b"\0")] + body)


def unpack(data: bytes) -> Tuple[Dict[str, Any], bytes]:
    """Return ``(meta, model)`` of the om in ``data``.

    Raises :class:`NotAnOm` when it does not begin with an om header, :class:`CorruptOm` when the length in
    the header, the partition table or the checksum disagree with the bytes.
    """
    if len(data) < HEADER_LENGTH:
        raise NotAnOm("{} bytes are fewer than the {} of an om header".format(len(data), HEADER_LENGTH))
    fields = _HEADER.unpack_from(data)
    if fields[0] != MAGIC:
        raise NotAnOm("magic number is 0x{:08X}, not 0x{:08X}".format(fields[0], MAGIC))
    header_length, checksum, length = fields[1], struct.unpack("<I", fields[3][:4])[0], fields[-1]
    if header_length != HEADER_LENGTH:
        raise CorruptOm("header length is {}, not {}".format(header_length, HEADER_LENGTH))
    body = memoryview(data)[HEADER_LENGTH:]
    if length != len(body):
        raise CorruptOm("the header promises {} bytes after it, there are {}".format(length, len(body)))
    if zlib.crc32(body) & 0xFFFFFFFF != checksum:
        raise CorruptOm("checksum mismatch")
    partitions = _partitions(body)
    try:
        meta = json.loads(bytes(partitions[PARTITION_MODEL_DEF]).decode("utf-8"))
        return meta, bytes(partitions[PARTITION_WEIGHTS])
    except (KeyError, ValueError) as error:
        raise CorruptOm("model definition not readable: {}".format(error))


def write(path: "os.PathLike[str]", meta: Dict[str, Any], model: bytes) -> None:
    """Write the om to ``path``; the file is never there half-written."""
    target = os.fspath(path)
    beside = "{}.{}.part".format(target, os.getpid())
    try:
        with open(beside, "wb") as stream:
            stream.write(pack(meta, model))
        os.replace(beside, target)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def read(path: "os.PathLike[str]") -> Tuple[Dict[str, Any], bytes]:
    """Return ``(meta, model)`` of the om at ``path``; raises OSError and what :func:`unpack` raises."""
    with open(os.fspath(path), "rb") as stream:
        return unpack(stream.read())


def _partitions(body: memoryview) -> Dict[int, memoryview]:
    if len(body) < _TABLE_COUNT.size:
        raise CorruptOm("no partition table")
    count = _TABLE_COUNT.unpack_from(body)[0]
    start = _TABLE_COUNT.size + count * _TABLE_ENTRY.size
    if start > len(body):
        raise CorruptOm("partition table of {} entries does not fit".format(count))
    found = {}
    entries = []  # type: List[Tuple[int, int, int]]
    for index in range(count):
        entries.append(_TABLE_ENTRY.unpack_from(body, _TABLE_COUNT.size + index * _TABLE_ENTRY.size))
    for kind, offset, size in entries:
        if start + offset + size > len(body):
            raise CorruptOm("partition {} reaches past the end".format(kind))
        found[kind] = body[start + offset : start + offset + size]
    return found


def _clipped(text: Any, size: int) -> bytes:
    """UTF-8, cut to leave a closing NUL, never in the middle of a character."""
    return str(text or "").encode("utf-8")[: size - 1].decode("utf-8", "ignore").encode("utf-8")
