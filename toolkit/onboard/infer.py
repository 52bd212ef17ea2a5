#!/usr/bin/env python3
"""Classifies a folder of pictures on an Ascend board, through pyACL.

Runs in a release folder, which holds model.om, spec.json and labels.txt:

    python3 infer.py --pictures DIR --out DIR [--top-k 5] [--limit N] ...
    python3 infer.py --loop 1000 --out DIR         measure instead of classify: OUT/bench.json

For each picture: open, convert to RGB, resize, colour order, scale, mean, std, layout as spec.json says; run
model.om; softmax; print the best classes; save the picture, with the best class written on it, under the same
name in OUT. OUT also gets results.jsonl (one line a picture, written as it goes) and, last, summary.json.

Pictures are the regular files .jpg .jpeg .png .bmp of the folder, in any case, in the order of their names.
Greyscale, palette, CMYK and transparent ones are converted to RGB (transparency is dropped); a rotation noted
in EXIF data is left alone. One that can't be read is reported and counted, and the rest goes on.

Exit codes: 0 done, also when some pictures failed (summary.json counts them); 2 wrong usage, or the release's
files don't fit together; 3 OUT can't be written; 4 every picture failed; 5 no pictures; 6 an acl call failed; 7 a Python module is
missing; 130 and 143 interrupted.

Python 3.6 to 3.13, NumPy 1.16 and later, Pillow 5 and later, and pyACL, which CANN brings.
"""

import argparse
import contextlib
import functools
import io
import json
import math
import os
import platform
import resource
import signal
import sys
import time

try:
    import numpy as np
    import PIL
    from PIL import Image, ImageDraw, ImageFont
except ImportError as missing:
    if __name__ != "__main__":
        raise
    sys.stderr.write(f"python module missing: {missing} (interpreter {sys.executable}): "
                     "install numpy and pillow for it\n")
    sys.exit(7)

EXTENSIONS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}
SPEC_VERSION = 1
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"
# Pillow would clip these to 0 ... 255 when it converts them to RGB.
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

# pyACL exports no constants; these are of aclDataType, aclrtMemcpyKind, aclrtRunMode, aclrtMemMallocPolicy.
DTYPES = {0: "float32", 1: "float16", 2: "int8", 3: "int32", 4: "uint8", 6: "int16", 7: "uint16",
          8: "uint32", 9: "int64", 10: "uint64", 11: "float64", 12: "bool"}
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
RUN_MODE_DEVICE = 0
MALLOC_HUGE_FIRST = 0
BATCH_INPUT = "ascend_mbatch_shape_data"


class ReleaseError(Exception):
    """The command line is wrong, or the release's files don't fit together. Exit code 2."""


class NoPictures(Exception):
    """The folder has no pictures. Exit code 5."""


class AclError(Exception):
    """A call of pyACL failed. Exit code 6."""


class AclMissing(Exception):
    """pyACL can't be imported. Exit code 7."""


# -------------------------------------------------------------------------------------------- what is printed

def open_stdout():
    # Boards often run with LANG=C, where Python 3.6 would die of the first file name that isn't ASCII.
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="backslashreplace",
                                  line_buffering=True)


def say(text):
    """Print one line. Nobody listening any more is no reason to stop: results are in files."""
    try:
        print("".join(c if c.isprintable() else "?" for c in text))
    except OSError:
        # What is still buffered must go somewhere too, or Python's last flush fails and spoils the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Progress:
    """Prints ``@progress done total``, at most five times a second, and always at the end."""

    def __init__(self, total):
        self.total, self.last = total, -1.0

    def show(self, done):
        now = time.perf_counter()
        if done == self.total or now - self.last >= 0.2:
            self.last = now
            say(f"@progress {done} {self.total}")


# ---------------------------------------------------------------------------------------- the release's files

