"""What the simulated ATC makes of ONNX models: checks, shapes, gears, outputs, and the om's description."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from atc_support import ARGS, Atc, atc, boards, omfile, save, save_nodes
from onnx import TensorProto, helper, numpy_helper

__all__ = ["atc"]


def test_the_om_describes_the_model(atc: Atc) -> None:
    """Types and formats as acl reports them: float 0, NCHW 0; output names are node:index:tensor."""
    meta = atc.om().meta
    assert meta["inputs"] == [{"name": "x", "dtype": 0, "format": 0, "dims": [1, 3, 8, 8]}]
    assert meta["outputs"] == [{"name": "last:0:y", "dtype": 0, "format": 0, "dims": [1, 2, 8, 8]}]
    assert (meta["onnx_inputs"], meta["onnx_outputs"]) == (["x"], ["y"])
    assert (meta["soc_version"], meta["cann_version"], meta["atc_version"]) == ("Ascend310", "5.0.4", "5.0.4")
    assert (meta["framework"], meta["precision"], meta["name"]) == (5, "fp16", "net")
    assert (meta["dynamic"], meta["aipp"]) == (None, None)
    assert meta["cmdline"] == "atc " + " ".join(ARGS)
    # Two results of 1x2x8x8 float16 live at once, each in blocks of 512 bytes.
    assert meta["work_size"] == 512
    assert meta["weight_size"] == 512


def test_the_same_model_and_flags_give_the_same_bytes(atc: Atc) -> None:
    """An om without a clock in it can be compared, and found again by its digest."""
    atc.om()
    first = (atc.folder / "net.om").read_bytes()
    atc.om()
    assert (atc.folder / "net.om").read_bytes() == first


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("E13005", b"this is no protobuf"),
        ("E13005", b""),
        ("E13005", None),
        (
            "E16004",
            onnx.ModelProto(ir_version=6, opset_import=[helper.make_opsetid("", 11)]).SerializeToString(),
        ),
    ],
)
def test_files_that_are_no_model(atc: Atc, code: str, content: bytes | None) -> None:
    """E13005 failed to parse, E16004 ONNX model has no graph (error_registry.cc); None: the model cut
    short.
    """
    path = atc.folder / "net.onnx"
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    atc.fails(code, *ARGS)


@pytest.mark.parametrize(
    ("kind", "opset", "named"),
    [
        ("Bernoulli", 15, "ai.onnx::15::Bernoulli"),
        ("Relu", 19, "ai.onnx::19::Conv"),
        ("Relu", 7, "ai.onnx::7::Conv"),
    ],
)
def test_operators_and_versions_without_parser(atc: Atc, kind: str, opset: int, named: str) -> None:
    """E16002 with the registry's key (hicann parser onnx_parser.cc AdapterOpType); versions 8 to 18 are
    registered.
    """
    save(atc.folder / "net.onnx", kind=kind, opset=opset)
    assert named in atc.fails("E16002", *ARGS)


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 17, 18])
def test_versions_with_parser(atc: Atc, opset: int) -> None:
    """ATC guide --framework: opset 11 to 18; the registry goes down to 8."""
    save(atc.folder / "net.onnx", opset=opset)
    om = atc.om()
    assert om(np.ones((1, 3, 8, 8), np.float32))[0].max() == 3
    assert onnx.load_from_string(om.model).opset_import[0].version == opset


def test_a_model_without_inputs(atc: Atc) -> None:
    """E16001 (onnx_parser.cc): constants alone are no model for a device."""
    model = onnx.load(atc.folder / "net.onnx")
    tensor = numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), "x")
    model.graph.initializer.append(tensor)
    del model.graph.input[:]
    onnx.save(model, atc.folder / "net.onnx")
    assert "no [input] node" in atc.fails("E16001", *ARGS)


def test_files_that_cannot_be_read_or_written(atc: Atc) -> None:
    """E13003 and E13004 (error_registry.cc): weights beside the model that are missing, an AIPP file that is no text,
    an om whose name the disk does not take."""
    (atc.folder / "aipp.cfg").write_bytes(b"\xff\xfe")
    atc.fails("E13003", *ARGS, "--insert_op_conf=aipp.cfg")
    atc.fails("E13004", "--model=net.onnx", "--framework=5", "--output=" + "n" * 254, "--soc_version=Ascend310")
    model = onnx.load(atc.folder / "net.onnx")
    onnx.save(model, atc.folder / "net.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    (atc.folder / "weights").unlink()
    atc.fails("E13003", *ARGS)


def test_two_domains_are_one_too_many(atc: Atc) -> None:
    """E16005: nodes without a domain are ambiguous to ATC's parser when the model imports two
    (onnx_parser.cc).
    """
    model = onnx.load(atc.folder / "net.onnx")
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.save(model, atc.folder / "net.onnx")
    atc.fails("E16005", *ARGS)


@pytest.mark.parametrize(
    ("code", "shape"),
    [
        ("E10016", "data:1,3,8,8"),
        ("E10016", "x,1,3,8,8:1,3,8,8"),
        ("E10017", "conv:1,3,8,8"),
        ("E10049", "x:3,8,8"),
        ("E10002", "1,3,8,8"),
        ("E10002", "x:1,3,8.5,8"),
        ("E10002", "x:1,3,8y,8"),
        ("E10014", "x:1,3,,8"),
        ("E10011", "x:0,3,8,8"),
        ("E10011", "x:-2,3,8,8"),
        ("E10013", "x:99999999999999999999,3,8,8"),
        ("E10055", "x:-1,3,8,8"),
        ("E10055", "x:1~8,3,8,8"),
        ("E19999", "x:1,4,8,8"),
    ],
)
def test_wrong_input_shapes(atc: Atc, code: str, shape: str) -> None:
    """option_utils.cc ParseInputShape; wrong names and ranks in the parser; the last contradicts Conv's
    weights.
    """
    atc.fails(code, *ARGS, f"--input_shape={shape}")


def test_open_dimensions_need_input_shape(atc: Atc) -> None:
    """ATC guide --input_shape: required when the model has unknown dimensions; it also overrides known
    ones.
    """
    save(atc.folder / "net.onnx", batch="N")
    atc.fails("E10011", *ARGS)
    om = atc.om("--input_shape=x:4,3,8,8")
    assert om.meta["inputs"][0]["dims"] == [4, 3, 8, 8]
    assert om.meta["outputs"][0]["dims"] == [4, 2, 8, 8]
    assert om.session.get_inputs()[0].shape == [4, 3, 8, 8]
    save(atc.folder / "net.onnx", batch=1)
    assert atc.om("--input_shape= x : 2, 3,8,8").meta["outputs"][0]["dims"] == [2, 2, 8, 8]


BATCH, IMAGE = "--input_shape=x:-1,3,8,8", "--input_shape=x:1,3,-1,-1"


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        ("E10009", [BATCH, "--dynamic_batch_size=1,2", "--dynamic_image_size=8,8;16,16"]),
        ("E10040", ["--input_shape=x:1~2,3,8,8", "--dynamic_batch_size=1,2"]),
        ("E10004", ["--dynamic_batch_size=1,2"]),
        ("E10012", ["--input_shape=x:", "--dynamic_batch_size=1,2"]),
        ("E10058", [IMAGE, "--dynamic_dims=;", "--input_format=ND"]),
        ("E10031", ["--input_shape=x:1,3,8,8", "--dynamic_batch_size=1,2"]),
        ("E10018", ["--input_shape=x:-1,-1,8,8", "--dynamic_batch_size=1,2"]),
        ("E10003", [BATCH, "--dynamic_batch_size=1;2"]),
        ("E10035", [BATCH, "--dynamic_batch_size=4"]),
        ("E10036", [BATCH, "--dynamic_batch_size=" + ",".join(map(str, range(1, 102)))]),
        ("E10038", [BATCH, "--dynamic_batch_size=0,2"]),
        ("E10039", [BATCH, "--dynamic_batch_size=2,4,2"]),
        ("E10019", [BATCH, "--dynamic_image_size=8,8;16,16"]),
        ("E10019", ["--input_shape=x:1,3,8,8", "--dynamic_image_size=8,8;16,16"]),
        ("E10020", [IMAGE, "--dynamic_image_size=8,8;16"]),
        ("E10003", [IMAGE, "--dynamic_image_size=8,8;16,a"]),
        ("E10039", [IMAGE, "--dynamic_image_size=8,8;8,8"]),
        ("E10001", [IMAGE, "--dynamic_dims=8,8;16,16"]),
        ("E10003", [IMAGE, "--dynamic_dims=8;16", "--input_format=ND"]),
        ("E10001", ["--input_shape=x:1,3,8,8", "--dynamic_dims=8;16", "--input_format=ND"]),
        ("E10001", [IMAGE, "--dynamic_dims=8,a;16,16", "--input_format=ND"]),
        ("E10001", [IMAGE, "--dynamic_dims=8,8;9,9", "--input_format=ND", "--insert_op_conf=net.onnx"]),
    ],
)
def test_wrong_gears(atc: Atc, code: str, flags: list[str]) -> None:
    """option_utils.cc CheckDynamic*, multi_batch_options.cc CheckDynamicParams; 2 to 100 profiles (ATC
    guide).
    """
    atc.fails(code, *ARGS, *flags)


def test_gears(atc: Atc) -> None:
    """The three kinds; the graph takes each gear, the om's description has -1 where gears differ."""
    om = atc.om(BATCH, "--dynamic_batch_size=1,2,8,")
    assert om.meta["dynamic"] == {"kind": "batch", "gears": [1, 2, 8]}
    assert om.meta["inputs"][0]["dims"] == [-1, 3, 8, 8]
    assert om.meta["outputs"][0]["dims"] == [-1, 2, 8, 8]
    assert [om(np.ones((n, 3, 8, 8), np.float32))[0].shape[0] for n in (1, 2, 8)] == [1, 2, 8]
    # Memory is for the largest gear: two results of 8x2x8x8 float16.
    assert om.meta["work_size"] == 8 * 512 // 2
    om = atc.om(IMAGE, "--dynamic_image_size=8,8; 16,32")
    assert om.meta["dynamic"] == {"kind": "image", "gears": [[8, 8], [16, 32]]}
    assert om(np.ones((1, 3, 16, 32), np.float32))[0].shape == (1, 2, 16, 32)
    om = atc.om("--input_shape=x:-1,3,-1,8", "--dynamic_dims=1,8;2,16", "--input_format=ND")
    assert om.meta["dynamic"] == {"kind": "dims", "gears": [[1, 8], [2, 16]]}
    assert om.meta["inputs"][0]["format"] == 2
    atc.cann("9.0.0")
    newer = ("--soc_version=Ascend310P3", "--input_shape=x:-1,3,8,8", "--dynamic_dims=1;2")
    assert atc.om(*newer).meta["dynamic"]["gears"] == [[1], [2]]


