"""Static AIPP in the simulated ATC: configuration files, limits, and every pixel against an independent NumPy
version.

Fields, limits, formulas and order of operations: AIPP chapters of the ATC guide (hicann/ge docs
``atc_tools/AIPP``); defaults of the colour matrix: hicann/ge ``aipp_op.cc`` SetCscDefaultValue;
ax_swap_switch: hicann/ops-cv ``image/aipp``.
"""

from __future__ import annotations

import numpy as np
import pytest
from acl_support import run_acl
from atc_support import ARGS, Atc, atc, prototxt, save, save_nodes
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

__all__ = ["atc"]
PIXELS = {"YUV420SP_U8": 1.5, "XRGB8888_U8": 4, "RGB888_U8": 3, "YUV400_U8": 1}


def config(atc: Atc, text: str) -> str:
    (atc.folder / "aipp.cfg").write_text("aipp_op {\n" + text + "\n}\n")
    return "--insert_op_conf=aipp.cfg"


def identity(atc: Atc, channels: int, height: int, width: int, batch: int | str = 1, opset: int = 11) -> None:
    """A network that shows what AIPP gives it."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [batch, channels, height, width]}, ["y"], opset=opset)


STATIC = "aipp_mode: static\ninput_format: RGB888_U8\n"


def reference(
    picture: np.ndarray, fields: dict[str, object], channels: int, height: int, width: int
) -> np.ndarray:
    """AIPP, pixel by pixel, in Python integers and NumPy float16. ``picture``: bytes of N pictures; returns
    NCHW.
    """
    kind = str(fields["input_format"])
    get = fields.get
    out = []
    for data in picture:
        flat = data.ravel().astype(int)
        if kind == "YUV420SP_U8":
            luma = flat[: height * width].reshape(height, width)
            pairs = flat[height * width :].reshape(height // 2, width // 2, 2)
            planes = [luma]
            for which in (1, 0) if get("rbuv_swap_switch") else (0, 1):
                plane = np.zeros((height, width), int)
                for row in range(height):
                    for column in range(width):
                        plane[row, column] = pairs[row // 2, column // 2, which]
                planes.append(plane)
        else:
            packed = flat.reshape(height, width, -1)
            planes = [packed[:, :, index] for index in range(packed.shape[2])]
            if kind == "XRGB8888_U8":
                planes = planes[1:] if get("ax_swap_switch") else planes[:3]
            if get("rbuv_swap_switch"):
                planes = planes[::-1]
        image = np.stack(planes)
        if get("crop"):
            top, left = int(get("load_start_pos_h", 0)), int(get("load_start_pos_w", 0))
            image = image[:, top : top + int(get("crop_size_h")), left : left + int(get("crop_size_w"))]
        if get("csc_switch"):
            image = convert(image, fields, kind)
        image = image[:channels]
        result = np.zeros(image.shape, np.float16)
        for index in range(len(image)):
            low = np.float16(get(f"min_chn_{index}", 0))
            scale = np.float16(get(f"var_reci_chn_{index}", 1))
            whole = (image[index] - int(get(f"mean_chn_{index}", 0))).astype(np.float16)
            result[index] = (whole - low) * scale
        sides = [int(get(f"{side}_padding_size", 0)) for side in ("top", "bottom", "left", "right")]
        if get("padding"):
            filling = np.float16(get("padding_value", 0))
            result = np.pad(result, ((0, 0), tuple(sides[:2]), tuple(sides[2:])), constant_values=filling)
        out.append(result)
    return np.stack(out).astype(np.float32)


def convert(image: np.ndarray, fields: dict[str, object], kind: str) -> np.ndarray:
    yuv = kind.startswith("YUV")
    default = (
        (298, 516, 0, 298, -100, -208, 298, 0, 409) if yuv else (66, 129, 25, -38, -74, 112, 112, -94, -18)
    )
    names = [f"matrix_r{row}c{column}" for row in range(3) for column in range(3)]
    matrix = [int(fields.get(name, value)) for name, value in zip(names, default, strict=True)]
    bias = [16, 128, 128]
    inside = [int(fields.get(f"input_bias_{i}", bias[i])) if yuv else 0 for i in range(3)]
    outside = [0 if yuv else int(fields.get(f"output_bias_{i}", bias[i])) for i in range(3)]
    result = np.zeros_like(image)
    for row in range(3):
        total = sum(matrix[3 * row + column] * (image[column] - inside[column]) for column in range(3))
        result[row] = np.clip((total >> 8) + outside[row], 0, 255)
    return result


@st.composite
def configurations(draw: st.DrawFn) -> tuple[dict[str, object], int, int, int]:
    """Fields of a valid aipp_op, the channels of the model, and the size of the source picture."""
    kind = draw(st.sampled_from(sorted(PIXELS)))
    fields: dict[str, object] = {"input_format": kind}
    step = 2 if kind == "YUV420SP_U8" else 1
    height, width = (step * draw(st.integers(2 // step, 10 // step)) for _ in range(2))
    colours = kind != "YUV400_U8"
    channels = draw(st.sampled_from([1, 3])) if colours else 1
    if colours:
        fields["rbuv_swap_switch"] = draw(st.booleans())
        fields["csc_switch"] = draw(st.booleans())
        if draw(st.booleans()):
            extreme = st.one_of(st.integers(-600, 600), st.integers(-32677, 32676))
            for row in range(3):
                for column in range(3):
                    fields[f"matrix_r{row}c{column}"] = draw(extreme)
            for index in range(3):
                fields[f"input_bias_{index}"] = draw(st.integers(0, 255))
                fields[f"output_bias_{index}"] = draw(st.integers(0, 255))
    if kind == "XRGB8888_U8":
        fields["ax_swap_switch"] = draw(st.booleans())
    for index in range(draw(st.integers(0, channels))):
        fields[f"mean_chn_{index}"] = draw(st.integers(0, 255))
        fields[f"min_chn_{index}"] = draw(st.floats(0, 255, width=16))
        fields[f"var_reci_chn_{index}"] = draw(st.sampled_from([1.0, 0.0193849, 0.003921, 1 / 58, -2.0]))
    fields.update(src_image_size_w=width, src_image_size_h=height)
    if draw(st.booleans()):
        top, left = (step * draw(st.integers(0, (size - step) // step)) for size in (height, width))
        rows = step * draw(st.integers(1, (height - top) // step))
        columns = step * draw(st.integers(1, (width - left) // step))
        fields.update(
            crop=True, load_start_pos_h=top, load_start_pos_w=left, crop_size_h=rows, crop_size_w=columns
        )
    if draw(st.booleans()):
        sides = {
            f"{side}_padding_size": draw(st.integers(0, 3)) for side in ("top", "bottom", "left", "right")
        }
        fields.update(padding=True, padding_value=draw(st.sampled_from([0.0, 1.5, -3.0])), **sides)
    return fields, channels, height, width


def model_size(fields: dict[str, object], height: int, width: int) -> tuple[int, int]:
    if fields.get("crop"):
        height, width = int(str(fields["crop_size_h"])), int(str(fields["crop_size_w"]))
    if fields.get("padding"):
        height += int(str(fields["top_padding_size"])) + int(str(fields["bottom_padding_size"]))
        width += int(str(fields["left_padding_size"])) + int(str(fields["right_padding_size"]))
    return height, width


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    settings_=configurations(), seed=st.integers(0, 2**32 - 1), opset=st.sampled_from([8, 9, 11, 13, 18]),
    gears=st.booleans(),
)  # fmt: skip
def test_every_pixel_equals_numpy(
    atc: Atc, settings_: tuple[dict[str, object], int, int, int], seed: int, opset: int, gears: bool
) -> None:
    """All formats, switches, crops, matrices and paddings, in several opsets, with and without batch gears:
    no bit off.
    """
    fields, channels, height, width = settings_
    assume(width >= 2)
    rows, columns = model_size(fields, height, width)
    identity(atc, channels, rows, columns, batch="N" if gears else 2, opset=opset)
    lines = [
        f"  {name}: {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in fields.items()
    ]
    flags = [config(atc, "aipp_mode: static\n" + "\n".join(lines))]
    if gears:
        flags += [f"--input_shape=x:-1,{channels},{rows},{columns}", "--dynamic_batch_size=1,2"]
    om = atc.om(*flags)
    (entry,) = om.meta["inputs"]
    dims = [2 if dim == -1 else dim for dim in entry["onnx_dims"]]
    picture = np.random.default_rng(seed).integers(0, 256, dims, dtype=np.uint8)
    assert entry["size"] == picture.size == 2 * height * width * PIXELS[str(fields["input_format"])]
    (got,) = om(picture)
    assert np.array_equal(got, reference(picture, fields, channels, rows and height, columns and width))


def test_the_input_becomes_bytes_of_the_picture(atc: Atc) -> None:
    """acl reports uint8 (4), NHWC (1) and the source size whatever --input_format says; C=1 for YUV420SP."""
    identity(atc, 3, 8, 8)
    text = (
        STATIC
        + "src_image_size_w: 12 src_image_size_h: 10 crop: true load_start_pos_w: 2 load_start_pos_h: 1"
    )
    om = atc.om(config(atc, text))
    assert om.meta["inputs"] == [
        {
            "name": "x",
            "dtype": 4,
            "format": 1,
            "dims": [1, 10, 12, 3],
            "onnx_dims": [1, 10, 12, 3],
            "size": 360,
        }
    ]
    om = atc.om(config(atc, "aipp_mode: static input_format: YUV420SP_U8"))
    assert om.meta["inputs"][0]["dims"] == [1, 8, 8, 1]
    assert om.meta["inputs"][0]["onnx_dims"] == [1, 12, 8, 1]
    assert om.meta["inputs"][0]["size"] == 96


def test_aipp_info_has_the_fields_of_the_struct(atc: Atc) -> None:
    """aclAippInfo (acl_mdl.h): what acl.mdl.get_first_aipp_info hands on."""
    identity(atc, 3, 8, 8)
    info = atc.om(
        config(atc, STATIC + "mean_chn_1: 7 min_chn_2: 1.5 var_reci_chn_0: 0.25 rbuv_swap_switch: true")
    ).meta["aipp"]
    assert info["related_input"] == 0
    assert (info["inputFormat"], info["srcImageSizeW"], info["srcImageSizeH"]) == (3, 8, 8)
    assert (info["cscSwitch"], info["rbuvSwapSwitch"], info["cropSwitch"], info["paddingSwitch"]) == (
        0,
        1,
        0,
        0,
    )
    assert (info["meanChn1"], info["minChn2"], info["varReciChn0"], info["varReciChn3"]) == (
        7,
        1.5,
        0.25,
        1.0,
    )
    assert info["outDims"][0]["srcDims"] == {"name": "x", "dimCount": 4, "dims": [1, 3, 8, 8]}
    assert (info["outDims"][0]["srcSize"], info["outDims"][0]["aippOutSize"]) == (768, 384)
    yuv = atc.om(config(atc, "aipp_mode: static input_format: YUV420SP_U8 csc_switch: true")).meta["aipp"]
    assert [yuv[f"matrixR{r}C{c}"] for r in range(3) for c in range(3)] == [
        298,
        516,
        0,
        298,
        -100,
        -208,
        298,
        0,
        409,
    ]
    assert [yuv[f"inputBias{i}"] for i in range(3)] == [16, 128, 128]


def test_torch_style_normalisation_of_cifar10(atc: Atc) -> None:
    """ATC guide normalization_config: mean 0, min = 255 m, var_reci = 1 / (255 s) is Normalize(m, s) of
    pixels / 255.
    """
    identity(atc, 3, 4, 4)
    mean, deviation = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    lines = [f"min_chn_{i}: {255 * mean[i]} var_reci_chn_{i}: {1 / (255 * deviation[i])}" for i in range(3)]
    om = atc.om(config(atc, STATIC + "\n".join(lines)))
    picture = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) * 5
    expected = (picture / 255 - mean) / deviation
    assert np.abs(om(picture)[0] - expected.transpose(0, 3, 1, 2)).max() < 5e-3


def test_jpeg_yuv_to_rgb(atc: Atc) -> None:
    """ATC guide CSC_config, JPEG range: (256 0 359) (256 -88 -183) (256 454 0), input bias 0 128 128; grey
    stays grey.
    """
    identity(atc, 3, 2, 2)
    rows = ((256, 0, 359), (256, -88, -183), (256, 454, 0))
    matrix = " ".join(f"matrix_r{r}c{c}: {rows[r][c]}" for r in range(3) for c in range(3))
    om = atc.om(
        config(atc, f"aipp_mode: static input_format: YUV420SP_U8 csc_switch: true {matrix} input_bias_0: 0")
    )
    grey = np.array([10, 100, 200, 255, 128, 128], np.uint8).reshape(1, 3, 2, 1)
    for plane in om(grey)[0][0]:
        assert plane.tolist() == [[10, 100], [200, 255]]
    red = np.array([76, 76, 76, 76, 85, 255], np.uint8).reshape(1, 3, 2, 1)
    assert om(red)[0][0, :, 0, 0].tolist() == [254, 0, 0]


def test_a_uint8_model_gets_bytes(atc: Atc) -> None:
    """ATC guide: from uint8 to uint8 mean, min and var have no effect."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    types = {"x": TensorProto.UINT8, "y": TensorProto.UINT8}
    save_nodes(atc.folder / "net.onnx", nodes, {"x": [1, 3, 2, 2]}, ["y"], types=types)
    om = atc.om(config(atc, STATIC + "mean_chn_0: 100 var_reci_chn_1: 0.5 rbuv_swap_switch: true"))
    picture = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert np.array_equal(om(picture)[0], picture.transpose(0, 3, 1, 2)[:, ::-1])