def read_spec(release):
    """Return the "preprocess" part of spec.json: size [height, width], resize_filter, color_order, ..."""
    path = os.path.join(release, "spec.json")
    try:
        with open(path, encoding="utf-8") as stream:
            spec = json.load(stream)
        if spec["version"] != SPEC_VERSION:
            raise ValueError("version {} is not {}".format(spec["version"], SPEC_VERSION))
        spec = spec["preprocess"]
        if spec["color_order"] not in ("RGB", "BGR") or spec["layout"] not in ("NCHW", "NHWC"):
            raise ValueError("color_order {}, layout {}".format(spec["color_order"], spec["layout"]))
        resampling(spec)
        gain_and_bias(spec)
        height, width = spec["size"]
        spec["aipp"], height + width
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ReleaseError(f"{path}: unusable: {error!r}")
    return spec


def read_lines(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().rstrip("\n").split("\n")
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}")


def list_pictures(folder, only=None):
    """Return the names of the pictures in ``folder``, sorted; or those in the file ``only``, in its order."""
    try:
        there = [name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in EXTENSIONS
                 and os.path.isfile(os.path.join(folder, name))]
    except OSError as error:
        raise NoPictures(f"{folder}: {error.strerror}")
    there.sort(key=os.fsencode)
    if only is None:
        return there
    known = {utf8(name): name for name in there}
    wanted = [line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
              for line in read_lines(only) if line]
    lacking = [name for name in wanted if name not in known]
    if lacking:
        raise ReleaseError(f"{only}: {len(lacking)} of {len(wanted)} pictures are not in {folder}, "
                           f"first {lacking[0]}")
    return [known[name] for name in wanted]


def utf8(name):
    """A file name as people know it, also where Python takes the file system for ASCII (LANG=C, 3.6)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# --------------------------------------------------------------------------------------------- pre-processing
# The same arithmetic as toolkit/preprocess.py, bit for bit: out = pixel * gain + bias, in float32.

def resampling(spec):
    # Pillow 9.1 moved the filters into Image.Resampling.
    return getattr(getattr(Image, "Resampling", Image), spec["resize_filter"].upper())


def gain_and_bias(spec):
    gain = [spec["scale"] / std for std in spec["std"]]
    bias = [-mean / std for mean, std in zip(spec["mean"], spec["std"])]
    if len(gain) != 3 or len(bias) != 3:
        raise ValueError("three values of mean and std are needed")
    return np.array(gain, dtype=np.float32), np.array(bias, dtype=np.float32)


def decode(path):
    """Return the picture as an RGB image; raises whatever Pillow raises for broken ones."""
    with open(path, "rb") as stream:
        try:
            image = Image.open(stream)
        except OSError as error:
            if error.errno is None:
                raise ValueError("not a picture")  # Pillow would name the open file
            raise
        if image.mode in DEEP_MODES:
            raise ValueError(f"mode {image.mode} (16-bit or floating point) is not supported")
        return image.convert("RGB")


def preprocess(image, spec):
    """Return the model's input for an RGB image: float32 [3,H,W] or [H,W,3]; with AIPP uint8 [H,W,3], RGB."""
    height, width = spec["size"]
    # One pass each way: in one call their order, and so the pixels, depend on the version of Pillow.
    image = image.resize((width, image.height), resampling(spec)).resize((width, height), resampling(spec))
    pixels = np.asarray(image, dtype=np.uint8)
    if spec["aipp"]:
        return pixels
    if spec["color_order"] == "BGR":
        pixels = pixels[:, :, ::-1]
    gain, bias = gain_and_bias(spec)
    if spec["layout"] == "NCHW":
        out = np.empty((3, height, width), dtype=np.float32)
        np.copyto(out, pixels.transpose(2, 0, 1))
        rows, gain, bias = out, gain.reshape(3, 1, 1), bias.reshape(3, 1, 1)
    else:
        out = np.empty((height, width, 3), dtype=np.float32)
        np.copyto(out, pixels)
        # Whole rows at a time: an inner axis of three costs NumPy eight times as much.
        rows, gain, bias = out.reshape(height, width * 3), np.tile(gain, width), np.tile(bias, width)
    np.multiply(rows, gain, out=rows)
    np.add(rows, bias, out=rows)
    return out


