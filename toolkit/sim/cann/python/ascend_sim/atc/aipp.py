"""AIPP configurations: fields, defaults, limits, and what they mean for a model's input.

Fields and order of operations after the AIPP chapters of the ATC guide (hicann/ge docs ``atc_tools/AIPP``);
which switch goes with which format, and what ``ax_swap_switch`` does, after hicann/ops-cv ``image/aipp``.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy

from . import prototxt
from .errors import AtcError

FORMATS = {"YUV420SP_U8": 1, "XRGB8888_U8": 2, "RGB888_U8": 3, "YUV400_U8": 4}
# The rest of the enumeration: known to the text format, not to static AIPP on the chips that are simulated.
_OTHER_FORMATS = {
    "NC1HWC0DI_FP16": 5, "NC1HWC0DI_S8": 6, "ARGB8888_U8": 7, "YUYV_U8": 8, "YUV422SP_U8": 9,
    "AYUV444_U8": 10,
    "RAW10": 11, "RAW12": 12, "RAW16": 13, "RAW24": 14, "RGB16": 15, "RGB20": 16, "RGB24": 17, "RGB8_IR": 18,
    "RGB16_IR": 19, "RGB24_IR": 20,
}  # fmt: skip
CHANNELS = {"YUV420SP_U8": 3, "XRGB8888_U8": 3, "RGB888_U8": 3, "YUV400_U8": 1}
_MATRIX = ["matrix_r{}c{}".format(row, column) for row in range(3) for column in range(3)]
_YUV_TO_RGB = (298, 516, 0, 298, -100, -208, 298, 0, 409)
_RGB_TO_YUV = (66, 129, 25, -38, -74, 112, 112, -94, -18)

# Field -> (kind, lowest, highest, default). Kinds: i integer, f float16, b bool, s string, e enumeration.
_FIELDS = {
    "related_input_rank": ("i", 0, 2**31 - 1, 0),
    "related_input_name": ("s", 0, 0, ""),
    "max_src_image_size": ("i", 0, 2**32 - 1, 0),
    "src_image_size_w": ("i", 0, 4096, 0),
    "src_image_size_h": ("i", 0, 4096, 0),
    "support_rotation": ("b", 0, 1, False),
    "cpadding_value": ("f", -65504, 65504, 0.0),
    "crop": ("b", 0, 1, False),
    "load_start_pos_w": ("i", 0, 4095, 0),
    "load_start_pos_h": ("i", 0, 4095, 0),
    "crop_size_w": ("i", 0, 4096, 0),
    "crop_size_h": ("i", 0, 4096, 0),
    "resize": ("b", 0, 1, False),
    "resize_output_w": ("i", 0, 4096, 0),
    "resize_output_h": ("i", 0, 4096, 0),
    "padding": ("b", 0, 1, False),
    "left_padding_size": ("i", 0, 32, 0),
    "right_padding_size": ("i", 0, 32, 0),
    "top_padding_size": ("i", 0, 32, 0),
    "bottom_padding_size": ("i", 0, 32, 0),
    "padding_value": ("f", -65504, 65504, 0.0),
    "csc_switch": ("b", 0, 1, False),
    "rbuv_swap_switch": ("b", 0, 1, False),
    "ax_swap_switch": ("b", 0, 1, False),
    "single_line_mode": ("b", 0, 1, False),
    "mean_chn_0": ("i", 0, 255, 0), "mean_chn_1": ("i", 0, 255, 0),
    "mean_chn_2": ("i", 0, 255, 0), "mean_chn_3": ("i", 0, 255, 0),
    "min_chn_0": ("f", 0, 255, 0.0), "min_chn_1": ("f", 0, 255, 0.0),
    "min_chn_2": ("f", 0, 255, 0.0), "min_chn_3": ("f", 0, 255, 0.0),
    "var_reci_chn_0": ("f", -65504, 65504, 1.0), "var_reci_chn_1": ("f", -65504, 65504, 1.0),
    "var_reci_chn_2": ("f", -65504, 65504, 1.0), "var_reci_chn_3": ("f", -65504, 65504, 1.0),
    "raw_rgbir_to_f16_n": ("i", 0, 2**31 - 1, 0),
    "rotation_angle": ("f", 0, 360, 0.0),
}  # type: Dict[str, Tuple[str, float, float, Any]]  # fmt: skip
_FIELDS.update({name: ("i", -32677, 32676, None) for name in _MATRIX})
_FIELDS.update({"input_bias_{}".format(i): ("i", 0, 255, bias) for i, bias in enumerate((16, 128, 128))})
_FIELDS.update({"output_bias_{}".format(i): ("i", 0, 255, bias) for i, bias in enumerate((16, 128, 128))})
# "repeated" in the message type, so that twice the same line gets an answer of its own.
_REPEATED = ("matrix_", "input_bias_", "output_bias_", "var_reci_")


class Aipp(NamedTuple):
    """One checked static ``aipp_op``: ``fields`` has every field with its default where none was given."""

    input_format: str
    fields: Dict[str, Any]
    # Of the picture that the user feeds, and of what enters colour conversion.
    source: Tuple[int, int]
    crop: Optional[Tuple[int, int, int, int]]
    padding: Tuple[int, int, int, int]
    channels: int

    def matrix(self) -> List[List[int]]:
        """Return the colour conversion matrix, three rows; the defaults depend on the direction (hicann/ge
        aipp_op.cc).
        """
        default = _YUV_TO_RGB if self.input_format.startswith("YUV") else _RGB_TO_YUV
        flat = [self.fields[name] for name in _MATRIX]
        flat = [default[index] if value is None else value for index, value in enumerate(flat)]
        return [flat[0:3], flat[3:6], flat[6:9]]

    def numbers(self, name: str, count: int) -> List[Any]:
        """Return ``name_0`` ... ``name_<count-1>``."""
        return [self.fields["{}_{}".format(name, index)] for index in range(count)]

    def picture_bytes(self, height: int, width: int) -> int:
        """Return the bytes of one picture of this format."""
        pixels = height * width
        return {"YUV420SP_U8": pixels * 3 // 2, "XRGB8888_U8": pixels * 4, "RGB888_U8": pixels * 3,
                "YUV400_U8": pixels}[self.input_format]  # fmt: skip


def _fail(reason: str) -> AtcError:
    return AtcError("E10052", reason)


def read(path: str) -> List[Dict[str, Any]]:
    """Parse the file into one dict of typed fields per ``aipp_op``; raises AtcError E10052."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise AtcError("E13003", path, error)
    try:
        message = prototxt.parse(text)
    except prototxt.SyntaxProblem as problem:
        trace = ("Failed to parse file {} through google::protobuf::TextFormat::Parse.".format(path),)
        raise AtcError("E10052", "{} is not in prototxt format, {}".format(path, problem), trace=trace)
    ops = []
    for name, value in message.fields:
        if name != "aipp_op":
            raise _fail(
                'line {}: Message type "domi.InsertNewOps" has no field named "{}"'.format(value.line, name)
            )
        if not isinstance(value, prototxt.Message):
            raise _fail('line {}: "aipp_op" needs a message in braces'.format(value.line))
        ops.append(_typed(value))
    if not ops:
        raise _fail("{} has no aipp_op".format(path))
    return ops


