"""The one source of pre-processing.

A :class:`Preprocess` says how a picture becomes the network's input. Everything that has to agree about it is
derived from it here: the training transforms (:func:`mindspore_transforms`), the numbers of the board's NumPy
path (:func:`apply`; ``onboard/infer.py`` does the same arithmetic from :func:`spec_json`, bit for bit), and
the AIPP file which moves the normalisation into the om (:func:`aipp_config`).

The arithmetic, for colour channel ``c`` of a pixel value ``v`` (0 … 255), all in float32::

    gain[c] = float32(scale / std[c])
    bias[c] = float32(-mean[c] / std[c])
    out = v * gain[c] + bias[c]

which is ``(v * scale - mean[c]) / std[c]`` in two passes over the picture instead of seven. Product and sum
are each rounded once by IEEE rules, so every NumPy on every CPU gives the same bits.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import ConfigError, InputError

if TYPE_CHECKING:
    # The spec is part of every configuration, pixels are not: NumPy and Pillow take a tenth of a second to import.
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
SPEC_VERSION = 1

# Pillow clips these to 0 … 255 when it converts them to RGB: a 16-bit picture would come out nearly white.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclasses.dataclass
class Preprocess:
    """How a picture becomes the network's input. Three channels, always.

    ``mean`` and ``std`` are in units of the scaled values, and their index 0 belongs to the first channel
    *after* ``color_order`` was applied: with ``color_order: BGR`` it is blue. The tutorial's sample
    (Ascend/samples ``resnet50_mindspore_picture/src/classify.py``) does it like this.
    """

    size: list[int] = dataclasses.field(default_factory=lambda: [224, 224])
    """[height, width] of the network's input, pixels."""
    resize_filter: str = "bilinear"
    """How resizing computes pixels, named as in Pillow: nearest bilinear bicubic lanczos box hamming."""
    color_order: str = "RGB"
    """RGB or BGR: the order of the network's input channels."""
    scale: float = 1 / 255
    """Factor on the pixel values 0 … 255, before mean and std."""
    mean: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Subtracted from the scaled values, one number a channel."""
    std: list[float] = dataclasses.field(default_factory=lambda: [1.0, 1.0, 1.0])
    """Divides what is left, one number a channel."""
    layout: str = "NCHW"
    """NCHW or NHWC: the order of the axes of the network's input."""
    aipp: bool = False
    """true: AIPP does colour order and normalisation inside the om, and the board feeds uint8 NHWC, RGB."""


def check(spec: Preprocess, prefix: str = "preprocess.") -> list[str]:
    """Return all that is wrong with ``spec``, each beginning with its key: ``preprocess.std: …``."""
    problems = []

    def wrong(key: str, text: str) -> None:
        problems.append(f"{prefix}{key}: {text}")

    if len(spec.size) != 2:
        wrong("size", f"two values are needed, [height, width], not {list(spec.size)}")
    elif min(spec.size) < 1:
        wrong("size", f"must be at least 1 pixel each way, not {list(spec.size)}")
    if spec.resize_filter not in FILTERS:
        wrong("resize_filter", f"must be one of {', '.join(FILTERS)}, not {spec.resize_filter!r}")
    if spec.color_order not in ("RGB", "BGR"):
        wrong("color_order", f"must be RGB or BGR, not {spec.color_order!r}")
    if spec.layout not in ("NCHW", "NHWC"):
        wrong("layout", f"must be NCHW or NHWC, not {spec.layout!r}")
    if not math.isfinite(spec.scale) or spec.scale <= 0:
        wrong("scale", f"must be a number above 0 (1/255 brings pixels to 0 … 1), not {spec.scale}")
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) != 3:
            wrong(key, f"three values are needed, one a channel, not {len(values)}")
        if not all(map(math.isfinite, values)):
            wrong(key, f"must be finite numbers, not {list(values)}")
    if any(math.isfinite(value) and value <= 0 for value in spec.std):
        wrong("std", f"must be above 0 for each channel, not {list(spec.std)}")
    if spec.aipp and not problems:
        problems.extend(_check_aipp(spec, prefix))
    return problems