# ------------------------------------------------------------------------------------------------------ pyACL

def import_acl():
    try:
        import acl
    except ImportError as error:
        paths = ", ".join(f"{name}={os.environ.get(name, '')}" for name in ("PYTHONPATH", "LD_LIBRARY_PATH"))
        raise AclMissing(f"python module acl missing: {error} (interpreter {sys.executable}, {paths}): "
                         "source CANN's set_env.sh, or the release's env.sh")
    return acl


class Board:
    """The device: initialised in the order that pyACL wants, released in the opposite one in any case."""

    def __init__(self, acl, device, stack):
        self.acl, self.device, self.stack = acl, device, stack
        self.call("acl.init", acl.init)
        self.at_end("acl.finalize", acl.finalize)
        self.call("acl.rt.set_device", acl.rt.set_device, device)
        self.at_end("acl.rt.reset_device", acl.rt.reset_device, device)
        self.context = self.call("acl.rt.create_context", acl.rt.create_context, device)
        self.at_end("acl.rt.destroy_context", acl.rt.destroy_context, self.context)
        self.stream = self.call("acl.rt.create_stream", acl.rt.create_stream)
        self.at_end("acl.rt.destroy_stream", acl.rt.destroy_stream, self.stream)
        self.run_mode = self.call("acl.rt.get_run_mode", acl.rt.get_run_mode)
        # On a board whose own CPU runs us (RC), host and device share one memory.
        shared = self.run_mode == RUN_MODE_DEVICE
        self.copy_in = DEVICE_TO_DEVICE if shared else HOST_TO_DEVICE
        self.copy_out = DEVICE_TO_DEVICE if shared else DEVICE_TO_HOST

    def call(self, name, function, *arguments):
        """Call pyACL; its last (or only) value is a return code: 0, or AclError. Returns the other value."""
        answer = function(*arguments)
        value, code = answer if isinstance(answer, tuple) else (None, answer)
        if code != 0:
            raise AclError(self.failure(name, code))
        return value

    def handle(self, name, function, *arguments):
        """Call one of those functions which return a handle and no code: 0 means that it failed."""
        value = function(*arguments)
        if not value:
            raise AclError(self.failure(name, "no handle"))
        return value

    def failure(self, name, code):
        get_message = getattr(self.acl, "get_recent_err_msg", None)
        message = get_message() if get_message else None
        first = (message or "").strip().split("\n")[0].strip()
        return "{} failed: {}{}".format(name, code, " " + first if first else "")

    def at_end(self, name, function, *arguments):
        def release():
            # A failure here must not hide the one that brought us here.
            code = function(*arguments)
            if code != 0:
                sys.stderr.write(f"warning: {self.failure(name, code)}\n")
        self.stack.callback(release)

    def malloc(self, size):
        pointer = self.call("acl.rt.malloc", self.acl.rt.malloc, size, MALLOC_HUGE_FIRST)
        self.at_end("acl.rt.free", self.acl.rt.free, pointer)
        return pointer

    def versions(self):
        """soc_name and acl version, "" where this CANN can't tell."""
        soc_name = getattr(self.acl, "get_soc_name", lambda: None)() or ""
        version = getattr(self.acl, "get_version", lambda: ())()
        return soc_name, ".".join(str(part) for part in version[:3]) if version and version[-1] == 0 else ""


class Tensor:
    """One input or output of the model, with its buffer on the device."""

    def __init__(self, board, name, dims, dtype, size):
        self.name, self.dims, self.dtype, self.size = name, dims, dtype, size
        self.device = board.malloc(size)

    def __str__(self):
        return f"{self.dtype} {list(self.dims)}"