def test_two_inputs_each_with_its_own(atc: Atc) -> None:
    """One aipp_op an input, told apart by related_input_rank; twice the same place is refused
    (insert_aipp_op_util.cc).
    """
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], axis=1)]
    save_nodes(atc.folder / "net.onnx", nodes, {"a": [1, 3, 2, 2], "b": [1, 1, 2, 2]}, ["y"])
    grey = "aipp_op { aipp_mode: static related_input_rank: 1 input_format: YUV400_U8 mean_chn_0: 1 }"
    (atc.folder / "aipp.cfg").write_text("aipp_op { " + STATIC + " }\n" + grey)
    om = atc.om("--insert_op_conf=aipp.cfg")
    picture, other = np.full((1, 2, 2, 3), 9, np.uint8), np.full((1, 2, 2, 1), 5, np.uint8)
    assert om(picture, other)[0][0, :, 0, 0].tolist() == [9, 9, 9, 4]
    assert [info["related_input"] for info in om.meta["aipp_all"]] == [0, 1]
    (atc.folder / "aipp.cfg").write_text(("aipp_op { " + STATIC + " }\n") * 2)
    assert "same position" in atc.fails("E10052", *ARGS, "--insert_op_conf=aipp.cfg")


@pytest.mark.parametrize(("ranks", "gears"), [((0, 1), False), ((1,), False), ((0, 1), True)])
def test_acl_knows_the_aipp_of_every_input(atc: Atc, ranks: tuple[int, ...], gears: bool) -> None:
    """acl_mdl.h aclmdlGetFirstAippInfo, aclmdlGetAippType: asked for each input; with batch gears, too."""
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], axis=1)]
    batch = "N" if gears else 1
    save_nodes(atc.folder / "net.onnx", nodes, {"a": [batch, 3, 2, 2], "b": [batch, 1, 2, 2]}, ["y"])
    op = "aipp_op {{ aipp_mode: static related_input_rank: {} input_format: {} mean_chn_0: {} }}\n"
    text = "".join(op.format(rank, ("RGB888_U8", "YUV400_U8")[rank], 2 - rank) for rank in ranks)
    (atc.folder / "aipp.cfg").write_text(text)
    flags = ["--input_shape=a:-1,3,2,2;b:-1,1,2,2", "--dynamic_batch_size=1,2"] if gears else []
    assert atc(*ARGS, "--insert_op_conf=aipp.cfg", *flags)[0] == 0
    got = run_acl(
        f"""
        up()
        model, desc = load("net.om")
        kinds = [acl.mdl.get_aipp_type(model, index)[0] for index in (0, 1)]
        infos = [acl.mdl.get_first_aipp_info(model, index) for index in (0, 1)]
        sizes = [acl.mdl.get_input_size_by_index(desc, index) for index in (0, 1)]
        types = [acl.mdl.get_input_data_type(desc, index) for index in (0, 1)]
        import struct
        data = [bytes(bytearray([9] * sizes[0])) if types[0] == 4 else struct.pack("12f", *[9.0] * 12),
                bytes(bytearray([5] * sizes[1]))]
        ins = dataset(*[(put(each), len(each)) for each in data])
        if {gears}:
            index = acl.mdl.get_input_index_by_name(desc, "ascend_mbatch_shape_data")[0]
            acl.mdl.add_dataset_buffer(ins, acl.create_data_buffer(malloc(4), 4))
            assert acl.mdl.set_dynamic_batch_size(model, ins, index, 2) == 0
        outs = output_buffers(desc)
        ret = acl.mdl.execute(model, ins, dataset(*outs))
        result = [kinds, [ret for _, ret in infos], [info and info["inputFormat"] for info, _ in infos],
                  types, ret, list(struct.unpack_from("16f", get(*outs[0])))]
        """,
        atc.folder,
    ).result
    first = 0 in ranks
    assert got[:4] == [[int(first), 1], [0 if first else 145015, 0], [3 if first else None, 4], [4 if first else 0, 4]]
    assert got[4:] == [0, [7.0 if first else 9.0] * 4 + [9.0] * 8 + [4.0] * 4]