def _check_aipp(spec: Preprocess, prefix: str) -> list[str]:
    """Limits of the fields in an AIPP file (Ascend GE documents, AIPP ``config_file_template``)."""
    problems = []
    height, width = spec.size
    if not (1 <= height <= 4096 and 2 <= width <= 4096):
        problems.append(f"{prefix}size: AIPP takes heights of 1–4096, widths of 2–4096, not {spec.size}")
    minima = [value / spec.scale for value in spec.mean]
    if not all(0 <= value <= 255 for value in minima):
        problems.append(f"{prefix}mean: AIPP takes mean/scale between 0 and 255, not {_rounded(minima)}")
    # float16: below 6e-8 is 0, above 65504 is infinite.
    factors = [spec.scale / value for value in spec.std]
    if not all(2.0**-24 <= value <= 65504 for value in factors):
        problems.append(f"{prefix}std: scale/std must fit AIPP's float16, not {_rounded(factors)}")
    return problems


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def pixels(image: Image.Image, spec: Preprocess) -> npt.NDArray[np.uint8]:
    """Return the resized picture, uint8 [H,W,3], RGB.

    Greyscale, palette, CMYK and pictures with transparency are converted to RGB by Pillow (transparency is
    dropped, not blended); a rotation that is noted in EXIF data is left alone. Raises :class:`InputError` for
    damaged pictures, and for 16-bit greyscale and floating point ones, which Pillow would clip to 8 bits.
    """
    import numpy as np

    if image.mode in _DEEP_MODES:
        raise InputError(
            f"pictures of mode {image.mode} (16-bit or floating point) are not supported",
            hint="save the picture with 8 bits a channel",
        )
    try:
        rgb = image.convert("RGB")
    except Exception as error:  # Pillow raises nearly anything for broken files: SyntaxError, struct.error, …
        raise InputError(f"damaged picture: {error}") from error
    return np.asarray(_resize(rgb, spec.size, spec.resize_filter), dtype=np.uint8)


def _resize(image: Image.Image, size: Sequence[int], resize_filter: str) -> Image.Image:
    """Resize to [height, width], so that every Pillow gives the same pixels.

    Pillow's own default for the filter changed (nearest before 7.0, bicubic since): it is named. A resize is
    two passes, and newer ones swap them for pictures that become wider and lower (then Pillow 8 and 13 differ
    by up to 6 levels with bicubic, 16 with lanczos): each pass is asked for on its own, the horizontal first.
    """
    from PIL import Image

    height, width = size
    resampling = Image.Resampling[resize_filter.upper()]
    return image.resize((width, image.height), resampling).resize((width, height), resampling)


def normalise(picture: npt.NDArray[np.uint8], spec: Preprocess) -> npt.NDArray[np.float32]:
    """Return float32 [3,H,W] or [H,W,3] by ``spec.layout`` from uint8 [H,W,3], RGB."""
    import numpy as np

    gain, bias = gain_and_bias(spec)
    ordered = picture[:, :, ::-1] if spec.color_order == "BGR" else picture
    if spec.layout == "NCHW":
        ordered = ordered.transpose(2, 0, 1)
    out = np.empty(ordered.shape, dtype=np.float32)
    np.copyto(out, ordered)
    if spec.layout == "NCHW":
        rows, gain, bias = out, gain.reshape(3, 1, 1), bias.reshape(3, 1, 1)
    else:
        # Whole rows at a time: an inner axis of three costs NumPy eight times as much.
        height, width = out.shape[:2]
        rows, gain, bias = out.reshape(height, width * 3), np.tile(gain, width), np.tile(bias, width)
    np.multiply(rows, gain, out=rows)
    np.add(rows, bias, out=rows)
    return out