class Model:
    """model.om, loaded once; buffers are allocated once and used for each batch."""

    def __init__(self, board, path):
        acl, self.board = board.acl, board
        mdl = acl.mdl
        self.id = board.call("acl.mdl.load_from_file", mdl.load_from_file, path)
        board.at_end("acl.mdl.unload", mdl.unload, self.id)
        self.desc = board.handle("acl.mdl.create_desc", mdl.create_desc)
        board.at_end("acl.mdl.destroy_desc", mdl.destroy_desc, self.desc)
        board.call("acl.mdl.get_desc", mdl.get_desc, self.desc, self.id)
        self.gears, self.gear_index = self.dynamic_batch()
        self.inputs = [self.tensor("input", i) for i in range(mdl.get_num_inputs(self.desc))]
        self.outputs = [self.tensor("output", i) for i in range(mdl.get_num_outputs(self.desc))]
        if len(self.inputs) != (2 if self.gears else 1) or not self.outputs:
            raise ReleaseError(f"{path}: {len(self.inputs)} inputs and {len(self.outputs)} outputs; "
                               "infer.py wants one that takes pictures and one that gives scores")
        self.input_set = self.dataset(self.inputs)
        self.output_set = self.dataset(self.outputs)
        # A model with a dynamic batch has a second input, which tells it the size of the batch.
        self.input = next(tensor for tensor in self.inputs if tensor.name != BATCH_INPUT)
        self.output = self.outputs[0]
        self.batch = self.input.dims[0]
        self.feed = np.zeros(self.input.dims, dtype=self.input.dtype)
        self.scores = np.zeros(self.output.dims, dtype=self.output.dtype)
        for array, tensor in ((self.feed, self.input), (self.scores, self.output)):
            # memcpy would read or write beyond the end of the smaller one.
            if array.nbytes > tensor.size:
                raise ReleaseError(f"{path}: {tensor} is {array.nbytes} bytes, the model says {tensor.size}")
        if self.scores.size % self.batch:
            raise ReleaseError(f"{path}: output {self.output} can't be divided among {self.batch} pictures")

    def dynamic_batch(self):
        """Return a dynamic batch's sizes, sorted, and the index of the input that sets it; or ([], 0)."""
        mdl = self.board.acl.mdl
        index, code = mdl.get_input_index_by_name(self.desc, BATCH_INPUT)
        if code != 0:  # the normal answer for static models; reading the message clears it
            self.board.failure("", code)
            return [], 0
        sizes = self.board.call("acl.mdl.get_dynamic_batch", mdl.get_dynamic_batch, self.desc)["batch"]
        if not sizes:
            raise ReleaseError("model.om has a dynamic picture size or dims; only the batch may be dynamic")
        return sorted(sizes), index

    def tensor(self, kind, index):
        """Describe one "input" or "output", and allocate its buffer."""
        board, mdl = self.board, self.board.acl.mdl
        get_dims = getattr(mdl, f"get_{kind}_dims")
        described = board.call(f"acl.mdl.get_{kind}_dims", get_dims, self.desc, index)
        dims = [int(dim) for dim in described["dims"]]
        if self.gears and dims and dims[0] == -1:
            dims[0] = self.gears[-1]
        number = getattr(mdl, f"get_{kind}_data_type")(self.desc, index)
        size = getattr(mdl, f"get_{kind}_size_by_index")(self.desc, index)
        if number not in DTYPES or not dims or min(dims) < 1:
            raise ReleaseError(f"model.om: {kind} {index} has dims {dims}, aclDataType {number}: unusable")
        return Tensor(board, described.get("name", ""), tuple(dims), DTYPES[number], size)

    def dataset(self, tensors):
        acl, board = self.board.acl, self.board
        dataset = board.handle("acl.mdl.create_dataset", acl.mdl.create_dataset)
        board.at_end("acl.mdl.destroy_dataset", acl.mdl.destroy_dataset, dataset)
        for tensor in tensors:
            buffer = board.handle("acl.create_data_buffer", acl.create_data_buffer,
                                  tensor.device, tensor.size)
            board.at_end("acl.destroy_data_buffer", acl.destroy_data_buffer, buffer)
            board.call("acl.mdl.add_dataset_buffer", acl.mdl.add_dataset_buffer, dataset, buffer)
        return dataset

    def check_fits(self, spec):
        """Refuse a model whose input isn't what spec.json's pre-processing makes."""
        height, width = spec["size"]
        nhwc = spec["aipp"] or spec["layout"] == "NHWC"
        made = (self.batch, height, width, 3) if nhwc else (self.batch, 3, height, width)
        dtypes = ("uint8",) if spec["aipp"] else ("float32", "float16")
        if self.input.dims != made or self.input.dtype not in dtypes:
            raise ReleaseError(
                f"model.om wants {self.input}, spec.json makes {dtypes[0]} {list(made)}: convert the model "
                "with the same pre-processing (aipp, layout, size)")

    def execute(self, count):
        """Run the first ``count`` pictures of ``self.feed``: float32 [count, classes]."""
        if count < self.batch:
            self.feed[count:] = 0
        if self.gears:
            gear = min(size for size in self.gears if size >= count)
            self.board.call("acl.mdl.set_dynamic_batch_size", self.board.acl.mdl.set_dynamic_batch_size,
                            self.id, self.input_set, self.gear_index, gear)
        self.to_device()
        self.compute()
        self.from_device()
        return self.scores.reshape(self.batch, -1)[:count].astype(np.float32)

    def to_device(self):
        board = self.board
        board.call("acl.rt.memcpy", board.acl.rt.memcpy, self.input.device, self.input.size,
                   self.feed.ctypes.data, self.feed.nbytes, board.copy_in)

    def compute(self):
        self.board.call("acl.mdl.execute", self.board.acl.mdl.execute, self.id, self.input_set, self.output_set)

    def from_device(self):
        board = self.board
        board.call("acl.rt.memcpy", board.acl.rt.memcpy, self.scores.ctypes.data, self.scores.nbytes,
                   self.output.device, self.scores.nbytes, board.copy_out)


