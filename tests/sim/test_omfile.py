"""The om container: what is written is read back, and damage is told apart."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from acl_support import omfile
from hypothesis import given, settings
from hypothesis import strategies as st

_JSON = st.dictionaries(
    st.text(max_size=8), st.one_of(st.none(), st.integers(-(2**40), 2**40), st.text(max_size=8)), max_size=4
)


@settings(max_examples=60, deadline=None)
@given(meta=_JSON, model=st.binary(max_size=200))
def test_unpack_gives_what_was_packed_and_bytes_are_deterministic(
    meta: dict[str, object], model: bytes
) -> None:
    data = omfile.pack(meta, model)
    assert omfile.unpack(data) == (meta, model)
    assert omfile.pack(dict(reversed(list(meta.items()))), model) == data


def test_header_is_that_of_a_real_om() -> None:
    """hicann/ge ``inc/framework/common/types.h``: magic, header length 256, length of what follows."""
    data = omfile.pack({"name": "resnet50"}, b"onnx")
    magic, header = struct.unpack_from("<II", data)
    assert (magic, header, data[:4]) == (0x444F4D49, 256, b"IMOD")
    assert struct.unpack_from("<I", data, 12 + 64)[0] == len(data) - 256
    assert data[84:].startswith(b"resnet50\0")


@pytest.mark.parametrize("keep", [0, 1, 4, 255])
def test_less_than_a_header_is_no_om(keep: int) -> None:
    with pytest.raises(omfile.NotAnOm, match=str(keep)):
        omfile.unpack(omfile.pack({}, b"x" * 50)[:keep])


def test_foreign_magic_is_no_om() -> None:
    with pytest.raises(omfile.NotAnOm, match="magic"):
        omfile.unpack(b"\x08\x07" + bytes(400))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_cut_and_every_flipped_bit_behind_the_header_is_noticed(data: st.DataObject) -> None:
    whole = omfile.pack({"name": "n"}, bytes(range(100)))
    cut = data.draw(st.integers(256, len(whole) - 1))
    with pytest.raises(omfile.CorruptOm):
        omfile.unpack(whole[:cut])
    with pytest.raises(omfile.CorruptOm):
        omfile.unpack(whole + b"\0")
    place, bit = data.draw(st.integers(256, len(whole) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    with pytest.raises(omfile.CorruptOm):
        omfile.unpack(bytes(damaged))


def test_write_replaces_in_one_step_and_leaves_nothing_beside(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = folder / "m.om"
    omfile.write(path, {"a": 1}, b"one")
    with pytest.raises(TypeError):
        omfile.write(path, {"a": object()}, b"two")
    assert omfile.read(path) == ({"a": 1}, b"one")
    assert [entry.name for entry in folder.iterdir()] == ["m.om"]
