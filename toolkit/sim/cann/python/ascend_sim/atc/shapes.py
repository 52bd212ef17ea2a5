"""``--input_shape`` and the dynamic gears: parsing and rules.

After hicann/ge ``api/aclgrph/option_utils.cc`` and ``graph/preprocess/multi_batch_options.cc``.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .errors import AtcError, fill

MIN_GEARS, MAX_GEARS = 2, 100
_SPLIT = "The shape must contain two parts: name and value"
_SAMPLE_NAMED, _SAMPLE = '"input_name1:n1,c1,h1,w1"', '"input_name1:1,3,224,224"'

Shapes = Dict[str, List[int]]


class Gears(NamedTuple):
    """Dynamic gears: ``kind`` is batch, image or dims; ``profiles`` hold one number per -1 that a gear
    replaces.
    """

    kind: str
    profiles: Tuple[Tuple[int, ...], ...]

    def describe(self) -> Dict[str, Any]:
        """Return the entry of the om's description."""
        if self.kind == "batch":
            return {"kind": "batch", "gears": [profile[0] for profile in self.profiles]}
        return {"kind": self.kind, "gears": [list(profile) for profile in self.profiles]}


def parse_input_shape(text: str, dynamic: bool) -> Shapes:
    """Return name -> dims of ``name:n,c,h,w;name2:...``; -1 is allowed only when ``dynamic``."""
    shapes = {}  # type: Shapes
    for item in text.rstrip(";").split(";") if text else []:
        name, colon, value = item.rpartition(":")
        if not colon or not name.strip():
            raise AtcError("E10002", item, _SPLIT, _SAMPLE_NAMED)
        dims = []  # type: List[int]
        for part in value.split(",") if value.strip() else []:
            dims.append(_dimension(part.strip(), item, dynamic))
        shapes[name.strip()] = dims
    return shapes


def _dimension(part: str, item: str, dynamic: bool) -> int:
    if "." in part:
        raise AtcError("E10002", item, "The float number is unsupported", _SAMPLE)
    digits = part[1:] if part.startswith("-") else part
    if not digits or not digits[0].isdigit():
        raise AtcError("E10014", part, "input_shape")
    if not digits.isdigit():
        raise AtcError("E10002", item, "It is not a digit", _SAMPLE)
    number = int(part)
    if abs(number) >= 2**63:
        raise AtcError("E10013", part, "input_shape")
    if (not dynamic and number <= 0) or (dynamic and (number == 0 or number < -1)):
        raise AtcError("E10011", item, number)
    return number


def check(flags: Dict[str, str], newest: bool) -> Tuple[Shapes, Optional[Gears]]:
    """Apply the rules that need no model; return the shapes and the gears, or None for a static model.

    ``newest``: CANN 8.5 or later, where ``--dynamic_dims`` no longer insists on ``--input_format=ND``.
    """
    options = [flag for flag in ("dynamic_batch_size", "dynamic_image_size", "dynamic_dims") if flags[flag]]
    text = flags["input_shape"]
    if options and "~" in text:
        raise AtcError("E10040")
    if len(options) + bool(flags["input_shape_range"]) > 1:
        raise AtcError("E10009")
    if not options:
        if flags["input_shape_range"] or "~" in text or "-1" in text.replace(" ", ""):
            raise AtcError(
                "E10055",
                "this is a simulated ATC, which has no shape ranges. Give fixed dimensions, or gears with "
                "--dynamic_batch_size, --dynamic_image_size or --dynamic_dims",
            )
        return parse_input_shape(text, False), None
    if flags["input_hint_shape"]:
        raise AtcError(
            "E10001", flags["input_hint_shape"], "--input_hint_shape",
            "input_hint_shape cannot be used with dynamic_batch_size, dynamic_image_size or dynamic_dims.",
        )  # fmt: skip
    if not text:
        raise AtcError("E10004", "input_shape")
    shapes = parse_input_shape(text, True)
    option = options[0]
    if option == "dynamic_batch_size":
        gears = _batch(shapes, flags[option])
    elif option == "dynamic_image_size":
        gears = _image(shapes, flags[option])
    else:
        gears = _dims(shapes, flags[option], flags["input_format"], newest)
    _check_profiles(gears.profiles)
    return shapes, gears