# -------------------------------------------------------------------------------------------- post-processing

def softmax(logits):
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return shifted / shifted.sum()


def best(logits, count):
    """Return the ids of the ``count`` best classes, best first; equal ones by their ids.

    Of the logits: many confidences can be 0.0 at once.
    """
    return [int(i) for i in np.argsort(-logits, kind="mergesort")[:count]]


def class_name(labels, number):
    return labels[number] if number < len(labels) else "unknown"


@functools.lru_cache(maxsize=None)
def load_font(path, size):
    """Return a font, and whether it comes in any size and with any letters."""
    try:
        return ImageFont.truetype(path, size), True
    except (OSError, ImportError):  # no such font, or a Pillow built without FreeType
        return ImageFont.load_default(), False


def text_size(draw, text, font):
    if hasattr(draw, "textbbox"):  # Pillow 8 and later; textsize left with Pillow 10
        return draw.textbbox((0, 0), text, font=font)[2:]
    return draw.textsize(text, font=font)


def annotate(image, text):
    """Return a copy of an RGB image with ``text`` in red at (10, 50), 20 pixels high, as the tutorial does.

    Tiny pictures are enlarged by a whole number, to 128 pixels at least, or nobody could read it; the text
    becomes smaller and moves up where it would not fit.
    """
    factor = math.ceil(128.0 / min(image.size))
    if factor > 1 and max(image.size) * factor <= 4096:
        nearest = getattr(Image, "Resampling", Image).NEAREST
        image = image.resize((image.width * factor, image.height * factor), nearest)
    else:
        image = image.copy()
    draw = ImageDraw.Draw(image)
    size = 20
    font, scalable = load_font(FONT, size)
    if not scalable:
        text = text.encode("latin-1", "replace").decode("latin-1")  # all that the built-in font can draw
    width, height = text_size(draw, text, font)
    while scalable and size > 8 and 10 + width > image.width:
        size -= 1
        font, scalable = load_font(FONT, size)
        width, height = text_size(draw, text, font)
    x = max(0, min(10, image.width - width))
    y = max(0, min(50, image.height - height))
    draw.text((x, y), text, font=font, fill=(255, 0, 0))
    return image


def save(image, folder, name):
    kind = EXTENSIONS[os.path.splitext(name)[1].lower()]
    options = {"quality": 95} if kind == "JPEG" else {}
    with replacing(os.path.join(folder, name)) as stream:
        image.save(stream, kind, **options)