def gain_and_bias(spec: Preprocess) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return float32 [3] each: the factor and the summand of a channel (see the module's docstring)."""
    import numpy as np

    gain = [spec.scale / std for std in spec.std]
    bias = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    return np.array(gain, dtype=np.float32), np.array(bias, dtype=np.float32)


def apply(image: Image.Image, spec: Preprocess) -> npt.NDArray[np.float32] | npt.NDArray[np.uint8]:
    """Return what the board feeds for ``image``, without the batch axis.

    float32 [3,H,W] or [H,W,3] by ``spec.layout``; with ``spec.aipp`` uint8 [H,W,3], RGB: the om does the
    rest. Raises :class:`InputError` for pictures that can't be used (see :func:`pixels`).
    """
    picture = pixels(image, spec)
    return picture if spec.aipp else normalise(picture, spec)


class PillowResize:
    """Resizes uint8 [H,W,3] with Pillow, so that training sees the pixels which the board will see.

    MindSpore's own ``vision.Resize`` doesn't smooth when it makes pictures smaller, as OpenCV; Pillow does.
    An instance can be pickled, for data workers in processes of their own.
    """

    def __init__(self, size: Sequence[int], resize_filter: str) -> None:
        self.size = (size[0], size[1])
        self.filter = resize_filter

    def __call__(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        import numpy as np
        from PIL import Image

        if picture.shape[:2] == self.size:
            return picture
        return np.array(_resize(Image.fromarray(picture), self.size, self.filter), dtype=np.uint8)


def mindspore_transforms(
    spec: Preprocess, train: bool, *, crop_padding: int = 0, flip: bool = False, source: Sequence[int] = ()
) -> list[Callable[..., Any]]:
    """Return the operations for ``dataset.map`` on uint8 [H,W,3] pictures in RGB, as data sets give them.

    The result is what :func:`apply` gives for the same pixels (float32, within rounding), whatever
    ``spec.aipp`` says: the network itself always sees normalised numbers.

    Only with ``train``: ``crop_padding`` pixels are put around the picture and a random part of its first
    size cut out (``source``, the data set's [height, width]; default ``spec.size``), and ``flip`` mirrors
    every second picture at random. MindSpore's ResNet50 for CIFAR-10 uses 4 and True (mindspore-ai/models
    ``official/cv/ResNet/src/dataset.py``); digits must not be mirrored.
    """
    from mindspore.dataset import vision

    operations: list[Callable[..., Any]] = []
    if train and crop_padding:
        height, width = source or spec.size
        operations.append(vision.RandomCrop((height, width), (crop_padding,) * 4))
    if train and flip:
        operations.append(vision.RandomHorizontalFlip(0.5))
    if list(source) != list(spec.size):
        operations.append(PillowResize(spec.size, spec.resize_filter))
    if spec.color_order == "BGR":
        operations.append(vision.ConvertColor(vision.ConvertMode.COLOR_RGB2BGR))
    operations.append(vision.Rescale(spec.scale, 0.0))
    operations.append(vision.Normalize(list(spec.mean), list(spec.std), is_hwc=True))
    if spec.layout == "NCHW":
        operations.append(vision.HWC2CHW())
    return operations


def aipp_config(spec: Preprocess, format: str = "RGB888_U8") -> str:
    """Return the text for ``atc --insert_op_conf``: static AIPP which does colour order and normalisation.

    AIPP computes ``(v - mean_chn - min_chn) * var_reci_chn`` in float16, where ``mean_chn`` is an integer: so
    the mean goes into ``min_chn`` (= mean/scale) and ``var_reci_chn`` is scale/std. Channel 0 is the first
    one after ``rbuv_swap_switch`` (Ascend GE documents, AIPP ``normalization_config``). ``format`` is what
    the board feeds; it feeds packed RGB, so another one is a :class:`ConfigError`, as are numbers outside of
    AIPP's limits.
    """
    if format != "RGB888_U8":
        raise ConfigError(f"atc: AIPP input format {format} is not what boards feed", hint="use RGB888_U8")
    problems = check(dataclasses.replace(spec, aipp=True))
    if problems:
        raise ConfigError(f"no AIPP file can be written: {problems[0]}", problems=problems)
    height, width = spec.size
    lines = [
        "aipp_mode: static",
        "related_input_rank: 0",
        f"input_format: {format}",
        f"src_image_size_w: {width}",
        f"src_image_size_h: {height}",
        "csc_switch: false",
        f"rbuv_swap_switch: {'true' if spec.color_order == 'BGR' else 'false'}",
    ]
    for channel in range(3):
        lines.append(f"mean_chn_{channel}: 0")
    for channel in range(3):
        lines.append(f"min_chn_{channel}: {_decimal(spec.mean[channel] / spec.scale)}")
    for channel in range(3):
        lines.append(f"var_reci_chn_{channel}: {_decimal(spec.scale / spec.std[channel])}")
    return "aipp_op {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def _decimal(value: float) -> str:
    """More digits than float16 can hold, never an exponent, always a point."""
    text = f"{value:.10f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def spec_json(spec: Preprocess, *, app: str = "") -> dict[str, Any]:
    """Return what the release's ``spec.json`` holds: all that ``infer.py`` has to know about this app.

    Plain JSON types, and numbers survive ``json.dumps`` exactly. Raises :class:`ConfigError` if ``spec`` is
    wrong.
    """
    problems = check(spec)
    if problems:
        raise ConfigError(problems[0], problems=problems)
    preprocess = {
        "size": [int(value) for value in spec.size],
        "resize_filter": str(spec.resize_filter),
        "color_order": str(spec.color_order),
        "scale": float(spec.scale),
        "mean": [float(value) for value in spec.mean],
        "std": [float(value) for value in spec.std],
        "layout": str(spec.layout),
        "aipp": bool(spec.aipp),
    }
    return {"version": SPEC_VERSION, "app": app, "preprocess": preprocess}


def spec_text(spec: Preprocess, *, app: str = "") -> str:
    """Return :func:`spec_json` as the bytes of ``spec.json`` (ASCII, sorted keys, a newline at the end)."""
    return json.dumps(spec_json(spec, app=app), indent=1, sort_keys=True) + "\n"