def _typed(message: prototxt.Message) -> Dict[str, Any]:
    fields = {}  # type: Dict[str, Any]
    for name, value in message.fields:
        at = "line {}: ".format(value.line)
        if name not in _FIELDS and name not in ("aipp_mode", "input_format"):
            raise _fail('{}Message type "domi.AippOpParams" has no field named "{}"'.format(at, name))
        if not isinstance(value, prototxt.Scalar):
            raise _fail('{}"{}" is not a message'.format(at, name))
        if name in fields:
            if name.startswith(_REPEATED):
                raise _fail("The parameter {} cannot be configured repeatedly".format(name))
            raise _fail('{}Non-repeated field "{}" is specified multiple times'.format(at, name))
        fields[name] = _convert(name, value, at)
    return fields


def _convert(name: str, value: prototxt.Scalar, at: str) -> Any:
    text = value.text
    if name == "aipp_mode":
        if text not in ("static", "dynamic", "undefined") or value.quoted:
            raise _fail('{}Unknown enumeration value of "{}" for field "aipp_mode"'.format(at, text))
        return text
    if name == "input_format":
        if value.quoted or text not in FORMATS and text not in _OTHER_FORMATS:
            raise _fail('{}Unknown enumeration value of "{}" for field "input_format"'.format(at, text))
        return text
    kind, lowest, highest, _ = _FIELDS[name]
    if kind == "s":
        if not value.quoted:
            raise _fail('{}Expected string for field "{}", got: {}'.format(at, name, text))
        return text
    if value.quoted:
        raise _fail('{}Expected a number or switch for field "{}", got a string'.format(at, name))
    if kind == "b":
        if text.lower() not in ("true", "false", "t", "f", "1", "0"):
            raise _fail('{}Invalid value for boolean field "{}". Value: "{}"'.format(at, name, text))
        return text.lower() in ("true", "t", "1")
    try:
        number = int(text, 0) if kind == "i" else float(text.rstrip("fF"))  # type: float
    except ValueError:
        wanted = "integer" if kind == "i" else "double"
        raise _fail('{}Expected {} for field "{}", got: {}'.format(at, wanted, name, text))
    if not lowest <= number <= highest:
        raise _fail("{} of {} must be in the range [{:g}, {:g}]".format(name, text, lowest, highest))
    return number