@contextlib.contextmanager
def replacing(path):
    """Open a file beside ``path`` for writing, and rename it to ``path`` when all went well."""
    temporary = os.path.join(os.path.dirname(path), f".writing-{os.getpid()}")
    try:
        with open(temporary, "wb") as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


# ---------------------------------------------------------------------------------------------------- the run

class Clock:
    """Milliseconds of each phase: ``split`` returns those since the last call."""

    def __init__(self):
        self.last = time.perf_counter()

    def split(self):
        now = time.perf_counter()
        elapsed, self.last = (now - self.last) * 1000.0, now
        return round(elapsed, 4)


def percentile(values, percent):
    """Nearest rank: a value that was measured, or None if there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100.0 * len(ordered)) - 1)] if ordered else None


class Run:
    """One pass over the pictures; what it did ends in results.jsonl and summary.json."""

    PHASES = ("decode", "preprocess", "execute", "postprocess", "annotate")

    def __init__(self, options, names, labels):
        self.options, self.names, self.labels = options, names, labels
        self.times = {phase: [] for phase in self.PHASES}
        self.done = self.failed = 0
        self.progress = Progress(len(names))
        self.results = open(os.path.join(options.out, "results.jsonl"), "w", encoding="ascii")

    def all(self, model, spec):
        for start in range(0, len(self.names), model.batch):
            ready = []  # [name, image or None, ms] of the pictures in model.feed
            for name in self.names[start:start + model.batch]:
                prepared = self.prepare(name, model, spec, len(ready))
                if prepared:
                    ready.append(prepared)
            if not ready:
                continue
            clock = Clock()
            scores = model.execute(len(ready))
            # A picture's share of the batch, copies to and from the device included.
            share = round(clock.split() / len(ready), 4)
            for (name, image, ms), logits in zip(ready, scores):
                ms["execute"] = share
                self.finish(name, image, ms, logits)

    def prepare(self, name, model, spec, slot):
        """Decode and pre-process one picture into ``model.feed[slot]``."""
        clock, ms = Clock(), {}
        try:
            image = decode(os.path.join(self.options.pictures, name))
            ms["decode"] = clock.split()
            model.feed[slot] = preprocess(image, spec)
            ms["preprocess"] = clock.split()
        except Exception as error:  # Pillow raises nearly anything for broken files
            self.fail(name, error)
            return None
        # A large batch of large pictures would not fit into a small board's memory.
        return name, image if model.batch == 1 else None, ms

    def finish(self, name, image, ms, logits):
        clock = Clock()
        if not np.isfinite(logits).all():
            return self.fail(name, ValueError(f"scores are not finite: {logits[:5].tolist()}"))
        confidences = softmax(logits)
        top = best(logits, self.options.top_k)
        name_of_best = class_name(self.labels, top[0])
        ms["postprocess"] = clock.split()
        try:
            if image is None:
                image = decode(os.path.join(self.options.pictures, name))
            save(annotate(image, name_of_best), self.options.out, name)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # disk full, read-only: the same awaits every other picture
            return self.fail(name, error)
        ms["annotate"] = clock.split()
        say(f"images:{utf8(os.path.join(self.options.pictures, name))}")
        say(f"======== top{len(top)} inference results: =============")
        for number in top:
            say("label:%d  confidence: %f, class: %s" % (
                number, confidences[number], class_name(self.labels, number)))
        for phase in self.PHASES:
            self.times[phase].append(ms[phase])
        self.record({
            "picture": utf8(name), "label": top[0], "class": name_of_best,
            "confidence": float(confidences[top[0]]),
            "top": [[number, float(confidences[number])] for number in top],
            "logits": [float(value) for value in logits], "ms": ms,
        })

    def fail(self, name, error):
        self.failed += 1
        text = " ".join(str(error).split()) or type(error).__name__
        say(f"images:{utf8(os.path.join(self.options.pictures, name))}")
        say(f"failed: {text}")
        self.record({"picture": utf8(name), "error": text})

    def record(self, line):
        self.results.write(json.dumps(line, sort_keys=True) + "\n")
        self.results.flush()
        self.done += 1
        self.progress.show(self.done)

    def summary(self):
        return {
            "run": self.options.run, "pictures": len(self.names), "count": self.done, "failed": self.failed,
            "ms": {phase: {"p50": percentile(values, 50), "p99": percentile(values, 99)}
                   for phase, values in self.times.items()},
        }


def spread(values):
    """Percentiles and the like of milliseconds."""
    return {"min": min(values), "mean": round(math.fsum(values) / len(values), 4), "max": max(values),
            "p50": percentile(values, 50), "p90": percentile(values, 90), "p99": percentile(values, 99)}


def used_memory(board):
    """Megabytes of the device's memory that are in use, or None where this CANN can't tell."""
    get_mem_info = getattr(board.acl.rt, "get_mem_info", None)
    for attribute in (1, 0):  # aclrtMemAttr: ACL_HBM_MEM, ACL_DDR_MEM; a chip has one of them
        free, total, code = get_mem_info(attribute) if get_mem_info else (0, 0, 1)
        if code == 0 and total:
            return round((total - free) / 1e6, 1)
    return None


def measure(options, board, model, load_seconds):
    """Run the model ``options.loop`` times with the input that is in ``model.feed``, each phase timed."""
    phases = (("to_device", model.to_device), ("execute", model.compute), ("from_device", model.from_device))
    times = {name: [] for name, _ in phases}
    progress, begun = Progress(options.loop), time.perf_counter()
    for number in range(options.loop):
        clock = Clock()
        for name, phase in phases:
            phase()
            times[name].append(clock.split())
        progress.show(number + 1)
    seconds = time.perf_counter() - begun
    total = [round(sum(one), 4) for one in zip(*(times[name] for name, _ in phases))]
    query = getattr(board.acl.mdl, "query_size", None)
    work, weights, code = query(os.path.join(options.release, "model.om")) if query else (0, 0, 1)
    bench = {
        "run": options.run, "count": options.loop, "warmup": options.warmup, "batch": model.batch,
        "ms": dict({name: spread(values) for name, values in times.items()}, total=spread(total)),
        "throughput": round(options.loop * model.batch / seconds, 3), "seconds": round(seconds, 6),
        "load_seconds": load_seconds, "device_memory_mb": used_memory(board),
        "model_memory_mb": round((work + weights) / 1e6, 1) if code == 0 else None, "times": total,
    }
    with replacing(os.path.join(options.out, "bench.json")) as stream:
        stream.write((json.dumps(bench, sort_keys=True) + "\n").encode("ascii"))


def environment(options):
    return {
        "device": options.device, "python": platform.python_version(), "numpy": np.__version__,
        "pillow": PIL.__version__, "machine": platform.machine(),
        # Linux gives kilobytes.
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1),
    }


def infer(options, summary):
    """Do what the command line says; ``summary`` is filled in on the way. Returns the exit code."""
    spec = read_spec(options.release)
    labels = [line.strip() for line in read_lines(os.path.join(options.release, "labels.txt"))]
    names = list_pictures(options.pictures, options.list)[:options.limit]
    if not names:
        raise NoPictures("{}: no pictures ({})".format(options.pictures, " ".join(sorted(EXTENSIONS))))
    acl = import_acl()
    run = Run(options, names, labels)
    summary.update(run.summary())
    with contextlib.ExitStack() as stack:
        stack.callback(run.results.close)
        stack.callback(lambda: summary.update(run.summary()))
        clock = Clock()
        board = Board(acl, options.device, stack)
        summary["soc_name"], summary["acl"] = board.versions()
        summary["run_mode"] = "RC" if board.run_mode == RUN_MODE_DEVICE else "EP"
        model = Model(board, os.path.join(options.release, "model.om"))
        model.check_fits(spec)
        summary.update(load_seconds=round(clock.split() / 1000.0, 6), batch=model.batch,
                       input=str(model.input), output=str(model.output))
        if options.loop:
            return loop(options, names, board, model, spec, summary["load_seconds"])
        Image.preinit()  # or the first picture's decoding would count Pillow's search for decoders
        for _ in range(options.warmup):  # the first execution also sets things up: it is not timed
            model.execute(model.batch)
        run.all(model, spec)
    return 4 if run.failed == len(names) else 0


def loop(options, names, board, model, spec, load_seconds):
    """--loop: the first picture that can be read, again and again. Returns the exit code."""
    for name in names:
        try:
            model.feed[:] = preprocess(decode(os.path.join(options.pictures, name)), spec)
            break
        except Exception as error:  # Pillow raises nearly anything for broken files
            say(f"failed: {name}: {error}")
    else:
        return 4
    for _ in range(options.warmup):
        model.execute(model.batch)
    if model.gears and not options.warmup:
        model.execute(model.batch)  # sets the size of the batch
    measure(options, board, model, load_seconds)
    return 0


def parse(arguments):
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Classify a folder of pictures with a release's model.om.")
    parser.add_argument("--release", default=here, help="folder of model.om, spec.json, labels.txt (here)")
    parser.add_argument("--pictures", help="folder of pictures (RELEASE/pictures)")
    parser.add_argument("--out", default="outputs", help="folder for pictures and results (./outputs)")
    parser.add_argument("--run", default="", help="name of this run, noted in summary.json")
    parser.add_argument("--top-k", type=int, default=5, help="how many classes are shown (5)")
    parser.add_argument("--device", type=int, default=0, help="number of the device (0)")
    parser.add_argument("--limit", type=int, default=None, help="take the first N pictures only")
    parser.add_argument("--warmup", type=int, default=1, help="executions before the first picture (1)")
    parser.add_argument("--mode", choices=["folder"], default="folder", help="where pictures come from")
    parser.add_argument("--loop", type=int, default=None, metavar="N",
                        help="measure N executions of one picture instead")
    parser.add_argument("--list", help="file with names of pictures, one a line: only those, in that order")
    options = parser.parse_args(arguments)
    if options.pictures is None:
        options.pictures = os.path.join(options.release, "pictures")
    for flag, value, least in (("--top-k", options.top_k, 1), ("--limit", options.limit, 1), ("--loop", options.loop, 1),
                               ("--warmup", options.warmup, 0), ("--device", options.device, 0)):
        if value is not None and value < least:
            parser.error(f"{flag} must be at least {least}, not {value}")
    return options


def main(arguments=None):
    options = parse(arguments)
    open_stdout()
    # A terminated process must leave the device as it found it: let the stack unwind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    summary, code, problem = {"run": options.run}, 1, None
    try:
        os.makedirs(options.out, exist_ok=True)
        if os.path.realpath(options.out) == os.path.realpath(options.pictures):
            raise ReleaseError("--out is the folder of the pictures: they are never overwritten")
        code = infer(options, summary)
    except ReleaseError as error:
        code, problem = 2, str(error)
    except OSError as error:  # OUT can't be written: disk full, read-only
        code, problem = 3, str(error)
    except NoPictures as error:
        code, problem = 5, str(error)
    except AclError as error:
        code, problem = 6, str(error)
    except AclMissing as error:
        code, problem = 7, str(error)
    except KeyboardInterrupt:
        code, problem = 130, "interrupted"
    except SystemExit as error:
        code, problem = error.code, "terminated"
    if problem:
        sys.stderr.write(problem.encode("ascii", "backslashreplace").decode("ascii") + "\n")
    summary.update(environment(options))
    summary.update(exit=code, error=problem)
    try:
        with replacing(os.path.join(options.out, "summary.json")) as stream:
            stream.write((json.dumps(summary, indent=1, sort_keys=True) + "\n").encode("ascii"))
    except OSError as error:
        sys.stderr.write(f"summary.json: {error}\n")
        code = code or 3
    return code


if __name__ == "__main__":
    sys.exit(main())
