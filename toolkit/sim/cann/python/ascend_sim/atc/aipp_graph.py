"""Static AIPP as ONNX nodes in front of a graph.

Order of the hardware: channel swap, crop, colour conversion, ``(in - mean - min) * var``, padding; the result
is float16. Colour conversion is integer arithmetic: ``(matrix x pixel) >> 8`` clipped to 0..255. A
coefficient of int16 times a byte would leave the range in which float32 is exact, so each is split into ``256
* high + low``: ``sum(x * high) + floor(sum(x * low) / 256)`` is the same integer and both sums stay small.
"""

from typing import List, Tuple

import numpy
import onnx
from onnx import TensorProto, helper

from . import graph as graphs
from .aipp import Aipp, half

# Begins the names of the nodes made here.
PREFIX = "atc_aipp_"


def insert(model: onnx.ModelProto, name: str, aipp: Aipp, opset: int, batch: int) -> List[int]:
    """Put AIPP before input ``name`` (4-D NCHW, float or uint8): the model's input of that name becomes uint8
    NHWC.

    ``batch``: -1 when open. Returns the dims of the new ONNX input. For YUV420SP_U8 that is NV12: (N, H*3/2,
    W, 1), H rows of Y and H/2 rows of interleaved U and V.
    """
    graph = model.graph
    rewriter = graphs.Rewriter(graph, opset, PREFIX + _clean(name) + "_")
    source = next(value for value in graph.input if value.name == name)
    wanted = source.type.tensor_type.elem_type
    height, width = aipp.source
    planes = {"YUV420SP_U8": 1, "YUV400_U8": 1, "RGB888_U8": 3, "XRGB8888_U8": 4}[aipp.input_format]
    rows = height * 3 // 2 if aipp.input_format == "YUV420SP_U8" else height
    dims = [batch, rows, width, planes]

    if aipp.input_format == "YUV420SP_U8":
        pixels = _nv12(rewriter, name, aipp, height, width)
    else:
        pixels = _packed(rewriter, name, aipp)
    pixels = _colours(rewriter, pixels, aipp)
    pixels = _normalise(rewriter, pixels, aipp, wanted)
    if any(aipp.padding):
        pixels = _pad(rewriter, pixels, aipp, opset)
    if wanted not in (TensorProto.FLOAT,):
        pixels = rewriter.node("Cast", [pixels], to=wanted)

    graphs.rename_uses(graph.node, name, pixels)
    graphs.replace_nodes(graph, rewriter.nodes + list(graph.node))
    source.CopyFrom(
        helper.make_tensor_value_info(name, TensorProto.UINT8, [None if dim < 0 else dim for dim in dims])
    )
    return dims


def _clean(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name)


def _slice(rewriter: graphs.Rewriter, value: str, starts: List[int], ends: List[int], axes: List[int]) -> str:
    if rewriter.opset < 10:
        return rewriter.node("Slice", [value], starts=starts, ends=ends, axes=axes)
    inputs = [value] + [rewriter.constant(numbers, numpy.int64) for numbers in (starts, ends, axes)]
    return rewriter.node("Slice", inputs)


def _packed(rewriter: graphs.Rewriter, name: str, aipp: Aipp) -> str:
    """RGB888, XRGB8888 and YUV400: crop the bytes, then float NCHW with the channels in order."""
    value = name
    if aipp.crop:
        top, left, rows, columns = aipp.crop
        value = _slice(rewriter, value, [top, left], [top + rows, left + columns], [1, 2])
    if aipp.input_format == "XRGB8888_U8":
        # Without the switch the bytes are R, G, B, X; with it X, R, G, B (ops-cv: the source channel offset
        # is 1).
        first = 1 if aipp.fields["ax_swap_switch"] else 0
        value = _slice(rewriter, value, [first], [first + 3], [3])
    value = rewriter.node("Transpose", [value], perm=[0, 3, 1, 2])
    if aipp.fields["rbuv_swap_switch"]:
        value = rewriter.node("Gather", [value, rewriter.constant([2, 1, 0], numpy.int64)], axis=1)
    return rewriter.node("Cast", [value], to=TensorProto.FLOAT)