def resolve(fields: Dict[str, Any], height: int, width: int, channels: int, image_gears: bool) -> Aipp:
    """Check one ``aipp_op`` against the model's input (``height`` and ``width`` -1 with dynamic image size).

    Raises AtcError: E10052 for a configuration that breaks a rule, E10055 for dynamic AIPP, which is not
    simulated.
    """
    mode = fields.get("aipp_mode", "undefined")
    if mode == "undefined":
        raise _fail("When insert AIPP op, aipp_mode must be configured as static or dynamic")
    if mode == "dynamic":
        if not fields.get("max_src_image_size"):
            raise _fail(
                "For dynamic AIPP params, max_src_image_size must be set which number should be greater "
                "than 0"
            )
        raise AtcError("E10055", "this is a simulated ATC, which has no dynamic AIPP; use aipp_mode: static")
    if "input_format" not in fields:
        raise _fail("Input format of AIPP conf must be set in static aipp")
    name = fields["input_format"]
    if name not in FORMATS:
        raise _fail("input_format {} is not supported, only {}".format(name, ", ".join(FORMATS)))
    full = {field: entry[3] for field, entry in _FIELDS.items()}
    full.update(fields)
    if full["resize"]:
        raise _fail("resize is reserved and cannot be switched on")
    if full["raw_rgbir_to_f16_n"] or full["support_rotation"]:
        raise _fail("raw_rgbir_to_f16_n and support_rotation are not supported")
    if full["ax_swap_switch"] and name != "XRGB8888_U8":
        raise _fail("Only XRGB8888_U8 supports ax_swap_switch being true")
    if name == "YUV400_U8" and (full["csc_switch"] or full["rbuv_swap_switch"]):
        raise _fail("YUV400_U8 supports neither csc_switch nor rbuv_swap_switch being true")
    if channels not in (1, 3) or channels > CHANNELS[name]:
        raise _fail("{} gives {} channels, the model's input has {}".format(name, CHANNELS[name], channels))
    if image_gears:
        if full["crop"] or full["padding"]:
            raise _fail("When --dynamic_image_size is set, crop and padding cannot be set to 'true'")
        if full["src_image_size_w"] or full["src_image_size_h"]:
            raise _fail(
                "When --dynamic_image_size is set, src_image_size_w and src_image_size_h must be set to '0'"
            )
        if name == "YUV420SP_U8":
            raise AtcError(
                "E10055", "this is a simulated ATC: no YUV420SP_U8 together with --dynamic_image_size"
            )
        return Aipp(name, full, (-1, -1), None, (0, 0, 0, 0), channels)
    source, crop, padding = _geometry(full, name, height, width)
    return Aipp(name, full, source, crop, padding, channels)


