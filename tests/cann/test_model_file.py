"""Model files that users give: whole, of the right kind, for the right chip."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.cann.model_file import check_model_file
from toolkit.errors import InputError


def network(path: Path, external: str = "") -> Path:
    """A small network that adds a constant."""
    weight = numpy_helper.from_array(np.ones((1, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weight],
    )
    model = helper.make_model(graph)
    if external:
        onnx.save(model, str(path), save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, str(path))
    return path


def om(path: Path, said: str = '"soc_version":"Ascend310P3"') -> Path:
    """An om as ATC writes it: header, then text and numbers."""
    body = b"\x00\x01" + said.encode() + b"\x00" * 50
    header = b"IMOD" + struct.pack("<II", 256, 1) + b"\0" * 64 + struct.pack("<I", len(body))
    path.write_bytes(header.ljust(256, b"\0") + body)
    return path


def problem(path: Path, soc_version: str = "Ascend310P3") -> str:
    with pytest.raises(InputError) as caught:
        check_model_file("model.from", path, soc_version)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"model.from: {path} ")
    return str(caught.value).removeprefix(f"model.from: {path} ")


def test_whole_files_are_taken(tmp_path: Path) -> None:
    check_model_file("model.from", network(tmp_path / "a.onnx"))
    whole = om(tmp_path / "a.om")
    for soc_version in ("Ascend310P3", "Ascend310P3vir02", ""):
        check_model_file("model.from", whole, soc_version)
    check_model_file("model.from", om(tmp_path / "b.om", "no chip is named"), "Ascend310")
    check_model_file("model.from", om(tmp_path / "c.om", "atc --soc_version=Ascend310 --log=error"), "Ascend310")


@pytest.mark.parametrize("keep", [1, 10, 100, 200])
def test_a_network_that_is_cut_short(tmp_path: Path, keep: int) -> None:
    whole = network(tmp_path / "whole.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[:keep])
    assert problem(cut).startswith("is no ONNX model, or cut short")


def test_what_is_not_what_its_name_says(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("<html>404 not found</html>\n" * 20)
    assert problem(text).startswith("is no ONNX model")
    (tmp_path / "other.om").write_bytes(network(tmp_path / "a.onnx").read_bytes())
    assert problem(tmp_path / "other.om") == "is no om"
    (tmp_path / "empty.air").touch()
    assert problem(tmp_path / "empty.air") == "is empty"
    (tmp_path / "folder.onnx").mkdir()
    assert problem(tmp_path / "folder.onnx") == "is not a file"
    assert problem(tmp_path / "none.ckpt") == "does not exist"
    assert "keeps its weights in another file, w.bin" in problem(network(tmp_path / "apart.onnx", external="w.bin"))


def test_an_om_that_the_boards_cannot_load(tmp_path: Path) -> None:
    whole = om(tmp_path / "whole.om")
    assert problem(whole, "Ascend310") == "is for Ascend310P3, and the boards have Ascend310"
    assert problem(whole, "Ascend310P1") == "is for Ascend310P3, and the boards have Ascend310P1"
    data = whole.read_bytes()
    whole.write_bytes(data[:300])
    assert problem(whole) == f"is cut short or damaged: 300 bytes, its header says {len(data)}"
    whole.write_bytes(data[:100])
    assert problem(whole) == "is cut short: 100 bytes"