def _batch(shapes: Shapes, text: str) -> Gears:
    batches = 0
    wrong = None  # type: Optional[Tuple[int, int]]
    for dims in shapes.values():
        if not dims:
            raise AtcError("E10012")
        if -1 not in dims:
            continue
        if dims[0] == -1:
            others = [(dim, index) for index, dim in enumerate(dims) if index and dim < 0]
            if others:
                wrong = wrong or others[0]
            else:
                batches += 1
    if wrong:
        nobody = (fill("E10031", (), True),) if not batches else ()
        raise AtcError("E10018", wrong[0], wrong[1], trace=nobody)
    if not batches:
        raise AtcError("E10031")
    if any(not (char.isdigit() or char == ",") for char in text):
        raise AtcError("E10003", text, "dynamic_batch_size", 'It can only contain digits and ",".')
    return Gears("batch", tuple((int(part),) for part in text.split(",") if part))


def _image(shapes: Shapes, text: str) -> Gears:
    images = 0
    for dims in shapes.values():
        if -1 not in dims:
            continue
        # Only height and width of a 4-D NCHW input may be open, and both must be.
        if len(dims) != 4 or dims[2:] != [-1, -1] or -1 in dims[:2]:
            raise AtcError("E10019")
        images += 1
    if not images:
        raise AtcError("E10019")
    text = text.rstrip(";")
    if any(not (char.isdigit() or char in ",; ") for char in text):
        reason = 'It can only contain digits, ",", " " and ";".'
        raise AtcError("E10003", text, "dynamic_image_size", reason)
    profiles = []
    for item in text.split(";"):
        parts = [part.strip() for part in item.split(",")]
        if len(parts) != 2 or not all(parts):
            raise AtcError("E10020", text)
        profiles.append(tuple(int(part) for part in parts))
    return Gears("image", tuple(profiles))


def _dims(shapes: Shapes, text: str, input_format: str, newest: bool) -> Gears:
    if not newest and input_format != "ND":
        reason = "input_format must be ND when set dynamic_dims."
        raise AtcError("E10001", input_format or "NCHW", "--input_format", reason)
    count = sum(dims.count(-1) for dims in shapes.values())
    if not count:
        reason = "At least one dim should be -1 when dynamic_dims is set."
        raise AtcError("E10001", "0", "--input_shape's dynamic dim num", reason)
    text = text.rstrip(";")
    if not text:
        raise AtcError("E10058", "--dynamic_dims")
    profiles = []
    for item in text.split(";"):
        parts = [part.strip() for part in item.split(",")]
        if len(parts) != count:
            reason = "Each setting needs to be consistent with the number of -1 in the input shape."
            raise AtcError("E10003", text, "dynamic_dims", reason)
        for part in parts:
            if not part.isdigit():
                raise AtcError("E10001", part, "--dynamic_dims", "Dynamic dims must be a positive integer.")
        profiles.append(tuple(int(part) for part in parts))
    return Gears("dims", tuple(profiles))


def _check_profiles(profiles: Tuple[Tuple[int, ...], ...]) -> None:
    if len(profiles) < MIN_GEARS:
        raise AtcError("E10035", len(profiles), MIN_GEARS)
    if len(profiles) > MAX_GEARS:
        raise AtcError("E10036", len(profiles), MAX_GEARS)
    for profile in profiles:
        for number in profile:
            if number <= 0:
                raise AtcError("E10038", number)
    if len(set(profiles)) != len(profiles):
        raise AtcError("E10039")


def at_gear(shapes: Shapes, order: List[str], gears: Gears, profile: Tuple[int, ...]) -> Shapes:
    """Return the shapes with each -1 replaced by what gear ``profile`` says; ``order``: inputs as in the
    model.
    """
    fixed = {}  # type: Shapes
    position = 0
    for name in order:
        dims = list(shapes[name])
        numbers = list(profile)
        if gears.kind == "dims":
            numbers = list(profile[position : position + dims.count(-1)])
            position += dims.count(-1)
        for index, dim in enumerate(dims):
            if dim == -1:
                dims[index] = numbers.pop(0)
        fixed[name] = dims
    return fixed