def test_image_gears(atc: Atc) -> None:
    """ATC guide: static AIPP with --dynamic_image_size needs source sizes 0 and neither crop nor padding."""
    identity(atc, 3, 8, 8)
    flags = ["--input_shape=x:1,3,-1,-1", "--dynamic_image_size=8,8;4,6"]
    om = atc.om(config(atc, STATIC), *flags)
    assert om.meta["inputs"][0]["dims"] == [1, -1, -1, 3]
    assert om.meta["inputs"][0]["size"] == 192
    assert om(np.full((1, 4, 6, 3), 3, np.uint8))[0].shape == (1, 3, 4, 6)
    atc.fails("E10052", *ARGS, *flags, config(atc, STATIC + "src_image_size_w: 8 src_image_size_h: 8"))
    atc.fails("E10052", *ARGS, *flags, config(atc, STATIC + "crop: true"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("input_format: RGB888_U8", "aipp_mode must be configured as static or dynamic"),
        ("aipp_mode: static", "Input format of AIPP conf must be set in static aipp"),
        ("aipp_mode: dynamic", "max_src_image_size must be set"),
        ("aipp_mode: sometimes", 'Unknown enumeration value of "sometimes"'),
        (STATIC + "mean_chn: 1", 'no field named "mean_chn"'),
        (STATIC + "mean_chn_0: 123.675", 'Expected integer for field "mean_chn_0"'),
        (STATIC + "mean_chn_0: 256", "mean_chn_0 of 256 must be in the range [0, 255]"),
        (STATIC + "min_chn_0: -1", "must be in the range [0, 255]"),
        (STATIC + "mean_chn_0: 1 mean_chn_0: 2", "specified multiple times"),
        (STATIC + "var_reci_chn_0: 1 var_reci_chn_0: 1", "var_reci_chn_0 cannot be configured repeatedly"),
        (STATIC + "matrix_r0c0: 40000", "matrix_r0c0 of 40000"),
        (STATIC + "input_bias_0: -1", "input_bias_0 of -1"),
        (STATIC + "csc_switch: maybe", "boolean field"),
        (STATIC + "crop", "expected ':'"),
        (STATIC + 'mean_chn_0: "1"', "got a string"),
        ("aipp_mode: static input_format: RGB565", 'Unknown enumeration value of "RGB565"'),
        ("aipp_mode: static input_format: YUYV_U8", "not supported"),
        (STATIC + "resize: true", "resize"),
        (STATIC + "ax_swap_switch: true", "Only XRGB8888_U8 supports ax_swap_switch"),
        (STATIC + "src_image_size_w: 4097", "[0, 4096]"),
        (STATIC + "src_image_size_w: 9 src_image_size_h: 8", "the model's input is 8x8"),
        (STATIC + "crop: true crop_size_w: 8", "can only be 0 when crop and padding are switched off"),
        (
            STATIC + "src_image_size_w: 9 src_image_size_h: 9 crop: true load_start_pos_w: 2",
            "outside the picture",
        ),
        (
            STATIC + "src_image_size_w: 9 src_image_size_h: 9 crop: true crop_size_w: 7",
            "the model's input is 8x8",
        ),
        (STATIC + "padding: true left_padding_size: 33", "[0, 32]"),
        (STATIC + "src_image_size_w: 8 src_image_size_h: 8 padding: true left_padding_size: 1", "padding"),
        ("aipp_mode: static input_format: YUV400_U8", "the model's input has 3"),
        (
            "aipp_mode: static input_format: YUV420SP_U8 src_image_size_w: 9 src_image_size_h: 8 crop: true",
            "even",
        ),
        (STATIC + "related_input_rank: 1", "related_input_rank 1"),
        (STATIC + 'related_input_name: "x"', "convert rank failed"),
    ],
)
def test_wrong_configurations(atc: Atc, text: str, reason: str) -> None:
    """E10052 with the reason: unknown and missing fields, each limit of the template, and sizes that do not
    fit.
    """
    identity(atc, 3, 8, 8)
    assert reason in atc.fails("E10052", *ARGS, config(atc, text))