def _geometry(
    full: Dict[str, Any], name: str, height: int, width: int
) -> Tuple[Tuple[int, int], Optional[Tuple[int, int, int, int]], Tuple[int, int, int, int]]:
    """Return the source size (h, w), the crop (top, left, height, width) and the padding (top, bottom, left,
    right).
    """
    padding = (0, 0, 0, 0)
    if full["padding"]:
        sizes = [full[side + "_padding_size"] for side in ("top", "bottom", "left", "right")]
        padding = (sizes[0], sizes[1], sizes[2], sizes[3])
    source = (full["src_image_size_h"], full["src_image_size_w"])
    if 0 in source:
        if full["crop"] or full["padding"]:
            raise _fail(
                "src_image_size_w and src_image_size_h can only be 0 when crop and padding are switched off"
            )
        source = (source[0] or height, source[1] or width)
    if source[1] < 2:
        raise _fail("src_image_size_w of {} must be in the range [2, 4096]".format(source[1]))
    inner = (height - padding[0] - padding[1], width - padding[2] - padding[3])
    crop = None
    if full["crop"]:
        crop = (
            full["load_start_pos_h"], full["load_start_pos_w"],
            full["crop_size_h"] or height, full["crop_size_w"] or width,
        )  # fmt: skip
        if crop[0] + crop[2] > source[0] or crop[1] + crop[3] > source[1]:
            raise _fail(
                "load_start_pos plus crop_size reaches outside the picture: {} + {} > src_image_size_h {} or "
                "{} + {} > src_image_size_w {}".format(
                    crop[0], crop[2], source[0], crop[1], crop[3], source[1]
                )
            )
    got = crop[2:] if crop else source
    if got != inner:
        raise _fail(
            "after {} the picture is {}x{} (height x width) with {}+{} rows and {}+{} columns of padding, "
            "the model's "
            "input is {}x{}".format(
                "crop" if crop else "no crop", got[0], got[1], *(padding + (height, width))
            )
        )
    if name == "YUV420SP_U8":
        even = list(source) + list(crop or ())
        if any(number % 2 for number in even):
            raise _fail(
                "When input_format is YUV420SP_U8, src_image_size, load_start_pos and crop_size must be "
                "even numbers"
            )
    return source, crop, padding


def half(values: List[float]) -> "numpy.ndarray[Any, Any]":
    """Round to float16 and back: min_chn, var_reci_chn and padding_value are float16 in the hardware's
    parameters.
    """
    return numpy.array(values, numpy.float32).astype(numpy.float16).astype(numpy.float32)


def describe(
    aipp: Aipp, index: int, name: str, dims: List[int], input_format: int, batch: int
) -> Dict[str, Any]:
    """Return what ``acl.mdl.get_first_aipp_info`` tells: the fields of ``aclAippInfo``, ``outDims`` one per
    gear.

    ``dims``: of the model's input before AIPP, NCHW.
    """
    fields = aipp.fields
    matrix = aipp.matrix()
    crop = aipp.crop or (0, 0, 0, 0)
    info = {
        "related_input": index,
        "inputFormat": FORMATS[aipp.input_format],
        "srcImageSizeW": max(aipp.source[1], 0), "srcImageSizeH": max(aipp.source[0], 0),
        "cropSwitch": int(fields["crop"]),
        "loadStartPosW": crop[1], "loadStartPosH": crop[0], "cropSizeW": crop[3], "cropSizeH": crop[2],
        "resizeSwitch": 0, "resizeOutputW": 0, "resizeOutputH": 0,
        "paddingSwitch": int(fields["padding"]),
        "leftPaddingSize": aipp.padding[2], "rightPaddingSize": aipp.padding[3],
        "topPaddingSize": aipp.padding[0], "bottomPaddingSize": aipp.padding[1],
        "cscSwitch": int(fields["csc_switch"]), "rbuvSwapSwitch": int(fields["rbuv_swap_switch"]),
        "axSwapSwitch": int(fields["ax_swap_switch"]), "singleLineMode": 0,
        "srcFormat": input_format, "srcDatatype": 0, "srcDimNum": len(dims),
    }  # fmt: skip
    for row in range(3):
        for column in range(3):
            info["matrixR{}C{}".format(row, column)] = matrix[row][column] if fields["csc_switch"] else 0
    for index_, (inside, outside) in enumerate(
        zip(aipp.numbers("input_bias", 3), aipp.numbers("output_bias", 3))
    ):
        info["inputBias{}".format(index_)] = inside if fields["csc_switch"] else 0
        info["outputBias{}".format(index_)] = outside if fields["csc_switch"] else 0
    for index_ in range(4):
        info["meanChn{}".format(index_)] = fields["mean_chn_{}".format(index_)]
        info["minChn{}".format(index_)] = fields["min_chn_{}".format(index_)]
        info["varReciChn{}".format(index_)] = fields["var_reci_chn_{}".format(index_)]
    known = [batch if axis == 0 and dim < 0 else dim for axis, dim in enumerate(dims)]
    count = 1
    for dim in known:
        count *= max(dim, 1)
    info["shapeCount"] = 1
    info["outDims"] = [
        {
            "srcDims": {"name": name, "dimCount": len(known), "dims": known},
            "srcSize": count * 4,
            "aippOutdims": {"name": name, "dimCount": len(known), "dims": known},
            "aippOutSize": count * 2,
        }
    ]
    return info