def test_every_gear_has_to_compile(atc: Atc) -> None:
    """ATC compiles a branch for each gear; here the classifier fits 8x8 pictures only."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    save_nodes(
        atc.folder / "net.onnx", nodes, {"x": [1, 3, 8, 8]}, ["y"], {"w": np.ones((192, 4), np.float32)}
    )
    assert atc(*ARGS, IMAGE, "--dynamic_image_size=8,8;4,16")[0] == 0
    atc.fails("E19999", *ARGS, IMAGE, "--dynamic_image_size=8,8;16,16")


def test_out_nodes(atc: Atc) -> None:
    """ATC guide --out_nodes: node:index; E10016 for a node that is not there, E11016 for an index it does not
    have.
    """
    om = atc.om("--out_nodes=conv:0;last:0")
    assert [output["name"] for output in om.meta["outputs"]] == ["conv:0:c", "last:0:y"]
    om = atc.om("--out_nodes=conv:0")
    assert om(-np.ones((1, 3, 8, 8), np.float32))[0].min() == -3
    assert "Relu" not in om.meta["operators"]
    assert "out_nodes" in atc.fails("E10016", *ARGS, "--out_nodes=nobody:0")
    atc.fails("E11016", *ARGS, "--out_nodes=conv:1")


@pytest.mark.parametrize(
    ("flag", "dtype"),
    [("FP16", np.float16), ("FP32", np.float32), ("UINT8", np.uint8), ("last:0:INT8", np.int8)],
)
def test_output_type(atc: Atc, flag: str, dtype: type) -> None:
    """ATC guide --output_type: one type for all outputs, or node:index:TYPE."""
    om = atc.om(f"--output_type={flag}")
    (result,) = om(np.ones((1, 3, 8, 8), np.float32))
    assert result.dtype == dtype
    assert result.max() == 3
    assert (
        om.meta["outputs"][0]["dtype"]
        == {"float16": 1, "float32": 0, "uint8": 4, "int8": 2}[result.dtype.name]
    )
    assert om.meta["outputs"][0]["name"] == "last:0:y"
    atc.fails("E10001", *ARGS, "--output_type=nobody:0:FP16")


def test_input_fp16_nodes(atc: Atc) -> None:
    """ATC guide --input_fp16_nodes: the user feeds float16; a wrong name is E10016, a node that is no input E10017
    (hicann/ge parser_utils.cc)."""
    om = atc.om("--input_fp16_nodes=x")
    assert om.meta["inputs"][0]["dtype"] == 1
    assert om(np.ones((1, 3, 8, 8), np.float16))[0].max() == 3
    atc.fails("E10016", *ARGS, "--input_fp16_nodes=z")
    atc.fails("E10017", *ARGS, "--input_fp16_nodes=conv")


def test_several_inputs_and_integer_types_keep_their_order(atc: Atc) -> None:
    """Inputs as in the graph; int64 stays int64 (acl type 9); an input without --input_shape keeps its
    own.
    """
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["rows"]),
        helper.make_node("Add", ["rows", "more"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1),
    ]
    inputs: dict[str, list[int | str]] = {"index": [2], "more": ["N", 4]}
    types = {"index": TensorProto.INT64, "best": TensorProto.INT64}
    table = {"table": np.arange(12, dtype=np.float32).reshape(3, 4)}
    save_nodes(atc.folder / "net.onnx", nodes, inputs, ["y", "best"], table, types=types)
    om = atc.om("--input_shape=more:2,4")
    assert [(i["name"], i["dtype"], i["format"]) for i in om.meta["inputs"]] == [
        ("index", 9, 2),
        ("more", 0, 2),
    ]
    assert [o["dtype"] for o in om.meta["outputs"]] == [0, 9]
    total, best = om(np.array([2, 0]), np.zeros((2, 4), np.float32))
    assert total.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert best.ravel().tolist() == [3, 3]


def test_weights_listed_as_inputs_are_no_inputs(atc: Atc) -> None:
    """Before ONNX IR 4 every initializer was an input, too; ATC asks for none of them."""
    model = onnx.load(atc.folder / "net.onnx")
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3, 1, 1]))
    model.ir_version = 3
    onnx.save(model, atc.folder / "net.onnx")
    assert atc.om().meta["onnx_inputs"] == ["x"]


def test_outputs_that_depend_on_data_are_measured(atc: Atc) -> None:
    """What shape inference leaves open (NonZero) the simulator finds by running the model once."""
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [2, 3]}, ["y"], types={"y": TensorProto.INT64})
    assert atc.om().meta["outputs"][0]["dims"] == [2, 0]


def test_a_quantised_model_passes_through(atc: Atc) -> None:
    """QDQ: the integer part is the model's own; nothing is rounded between QuantizeLinear and
    DequantizeLinear.
    """
    one, zero = np.array(0.5, np.float32), np.array(0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w"]),
        helper.make_node("Conv", ["d", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    constants = {"s": one, "z": zero, "wq": np.full((2, 3, 1, 1), 2, np.int8)}
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 3, 4, 4]}, ["y"], constants, opset=13)
    om = atc.om()
    picture = np.random.default_rng(0).uniform(-5, 5, (1, 3, 4, 4)).astype(np.float32)
    expected = np.clip(np.rint(picture / 0.5), -128, 127).sum(1, keepdims=True).repeat(2, 1) * 0.5
    assert np.array_equal(om(picture)[0], np.clip(np.rint(expected / 0.5), -128, 127) * 0.5)
    assert "Cast" not in om.meta["operators"]


def test_the_chip_and_the_toolkit_are_remembered(atc: Atc) -> None:
    """ATC guide --soc_version: an om is for one chip; the board's CANN has to be as new as the ATC."""
    atc.monkeypatch.setattr(boards, "_board", boards.Board({"cann_version": "7.0.0"}))
    assert atc("--model=net.onnx", "--framework=5", "--output=net", "--soc_version=Ascend310B4")[0] == 0
    meta, _ = omfile.read(atc.folder / "net.om")
    assert (meta["soc_version"], meta["cann_version"]) == ("Ascend310B4", "7.0.0")