def test_files_that_are_no_configuration(atc: Atc) -> None:
    """An aipp_op is needed, and nothing else may stand beside it."""
    for text, reason in (
        ("", "has no aipp_op"),
        ("# only a comment", "has no aipp_op"),
        ("aipp { }", 'no field named "aipp"'),
        ("aipp_op { aipp_mode: static", "expected a field name or '}'"),
        ("aipp_op { aipp_mode: static } }", "expected a field name"),
        ("aipp_op: 3", "needs a message"),
        ("aipp_op { * }", "unexpected '*'"),
    ):
        (atc.folder / "aipp.cfg").write_text(text)
        assert reason in atc.fails("E10052", *ARGS, "--insert_op_conf=aipp.cfg")


def test_fp16_inputs_and_other_shapes_are_refused(atc: Atc) -> None:
    """E10034 when --input_fp16_nodes names the same input; AIPP is for 4-D NCHW pictures."""
    identity(atc, 3, 8, 8)
    atc.fails("E10034", *ARGS, config(atc, STATIC), "--input_fp16_nodes=x")
    save_nodes(atc.folder / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [3, 8]}, ["y"])
    atc.fails("E10052", *ARGS, config(atc, STATIC))
    identity(atc, 3, 8, 8)
    assert "no dynamic AIPP" in atc.fails(
        "E10055", *ARGS, config(atc, "aipp_mode: dynamic max_src_image_size: 999")
    )


def test_prototxt_forms(atc: Atc) -> None:
    """Text format: colon before braces, angle brackets, separators, comments, either quote, signs and
    exponents.
    """
    message = prototxt.parse("a: -1 ; b : 'x\"' # c: 3\n,d { e: 1e-3 } f: < g: true > h { }")
    plain = [(name, getattr(value, "text", None)) for name, value in message.fields]
    assert plain == [("a", "-1"), ("b", 'x"'), ("d", None), ("f", None), ("h", None)]
    nested = dict(message.fields)["d"]
    assert [(name, value.text, value.line) for name, value in nested.fields] == [("e", "1e-3", 2)]


def test_aipp_before_a_network(atc: Atc) -> None:
    """AIPP, then the network in float16, in one om: the convolution sees the normalised picture."""
    save(atc.folder / "net.onnx")
    om = atc.om(config(atc, STATIC + "mean_chn_0: 100 var_reci_chn_0: 0.5"))
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    picture[..., 0] = 110
    assert np.unique(om(picture)[0]).tolist() == [5]
    assert om.meta["precision"] == "fp16"