def _nv12(rewriter: graphs.Rewriter, name: str, aipp: Aipp, height: int, width: int) -> str:
    """YUV420SP: Y, U, V planes of full size, float NCHW; each U and V counts for a square of four pixels."""
    luma = _slice(rewriter, name, [0], [height], [1])
    luma = rewriter.node("Reshape", [luma, rewriter.constant([0, 1, height, width], numpy.int64)])
    chroma = _slice(rewriter, name, [height], [height * 3 // 2], [1])
    blocks = rewriter.constant([0, height // 2, 1, width // 2, 1, 2], numpy.int64)
    chroma = rewriter.node("Reshape", [chroma, blocks])
    # Expand has no uint8 kernel in older ONNX Runtimes.
    chroma = rewriter.node("Cast", [chroma], to=TensorProto.FLOAT)
    square = rewriter.constant([1, height // 2, 2, width // 2, 2, 2], numpy.int64)
    chroma = rewriter.node("Expand", [chroma, square])
    chroma = rewriter.node("Reshape", [chroma, rewriter.constant([0, height, width, 2], numpy.int64)])
    chroma = rewriter.node("Transpose", [chroma], perm=[0, 3, 1, 2])
    if aipp.fields["rbuv_swap_switch"]:
        chroma = rewriter.node("Gather", [chroma, rewriter.constant([1, 0], numpy.int64)], axis=1)
    value = rewriter.node("Concat", [rewriter.node("Cast", [luma], to=TensorProto.FLOAT), chroma], axis=1)
    if aipp.crop:
        top, left, rows, columns = aipp.crop
        value = _slice(rewriter, value, [top, left], [top + rows, left + columns], [2, 3])
    return value


def _colours(rewriter: graphs.Rewriter, value: str, aipp: Aipp) -> str:
    """Colour conversion, then as many channels as the model takes (a grey model takes the first)."""
    if not aipp.fields["csc_switch"]:
        if aipp.channels == 1 and aipp.input_format != "YUV400_U8":
            value = _slice(rewriter, value, [0], [1], [1])
        return value
    matrix = numpy.array(aipp.matrix()[: aipp.channels], numpy.int64)
    high, low = numpy.floor_divide(matrix, 256), numpy.mod(matrix, 256)
    yuv = aipp.input_format.startswith("YUV")
    if yuv:
        bias = numpy.array(aipp.numbers("input_bias", 3), numpy.float32).reshape(1, 3, 1, 1)
        value = rewriter.node("Sub", [value, rewriter.constant(bias, numpy.float32)])
    sums = []
    for part in (high, low):
        weights = rewriter.constant(part.reshape(aipp.channels, 3, 1, 1), numpy.float32, "csc")
        sums.append(rewriter.node("Conv", [value, weights], kernel_shape=[1, 1]))
    shifted = rewriter.node("Mul", [sums[1], rewriter.constant(1.0 / 256, numpy.float32)])
    value = rewriter.node("Add", [sums[0], rewriter.node("Floor", [shifted])])
    if not yuv:
        bias = numpy.array(aipp.numbers("output_bias", aipp.channels), numpy.float32).reshape(1, -1, 1, 1)
        value = rewriter.node("Add", [value, rewriter.constant(bias, numpy.float32)])
    # Clip by way of Max and Min: its own form changed with opset 11.
    value = rewriter.node("Max", [value, rewriter.constant([0], numpy.float32)])
    return rewriter.node("Min", [value, rewriter.constant([255], numpy.float32)])


def _normalise(rewriter: graphs.Rewriter, value: str, aipp: Aipp, wanted: int) -> str:
    """``(in - mean - min) * var`` with a float16 result after each step; has no effect from uint8 to
    uint8.
    """
    if wanted in (TensorProto.UINT8, TensorProto.INT8):
        return value
    count, shape = aipp.channels, (1, aipp.channels, 1, 1)
    mean = numpy.array(aipp.numbers("mean_chn", count), numpy.float32).reshape(shape)
    low = half(aipp.numbers("min_chn", count)).reshape(shape)
    scale = half(aipp.numbers("var_reci_chn", count)).reshape(shape)
    if mean.any():
        value = rewriter.node("Sub", [value, rewriter.constant(mean, numpy.float32)])
    if low.any():
        value = rewriter.round16(rewriter.node("Sub", [value, rewriter.constant(low, numpy.float32)]), 4)
    if (scale != 1).any():
        value = rewriter.round16(rewriter.node("Mul", [value, rewriter.constant(scale, numpy.float32)]), 4)
    return value


def _pad(rewriter: graphs.Rewriter, value: str, aipp: Aipp, opset: int) -> str:
    top, bottom, left, right = aipp.padding
    pads = [0, 0, top, left, 0, 0, bottom, right]
    filling = float(half([aipp.fields["padding_value"]])[0])
    if opset < 11:
        return rewriter.node("Pad", [value], pads=pads, value=filling, mode="constant")
    return rewriter.node(
        "Pad", [value, rewriter.constant(pads, numpy.int64), rewriter.constant(filling, numpy.float32)]
    )


def meta_dims(aipp: Aipp, dims: List[int]) -> Tuple[List[int], int]:
    """Return the dims that the om reports (NHWC, C=1 for YUV) and the bytes of one picture (0 when not
    fixed).
    """
    height, width = aipp.source
    size = aipp.picture_bytes(height, width) if height > 0 else 0
    return [dims[0], height, width, dims[3]], size
